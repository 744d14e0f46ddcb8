"""Perplexity by length of context on the report's page."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from alidade_engine.pages.charts import Line, line_chart


def length_charts(study: Mapping[str, Any] | None) -> Iterable[tuple[str, str]]:
    """A chart of the logarithm, in which a base that is lost beyond its context does not flatten all else."""
    if study is None:
        return
    lines = [
        Line(name, [(x, math.log(y)) for x, y in zip(study["lengths"], study[key], strict=True)], style, dots=True)
        for name, key, style in (("before", "before", "other"), ("after", "after", "main"))
    ]
    chart = line_chart(lines, x_name="tokens of context", y_name="log perplexity")
    yield "Perplexity by length of context, its logarithm (nats per token)", chart


def length_rows(study: Mapping[str, Any] | None) -> dict[str, str]:
    """The perplexities, and how they were measured."""
    if study is None:
        return {}
    measured = zip(study["lengths"], study["before"], study["after"], strict=True)
    rows = {f"{length:,} tokens": f"{before:.4g} → {after:.4g}" for length, before, after in measured}
    where = "each within one held-out text" if study["within_texts"] else "over the held-out texts, joined"
    rows["measured on"] = (
        f"the last {study['stride']} tokens of {study['tokens']} windows, the same at every length, {where} "
        f"(sliding windows, stride {study['stride']})"
    )
    return rows
