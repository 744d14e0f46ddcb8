"""The suites: what each asks of a model, and what it makes of the answers."""
