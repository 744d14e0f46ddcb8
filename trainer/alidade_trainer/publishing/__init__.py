"""Makes a finished model known: on the Hugging Face hub, in a model registry."""
