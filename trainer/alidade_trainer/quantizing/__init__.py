"""Quantization as a job: a model as one GGUF file, with its perplexity before and after."""
