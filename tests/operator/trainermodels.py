"""What Trainer's own models make of an object, compared with it."""

from __future__ import annotations

from typing import Any


def is_within(part: Any, whole: Any) -> bool:
    """Whether all of a value stands in another one, which may have defaults beside it."""
    if isinstance(part, dict):
        return isinstance(whole, dict) and all(
            name in whole and is_within(value, whole[name]) for name, value in part.items()
        )
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(is_within, part, whole))
    return bool(part == whole)
