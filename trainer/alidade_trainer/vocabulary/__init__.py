"""A tokenizer with more pieces, and a model with rows for them."""
