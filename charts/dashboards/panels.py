"""Parts of a Grafana dashboard: panels in rows of 24 columns, variables, and the whole as Grafana reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

_COLUMNS = 24
# Grafana 9.5's; later ones migrate it when they load it.
_SCHEMA_VERSION = 38
_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """A PromQL expression; legend: what a series is called, with its labels as {{label}}."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """A panel. unit: as Grafana calls it (`s`, `bytes`, `percentunit`). is_instant: only the present values."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    description: str = ""
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    is_instant: bool = False
    options: Json = field(default_factory=dict)
    field_options: Json = field(default_factory=dict)
    transformations: tuple[Json, ...] = ()


def curve(title: str, *queries: Query, unit: str = "short", description: str = "", **more: Any) -> Panel:
    """Values over time."""
    options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return Panel(title, queries, unit, description, options=options, **more)


def number(title: str, expr: str, *, unit: str = "short", description: str = "", width: int = 4) -> Panel:
    """One present value."""
    options = {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "none", "graphMode": "area"}
    return Panel(title, (Query(expr),), unit, description, "stat", width, 4, options=options)


def bars(title: str, *queries: Query, unit: str = "short", description: str = "", width: int = 8) -> Panel:
    """Present values, one bar each."""
    options = {"orientation": "horizontal", "displayMode": "basic", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return Panel(title, queries, unit, description, "bargauge", width, 8, is_instant=True, options=options)


def table(title: str, columns: dict[str, str], *, description: str = "", width: int = 24) -> Panel:
    """A row for each resource. columns: by its head the expression of a column; all have the same labels."""
    names = {f"Value #{_letter(index)}": head for index, head in enumerate(columns)}
    hidden = {"Time": True, "__name__": True, "job": True, "instance": True}
    organize: Json = {"id": "organize", "options": {"excludeByName": hidden, "renameByName": names}}
    queries = tuple(Query(expr) for expr in columns.values())
    return Panel(
        title,
        queries,
        "none",
        description,
        "table",
        width,
        is_instant=True,
        transformations=({"id": "merge", "options": {}}, organize),
    )


@dataclass(frozen=True)
class Row:
    """Panels below one headline."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Variable:
    """A choice at the top of the page: the values of a label, of series that a selector finds."""

    name: str
    series: str
    label: str
    is_multi: bool = True


def dashboard(uid: str, title: str, description: str, rows: Sequence[Row], variables: Sequence[Variable] = ()) -> Json:
    """The dashboard; its data source is chosen on the page."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["alidade"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "schemaVersion": _SCHEMA_VERSION,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_source_variable(), *(_variable(one) for one in variables)]},
        "links": [
            {
                "title": "Alidade",
                "type": "dashboards",
                "tags": ["alidade"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "panels": _placed(rows),
    }


def _source_variable() -> Json:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}


def _variable(one: Variable) -> Json:
    query = f"label_values({one.series}, {one.label})"
    return {
        "name": one.name,
        "label": one.name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": query, "refId": one.name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": one.is_multi,
        "includeAll": one.is_multi,
        # Not Grafana's own, which is the list of all: a long one is refused.
        **({"allValue": ".*", "current": {"text": "All", "value": "$__all"}} if one.is_multi else {}),
    }


def _placed(rows: Sequence[Row]) -> list[Json]:
    """The panels with their places: each row from left to right, in as many lines as it takes."""
    placed: list[Json] = []
    top = 0
    for row in rows:
        placed.append(_headline(row.title, len(placed) + 1, top))
        top, left, line = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                top, left, line = top + line, 0, 0
            placed.append(_panel(panel, len(placed) + 1, x=left, y=top))
            left, line = left + panel.width, max(line, panel.height)
        top += line
    return placed


def _headline(title: str, number_: int, y: int) -> Json:
    place = {"h": 1, "w": _COLUMNS, "x": 0, "y": y}
    return {"id": number_, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}


def _panel(panel: Panel, number_: int, *, x: int, y: int) -> Json:
    return {
        "id": number_,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y},
        "fieldConfig": {"defaults": {"unit": panel.unit, **panel.field_options}, "overrides": []},
        "options": panel.options,
        "transformations": list(panel.transformations),
        "targets": [_target(query, panel, index) for index, query in enumerate(panel.queries)],
    }


def _target(query: Query, panel: Panel, index: int) -> Json:
    target: Json = {
        "refId": _letter(index),
        "datasource": _SOURCE,
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "editorMode": "code",
        "instant": panel.is_instant,
        "range": not panel.is_instant,
    }
    return target | ({"format": "table"} if panel.kind == "table" else {})


def _letter(index: int) -> str:
    return chr(ord("A") + index)
