"""Tables, as `kubectl get` prints them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.json_path import compile_path
from alidade_local.apiserver.resources import Column, Resource

Json = dict[str, Any]
Cell = Callable[[Json], Any]


@dataclass(frozen=True)
class TableColumn:
    """A column: its heading, its cell for an object, and whether only `-o wide` shows it (priority 1)."""

    name: str
    cell: Cell
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


def _name(obj: Json) -> str:
    return str(obj["metadata"]["name"])


def _age(obj: Json) -> str:
    return timestamps.age(obj["metadata"].get("creationTimestamp"))


NAME = TableColumn("Name", _name, format="name", description="Name of the object, unique within its namespace.")
AGE = TableColumn("Age", _age, description="Time since the object was created.")


def custom_columns(columns: tuple[Column, ...]) -> tuple[TableColumn, ...]:
    """The columns of a custom resource: the name, and what its definition declares (or its age)."""
    if not columns:
        return (NAME, AGE)
    return (NAME, *(_custom_column(column) for column in columns))


def _custom_column(column: Column) -> TableColumn:
    find = compile_path(column.json_path)

    def cell(obj: Json) -> Any:
        found = find(obj)
        return _cell_value(column.type, found[0]) if found else None

    return TableColumn(column.name, cell, column.type, column.format, column.priority, column.description)


def _cell_value(kind: str, value: Any) -> Any:
    """The value as a cell of the column's type; nothing when it is of another one."""
    if kind == "string":
        return value if isinstance(value, str) else _text(value)
    if kind == "date":
        return timestamps.age(value) if isinstance(value, str) else None
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if kind == "integer" else value


def _text(value: Any) -> str:
    if value is None:
        return "<nil>"
    return orjson.dumps(value).decode()


class TableMaker:
    """Makes tables of objects of one resource; the heading is in the first one only, as watchers expect it."""

    def __init__(self, resource: Resource, columns: tuple[TableColumn, ...], include_object: str) -> None:
        self._columns = custom_columns(resource.columns) if resource.custom else columns
        self._include = include_object
        self._headed = False

    def encoded(self, objects: Iterable[Json], metadata: Json) -> bytes:
        """The Table of the objects as JSON; of many objects never more than one is needed at a time."""
        head = orjson.dumps(self.table([], metadata))
        return head[: -len(b"]}")] + b",".join(orjson.dumps(self._row(obj)) for obj in objects) + b"]}"

    def table(self, objects: list[Json], metadata: Json) -> Json:
        """The meta.k8s.io/v1 Table of the objects."""
        definitions = [] if self._headed else [_definition(column) for column in self._columns]
        self._headed = True
        return {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "columnDefinitions": definitions,
            "rows": [self._row(obj) for obj in objects],
        }

    def _row(self, obj: Json) -> Json:
        return {"cells": [column.cell(obj) for column in self._columns], "object": self._object(obj)}

    def _object(self, obj: Json) -> Json | None:
        if self._include == "None":
            return None
        if self._include == "Object":
            return obj
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _definition(column: TableColumn) -> Json:
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": column.description or f"{column.name} of the object.",
        "priority": column.priority,
    }
