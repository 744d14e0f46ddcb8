"""Decisions: pure functions from a resource and what is observed to what to do."""
