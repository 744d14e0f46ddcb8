"""A longer vocabulary in numbers: metrics of the result, rows of the report."""

from collections.abc import Mapping
from typing import Any


def vocabulary_metrics(report: Mapping[str, Any] | None) -> dict[str, float]:
    """Final metrics of a job that extends its tokenizer (the report is that of `extend_tokenizer`); else none."""
    if report is None:
        return {}
    characters = max(report["characters"], 1)
    return {
        "vocabularyAdded": float(report["entries"] - report["entries_before"]),
        "tokensPerCharacterAtStart": report["tokens_before"] / characters,
        "tokensPerCharacter": report["tokens_after"] / characters,
        "charactersPerTokenAtStart": characters / max(report["tokens_before"], 1),
        "charactersPerToken": characters / max(report["tokens_after"], 1),
    }


def vocabulary_rows(report: Mapping[str, Any] | None) -> dict[str, str]:
    """The same for people, by name."""
    if report is None:
        return {}
    metrics = vocabulary_metrics(report)

    def change(name: str) -> str:
        return f"{metrics[name + 'AtStart']:.4g} → {metrics[name]:.4g}"

    given = {
        "pieces that were there": f"{report['known']:,}",
        "pieces left out": f"{report['left_out'] + report['over']:,}",
    }
    return {
        "pieces from": report["source"] + (f" ({report['digest']})" if report["digest"] else ""),
        "entries": f"{report['entries_before']:,} → {report['entries']:,}",
        "pieces added": f"{report['pieces']:,}, and {report['joints']:,} joints that lead to them",
        **(given if report["digest"] else {}),  # of what was learned, more candidates are left out by design
        "tokens per character": change("tokensPerCharacter"),
        "characters per token": change("charactersPerToken"),
        "texts read back exactly": f"{report['exact_before']:,} → {report['exact_after']:,} of {report['texts']:,}",
    }
