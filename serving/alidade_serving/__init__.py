"""Serves a language model on CPUs: llama.cpp inside, text-generation-inference's and OpenAI's HTTP APIs outside."""
