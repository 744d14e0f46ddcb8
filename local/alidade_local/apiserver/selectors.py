"""Label and field selectors: parsed once, asked often."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from alidade_local.apiserver.errors import bad_request
from alidade_local.apiserver.names import label_value_errors, qualified_name_problem

Json = dict[str, Any]

_TOKEN = re.compile(r"\s*(?:(!=|==|=|!|,|\(|\)|>|<)|([A-Za-z0-9_./-]+))")


@dataclass(frozen=True)
class Requirement:
    """One comma-separated part of a label selector."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return self.key in labels
            case "not exists":
                return self.key not in labels
            case "in":
                return value in self.values if value is not None else False
            case "notin":
                return value is None or value not in self.values
            case _:
                return _compare(value, self.operator, next(iter(self.values)))


def _compare(value: str | None, operator: str, bound: str) -> bool:
    try:
        number, limit = int(value or ""), int(bound)
    except ValueError:
        return False
    return number > limit if operator == "gt" else number < limit


class LabelSelector:
    """All requirements of a labelSelector parameter."""

    def __init__(self, requirements: tuple[Requirement, ...]) -> None:
        self.requirements = requirements

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether every requirement holds."""
        return all(requirement.matches(labels) for requirement in self.requirements)


class _Tokens:
    def __init__(self, text: str) -> None:
        self.text = text
        self.items = self._split(text)
        self.at = 0

    @staticmethod
    def _split(text: str) -> list[str]:
        items, position = [], 0
        while position < len(text):
            if text[position:].isspace():
                break
            found = _TOKEN.match(text, position)
            if not found:
                raise bad_request(f"unable to parse requirement: found '{text[position:]}', expected an identifier")
            items.append(found[1] or found[2])
            position = found.end()
        return items

    def peek(self) -> str:
        return self.items[self.at] if self.at < len(self.items) else ""

    def take(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def name(self) -> str:
        token = self.take()
        if not token or token in ("!=", "==", "=", "!", ",", "(", ")", ">", "<"):
            raise bad_request(f"unable to parse requirement: found '{token}', expected: identifier")
        return token


def parse_labels(text: str) -> LabelSelector:
    """A labelSelector parameter: equality-based, set-based, existence and integer comparison."""
    tokens = _Tokens(text)
    requirements: list[Requirement] = []
    while tokens.peek():
        requirements.append(_requirement(tokens))
        if tokens.peek() and tokens.take() != ",":
            raise bad_request(
                f"unable to parse requirement: found '{tokens.items[tokens.at - 1]}', expected: ',' or 'end of string'"
            )
    return LabelSelector(tuple(requirements))


def _requirement(tokens: _Tokens) -> Requirement:
    if tokens.peek() == "!":
        tokens.take()
        return Requirement(tokens.name(), "not exists")
    key = tokens.name()
    operator = tokens.peek()
    if operator in ("", ","):
        return Requirement(key, "exists")
    tokens.take()
    if problem := qualified_name_problem(key):
        raise bad_request(f'unable to parse requirement: <nil>: Invalid value: "{key}": {problem}')
    if operator in ("=", "==", "!="):
        value = "" if tokens.peek() in ("", ",") else tokens.name()
        if errors := label_value_errors(value, f"values[0][{key}]"):
            raise bad_request(f"unable to parse requirement: {errors[0]}")
        return Requirement(key, "notin" if operator == "!=" else "in", frozenset({value}))
    if operator in (">", "<"):
        bound = tokens.name()
        if not bound.lstrip("-").isdigit():
            raise bad_request(f"for '{operator}' operators, the value must be an integer, found '{bound}'")
        return Requirement(key, "gt" if operator == ">" else "lt", frozenset({bound}))
    if operator in ("in", "notin"):
        return Requirement(key, operator, _value_set(tokens))
    raise bad_request(f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _value_set(tokens: _Tokens) -> frozenset[str]:
    found = tokens.take()
    if found != "(":
        raise bad_request(f"unable to parse requirement: found '{found}' expected: '('")
    values: set[str] = set()
    while True:
        values.add("" if tokens.peek() in (",", ")") else tokens.name())
        end = tokens.take()
        if end == ")":
            return frozenset(values)
        if end != ",":
            raise bad_request(f"unable to parse requirement: found '{end}', expected: ',' or ')'")


def labels_of_selector(selector: Json) -> LabelSelector:
    """The selector of a spec (matchLabels and matchExpressions) as one that can be asked."""
    requirements = [
        Requirement(key, "in", frozenset({value})) for key, value in (selector.get("matchLabels") or {}).items()
    ]
    names = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "not exists"}
    for expression in selector.get("matchExpressions") or ():
        values = frozenset(expression.get("values") or ())
        requirements.append(Requirement(expression["key"], names[expression["operator"]], values))
    return LabelSelector(tuple(requirements))


@dataclass(frozen=True)
class FieldSelector:
    """All terms of a fieldSelector parameter: (path, wanted value, whether it must be equal)."""

    terms: tuple[tuple[str, str, bool], ...]

    def matches(self, obj: Json) -> bool:
        """Whether every term holds for the object."""
        return all((field_text(obj, path) == value) is equal for path, value, equal in self.terms)

    @property
    def name(self) -> str | None:
        """The one name that can match, if the selector says so."""
        return next((value for path, value, equal in self.terms if equal and path == "metadata.name"), None)


_DEFAULTS: Mapping[str, Callable[[Json], str]] = {
    "spec.unschedulable": lambda _: "false",
    "status.successful": lambda obj: str((obj.get("status") or {}).get("succeeded", 0)),
}


def field_text(obj: Json, path: str) -> str:
    """The text of a selectable field; the empty string when it is absent."""
    value: Any = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        default = _DEFAULTS.get(path)
        return default(obj) if default else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def parse_fields(text: str, selectable: tuple[str, ...]) -> FieldSelector:
    """A fieldSelector parameter; a field the resource cannot be selected by is a 400, as in the original."""
    terms: list[tuple[str, str, bool]] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = re.fullmatch(r"([^=!]+?)\s*(!=|==|=)\s*(.*)", part)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path = found[1]
        if path not in ("metadata.name", "metadata.namespace", *selectable):
            raise bad_request(f"field label not supported: {path}")
        terms.append((path, found[3], found[2] != "!="))
    return FieldSelector(tuple(terms))
