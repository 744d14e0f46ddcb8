"""Which metrics an expression reads."""

from __future__ import annotations

import re
from collections.abc import Iterator

from alidade_crds import metric_names
from alidade_crds.words import Word
from charts import external

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_MATCHERS = re.compile(r"\{[^{}]*\}")
_RANGE = re.compile(r"\[[^\[\]]*\]")
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
_NAME = re.compile(r"(?<![\w:.])[a-zA-Z_][\w:]*(?!\s*\()(?![\w:])")
_KEYWORDS = frozenset({"or", "and", "unless", "offset", "bool", "by", "without", "on", "ignoring"})
_DURATION = re.compile(r"\boffset\s+\w+")

HISTOGRAM_PARTS = ("_bucket", "_sum", "_count")


def words(module: object) -> Iterator[Word]:
    """Every metric that a module names."""
    for one in vars(module).values():
        if isinstance(one, type) and issubclass(one, Word) and one is not Word:
            yield from one


KNOWN = {str(word): word for module in (metric_names, external) for word in words(module)}


def metrics_of(expr: str) -> set[str]:
    """Names of the metrics, also those that a matcher of `__name__` has."""
    named = re.findall(r'__name__=~"([^"]*)"', expr)
    bare = _GROUPING.sub(" ", _RANGE.sub(" ", _MATCHERS.sub(" ", _STRING.sub(" ", expr))))
    found = set(_NAME.findall(_DURATION.sub(" ", bare))) - _KEYWORDS
    return found | {name for text in named for name in text.split("|")}


def exists(name: str) -> bool:
    """Whether the code has the metric; of a histogram, whether it has the part."""
    if name in KNOWN:
        return not KNOWN[name].meaning.startswith("Histogram")
    for part in HISTOGRAM_PARTS:
        whole = name.removesuffix(part)
        if whole != name and whole in KNOWN:
            return KNOWN[whole].meaning.startswith("Histogram")
    return False
