"""Functions that Kubernetes adds to CEL: strings, lists, regular expressions, URLs, quantities, addresses."""

import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

import cel.stdlib

from alidade_local.quantities import parse_quantity

Function = Callable[..., Any]


def _succeeds(function: Function) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        try:
            function(value)
        except (TypeError, ValueError):
            return False
        return True

    return check


# A quantity is carried through CEL as a map with its exact text, because callbacks can only return JSON-like values.


def _quantity(text: str) -> dict[str, str]:
    return {"quantity": str(parse_quantity(text))}


def _number(value: Any) -> Decimal:
    return Decimal(value["quantity"]) if isinstance(value, dict) else Decimal(value)


def _compare(left: Any, right: Any) -> int:
    a, b = _number(left), _number(right)
    return (a > b) - (a < b)


def _url(text: str) -> dict[str, str]:
    parts = urlsplit(text)
    if not parts.scheme and not text.startswith("/"):
        raise ValueError(f"URL parse error: {text!r} is neither absolute nor a path")
    port = parts.port  # ValueError when it is no number
    return {
        "scheme": parts.scheme,
        "host": parts.netloc.rpartition("@")[2],
        "hostname": parts.hostname or "",
        "port": "" if port is None else str(port),
        "path": parts.path,
        "query": parts.query,
    }


def _query(url: dict[str, str]) -> dict[str, list[str]]:
    result: dict[str, list[str]] = {}
    for pair in filter(None, url["query"].split("&")):
        name, _, value = pair.partition("=")
        result.setdefault(name, []).append(value)
    return result


def _part(name: str) -> Function:
    return lambda url: url[name]


def _index_of(values: Any, item: Any, offset: int = 0) -> int:
    if isinstance(values, str):
        return values.find(item, offset)
    return next((index for index, value in enumerate(values) if value == item), -1)


def _last_index_of(values: Any, item: Any) -> int:
    if isinstance(values, str):
        return values.rfind(item)
    return next((index for index in range(len(values) - 1, -1, -1) if values[index] == item), -1)


def _is_sorted(values: list[Any]) -> bool:
    return all(left <= right for left, right in pairwise(values))


def _find(text: str, pattern: str) -> str:
    found = re.search(pattern, text)
    return found[0] if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    every = [found[0] for found in re.finditer(pattern, text)]
    return every if limit < 0 else every[:limit]


_VERBS = re.compile(r"%(?:\.(\d+))?([%sdfexXob])")


def _format(template: str, values: list[Any]) -> str:
    given = iter(values)

    def shown(found: re.Match[str]) -> str:
        precision, verb = found[1], found[2]
        if verb == "%":
            return "%"
        try:
            value = next(given)
        except StopIteration:
            raise ValueError("format: more verbs than values") from None
        if verb == "s":
            return ("true" if value else "false") if isinstance(value, bool) else str(value)
        if verb in "fe":
            return f"{float(value):.{precision or 6}{verb}}"
        return f"{value:{verb}}"

    return _VERBS.sub(shown, template)


FUNCTIONS: dict[str, Function] = {
    **cel.stdlib.STDLIB_FUNCTIONS,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "isSorted": _is_sorted,
    "find": _find,
    "findAll": _find_all,
    "format": _format,
    "isURL": _succeeds(_url),
    "url": _url,
    "getScheme": _part("scheme"),
    "getHost": _part("host"),
    "getHostname": _part("hostname"),
    "getPort": _part("port"),
    "getEscapedPath": _part("path"),
    "getQuery": _query,
    "isQuantity": _succeeds(parse_quantity),
    "quantity": _quantity,
    "compareTo": _compare,
    "isGreaterThan": lambda left, right: _compare(left, right) > 0,
    "isLessThan": lambda left, right: _compare(left, right) < 0,
    "asInteger": lambda value: int(_number(value)),
    "asApproximateFloat": lambda value: float(_number(value)),
    "isInteger": lambda value: _number(value) == int(_number(value)),
    "sign": lambda value: _compare(value, 0),
    "add": lambda left, right: {"quantity": str(_number(left) + _number(right))},
    "sub": lambda left, right: {"quantity": str(_number(left) - _number(right))},
    "isIP": _succeeds(ipaddress.ip_address),
    "isCIDR": _succeeds(lambda text: ipaddress.ip_network(text, strict=False)),
}
"""By name; each can be called as a function or, on its first argument, as a method."""
