"""What every page is made of: its frame, tiles, tables and galleries of charts. All text is escaped here."""

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any


def page(title: str, subtitle: str, sections: Iterable[str]) -> str:
    """The whole page. sections: HTML."""
    header = f"<header><h1>{escape(title)}</h1><p class=quiet>{escape(subtitle)}</p></header>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head>"
        f"<body><main>{header}{''.join(sections)}</main></body></html>\n"
    )


def _style() -> str:
    return Path(__file__).with_name("page.css").read_text()


def tiles(values: Iterable[tuple[str, str | None]]) -> str:
    """Names with their values in large type; those without a value are left out."""
    shown = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in values if value is not None
    )
    return f'<section class="tiles">{shown}</section>'


def warnings(texts: Iterable[str]) -> str:
    """A list of what deserves attention; nothing when there is none."""
    items = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<section class="warnings"><ul>{items}</ul></section>' if items else ""


def gallery(title: str, charts: Iterable[tuple[str, str]]) -> str:
    """Charts with their captions side by side, as far as there is room; nothing without charts."""
    figures = "".join(figure(caption, chart) for caption, chart in charts)
    if not figures:
        return ""
    head = f"<h2>{escape(title)}</h2>" if title else ""
    return f'<section>{head}<div class="charts">{figures}</div></section>'


def figure(caption: str, chart: str) -> str:
    """A chart (HTML or SVG) below its caption."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{chart}</figure>"


def columns(blocks: Iterable[str]) -> str:
    """Blocks that run through columns."""
    return f'<section class="columns">{"".join(blocks)}</section>'


def facts(title: str, rows: Mapping[str, str]) -> str:
    """A table of names and values under a title."""
    body = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows.items())
    return f"<div><h2>{escape(title)}</h2><table>{body}</table></div>"


def answer_text(text: str) -> str:
    """What a model, or the data, says; that it says nothing is said."""
    return escape(text) or "<i class=quiet>nothing</i>"


def flat(value: Any, name: str) -> Iterable[tuple[str, str]]:
    """Nested settings as rows such as `training.seed` and `0`; what is not set is left out."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value):
            yield from flat(item, f"{name}[{number}]")
    elif value not in (None, []):
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
