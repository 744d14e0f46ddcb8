"""Trains language models from one job document: pretraining and supervised fine-tuning under DeepSpeed."""
