"""GGUF, the file format of llama.cpp: a folder in Hugging Face format becomes one file, quantized or not."""
