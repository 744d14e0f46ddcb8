"""A context longer than the base model has: stretched rotary positions, and what becomes of perplexity."""
