"""JSONPath, in the form that printer columns use it."""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Values = list[Any]
Step = Callable[[Values], Values]

_NAME = re.compile(r"(?:\\.|[^.\[\]\\])+")
_FILTER = re.compile(r"""\?\(\s*@((?:\.|\[).*?)?\s*(?:(==|!=|<=|>=|<|>)\s*(.+?))?\s*\)$""")


class JsonPathError(ValueError):
    """The text is no JSONPath."""


@lru_cache(maxsize=1024)
def compile_path(text: str) -> Callable[[Any], Values]:
    """The function that finds all values of a path in an object."""
    steps = _parse(text.strip().removeprefix("{").removesuffix("}").removeprefix("$"))

    def find(obj: Any) -> Values:
        values: Values = [obj]
        for step in steps:
            values = step(values)
        return values

    return find


def _parse(text: str) -> list[Step]:
    steps: list[Step] = []
    at = 0
    while at < len(text):
        if text[at] == "[":
            end = _closing(text, at)
            steps.append(_bracket(text[at + 1 : end]))
            at = end + 1
            continue
        if text.startswith("..", at):
            steps.append(_everywhere)
            at += 2
        elif text[at] == ".":
            at += 1
        if at >= len(text) or text[at] == "[":
            continue
        found = _NAME.match(text, at)
        if not found:
            raise JsonPathError(f"unexpected {text[at]!r} at {at} in {text!r}")
        name = re.sub(r"\\(.)", r"\1", found[0])
        steps.append(_every if name == "*" else _member(name))
        at = found.end()
    return steps


def _closing(text: str, start: int) -> int:
    """Where the bracket opened at `start` closes; brackets in quotes do not count."""
    depth, quote = 0, ""
    for at in range(start, len(text)):
        character = text[at]
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
            if not depth:
                return at
    raise JsonPathError(f"unterminated [ in {text!r}")


def _member(name: str) -> Step:
    return lambda values: [value[name] for value in values if isinstance(value, dict) and name in value]


def _every(values: Values) -> Values:
    result: Values = []
    for value in values:
        if isinstance(value, dict):
            result.extend(value.values())
        elif isinstance(value, list):
            result.extend(value)
    return result


def _everywhere(values: Values) -> Values:
    result: Values = []
    waiting = list(reversed(values))
    while waiting:
        value = waiting.pop()
        result.append(value)
        waiting.extend(reversed(_every([value])))
    return result


def _bracket(inside: str) -> Step:
    inside = inside.strip()
    if inside == "*":
        return _every
    if inside.startswith("?"):
        return _filter(inside)
    if inside[:1] in "\"'" and inside[-1:] == inside[:1] and len(inside) > 1:
        return _member(inside[1:-1])
    if re.fullmatch(r"-?\d+", inside):
        index = int(inside)
        return lambda values: [
            value[index] for value in values if isinstance(value, list) and -len(value) <= index < len(value)
        ]
    if re.fullmatch(r"-?\d*:-?\d*(:-?\d*)?", inside):
        bounds = slice(*(int(part) if part else None for part in inside.split(":")))
        return lambda values: [item for value in values if isinstance(value, list) for item in value[bounds]]
    raise JsonPathError(f"cannot understand [{inside}]")


def _filter(inside: str) -> Step:
    found = _FILTER.match(inside)
    if not found:
        raise JsonPathError(f"cannot understand [{inside}]")
    path, operator, literal = compile_path(found[1] or ""), found[2], found[3]
    wanted = _literal(literal) if operator else None

    def keep(item: Any) -> bool:
        values = path(item)
        if not operator:
            return bool(values)
        return bool(values) and _holds(values[0], operator, wanted)

    return lambda values: [item for value in values if isinstance(value, list) for item in value if keep(item)]


def _literal(text: str) -> Any:
    if text[:1] in "\"'" and text[-1:] == text[:1] and len(text) > 1:
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        raise JsonPathError(f"cannot understand {text!r} in a filter") from None


def _holds(value: Any, operator: str, wanted: Any) -> bool:
    if operator == "==":
        return bool(value == wanted)
    if operator == "!=":
        return bool(value != wanted)
    if isinstance(value, str) is not isinstance(wanted, str) or not isinstance(value, str | int | float):
        return False
    match operator:
        case "<":
            return bool(value < wanted)
        case "<=":
            return bool(value <= wanted)
        case ">":
            return bool(value > wanted)
        case _:
            return bool(value >= wanted)
