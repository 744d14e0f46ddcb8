"""Tables, as `kubectl get` prints them."""

from typing import Any

from alidade_local.apiserver.resources import Resource

Json = dict[str, Any]

_NAME = {"name": "Name", "type": "string", "format": "name", "description": "Name of the object.", "priority": 0}
_AGE = {"name": "Age", "type": "string", "format": "", "description": "Time since its creation.", "priority": 0}


class TableMaker:
    """Makes the table of some objects of one resource."""

    def __init__(self, resource: Resource, include_object: str) -> None:
        self._resource = resource
        self._include = include_object

    def table(self, objects: list[Json], rv: str) -> Json:
        """The meta.k8s.io/v1 Table of the objects."""
        return {
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {"resourceVersion": rv},
            "columnDefinitions": [_NAME],
            "rows": [{"cells": [obj["metadata"]["name"]], "object": self._object(obj)} for obj in objects],
        }

    def _object(self, obj: Json) -> Json | None:
        if self._include == "None":
            return None
        if self._include == "Object":
            return obj
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
