"""What the container of each inference server looks like."""
