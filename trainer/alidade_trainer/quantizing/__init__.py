"""Quantization as a job: a model in fewer bits, with its perplexity before and after."""
