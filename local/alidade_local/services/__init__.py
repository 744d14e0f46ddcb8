"""What makes a Service's address answer: a relay on loopback in front of the pods behind it."""
