"""Loads a model, renders a conversation, scores and samples: what trainer, eval and serving share."""
