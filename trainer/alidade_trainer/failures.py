"""Every failure that a user sees is raised as this; it lives in the engine, whose loaders raise it too."""

from alidade_engine.failures import JobFailure

__all__ = ["JobFailure"]
