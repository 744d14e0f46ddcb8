"""Flags that are also read from the environment, and the kinds of values that they take."""

import argparse
from collections.abc import Callable, Mapping
from typing import Any


class Flags:
    """Adds flags whose defaults the environment may give, under the prefix and the flag's name."""

    def __init__(self, parser: argparse.ArgumentParser, prefix: str, environment: Mapping[str, str]) -> None:
        self._parser = parser
        self._prefix = prefix
        self._environment = environment

    def add(self, flag: str, kind: Callable[[str], Any], default: object, text: str) -> None:
        """One flag; a default that is a text is parsed, and refused, as if it had been given as the flag."""
        variable = self._prefix + flag.removeprefix("--").replace("-", "_").upper()
        self._parser.add_argument(flag, type=kind, default=self._environment.get(variable, default), help=text)


def between(low: int, high: int) -> Callable[[str], int]:
    """A whole number within bounds."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return value

    return parse


def seconds(text: str) -> float:
    """A time, in seconds, up to a day."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 86400 seconds")
    return value
