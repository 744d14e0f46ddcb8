"""OpenAPI v3 and v2 documents: what `kubectl explain`, `kubectl apply` and clients' validation read."""

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import orjson

from alidade_local.apiserver.builtin_schemas import KUBERNETES_VERSION, definition_name, definitions
from alidade_local.apiserver.registry import Registry
from alidade_local.apiserver.resources import Resource

Json = dict[str, Any]

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_DEFS = "#/$defs/"
_V3 = "#/components/schemas/"
_V2 = "#/definitions/"
_WRITE_PARAMETERS = (
    ("dryRun", "string", "All: check and answer, but store nothing."),
    ("fieldManager", "string", "Name of the program or person that makes the change."),
    ("fieldValidation", "string", "Ignore, Warn or Strict: what to do about unknown fields."),
)


class OpenApi:
    """The documents of all groups, built when asked for and kept until the resources change."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._documents: dict[str, bytes] = {}
        registry.on_change(self._documents.clear)

    def index(self) -> Json:
        """GET /openapi/v3: where the document of each group and version is, with a hash to cache it by."""
        paths: Json = {}
        for group, versions in self._registry.groups().items():
            for version in versions:
                path = f"apis/{group}/{version}" if group else f"api/{version}"
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={self._hash(group, version)}"}
        return {"paths": paths}

    def _hash(self, group: str, version: str) -> str:
        marks = [KUBERNETES_VERSION]
        for resource in self._of(group, version):
            marks.append(resource.plural)
            if resource.custom:
                marks.append(orjson.dumps(resource.schema.raw).decode())
        return hashlib.sha256("\0".join(marks).encode()).hexdigest().upper()

    def _of(self, group: str, version: str) -> list[Resource]:
        return [item for item in self._registry if item.group == group and item.version == version]

    def v3(self, group: str, version: str) -> bytes | None:
        """GET /openapi/v3/apis/GROUP/VERSION."""
        key = f"v3 {group}/{version}"
        if key not in self._documents:
            resources = self._of(group, version)
            if not resources:
                return None
            document = {
                "openapi": "3.0.0",
                "info": {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}.0"},
                "paths": {path: item for resource in resources for path, item in _paths(resource, 3)},
                "components": {"schemas": _schemas(resources, _V3)},
            }
            self._documents[key] = orjson.dumps(document)
        return self._documents[key]

    @staticmethod
    def v2_in_protobuf() -> bytes:
        """The same in protobuf, but for what is in it: kubectl, which asks for this before it sends a List, and not for
        JSON instead, leaves checking what it finds no definition of to the server."""
        return b"\x0a\x032.0"  # field 1 of openapi.v2.Document: swagger

    def v2(self) -> bytes:
        """GET /openapi/v2: everything in one document."""
        if "v2" not in self._documents:
            resources = list(self._registry)
            document = {
                "swagger": "2.0",
                "info": {"title": "Kubernetes", "version": f"v{KUBERNETES_VERSION}.0"},
                "paths": {path: item for resource in resources for path, item in _paths(resource, 2)},
                "definitions": _schemas(resources, _V2),
            }
            self._documents["v2"] = orjson.dumps(document)
        return self._documents["v2"]


def schema_name(resource: Resource) -> str:
    """Name of the definition of a resource's kind."""
    if not resource.custom:
        return definition_name(resource.group, resource.version, resource.kind)
    return f"{'.'.join(reversed(resource.group.split('.')))}.{resource.version}.{resource.kind}"


def _gvk(resource: Resource) -> Json:
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _schemas(resources: list[Resource], prefix: str) -> Json:
    found: Json = {}
    waiting = [f"{_META}.ObjectMeta", f"{_META}.ListMeta", f"{_META}.Status", f"{_META}.DeleteOptions"]
    for resource in resources:
        name = schema_name(resource)
        if resource.custom:
            schema = _custom(resource, prefix)
            waiting.extend(_references(schema, prefix))
        else:
            schema = _converted(definitions().raw[name], prefix)
            waiting.extend(_references(schema, prefix))
        schema["x-kubernetes-group-version-kind"] = [_gvk(resource)]
        found[name] = schema
        found[f"{name}List"] = _list_schema(resource, name, prefix)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = _converted(definitions().raw[name], prefix)
            waiting.extend(_references(found[name], prefix))
    return found


def _list_schema(resource: Resource, name: str, prefix: str) -> Json:
    text = {"type": "string"}
    return {
        "description": f"{resource.kind_of_list} is a list of {resource.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": {"$ref": f"{prefix}{_META}.ListMeta"},
            "items": {"type": "array", "items": {"$ref": prefix + name}},
        },
        "x-kubernetes-group-version-kind": [{**_gvk(resource), "kind": resource.kind_of_list}],
    }


def _custom(resource: Resource, prefix: str) -> Json:
    schema = _converted(resource.schema.raw, prefix)
    text = {"type": "string"}
    properties = {**(schema.get("properties") or {})}
    properties.setdefault("apiVersion", text)
    properties.setdefault("kind", text)
    properties["metadata"] = {
        "description": "Standard object's metadata.",
        "allOf": [{"$ref": f"{prefix}{_META}.ObjectMeta"}],
    }
    return {**schema, "properties": properties}


def _converted(raw: Any, prefix: str) -> Any:
    """A JSON schema as OpenAPI wants it: one type per schema, references into the document."""
    if not isinstance(raw, dict):
        return raw
    if "oneOf" in raw and _is_int_or_string(raw["oneOf"]):
        rest = {key: value for key, value in raw.items() if key != "oneOf"}
        return {**rest, "type": "string", "format": "int-or-string"}
    result: Json = {key: _converted_part(key, value, prefix) for key, value in raw.items()}
    if "$ref" in result and len(result) > 1 and prefix == _V3:
        reference = result.pop("$ref")
        result["allOf"] = [{"$ref": reference}]
    return result


def _converted_part(key: str, value: Any, prefix: str) -> Any:
    match key:
        case "$ref":
            return prefix + value.removeprefix(_DEFS) if value.startswith(_DEFS) else value
        case "type" if isinstance(value, list):
            return next(item for item in value if item != "null")
        case "properties":
            return {name: _converted(item, prefix) for name, item in value.items()}
        case "allOf" | "anyOf" | "oneOf":
            return [_converted(item, prefix) for item in value]
        case "items" | "additionalProperties" | "not":
            return _converted(value, prefix)
    return value


def _is_int_or_string(choices: list[Any]) -> bool:
    kinds = {next((item for item in choice.get("type", ()) if item != "null"), "") for choice in choices}
    return kinds in ({"string", "integer"}, {"string", "number"})


def _references(schema: Any, prefix: str) -> Iterator[str]:
    if isinstance(schema, list):
        for item in schema:
            yield from _references(item, prefix)
    elif isinstance(schema, dict):
        for value in schema.values():
            if isinstance(value, str):
                if value.startswith(prefix):
                    yield value.removeprefix(prefix)
            else:
                yield from _references(value, prefix)


def _paths(resource: Resource, version: int) -> Iterator[tuple[str, Json]]:
    for path, item in _operations_of(resource, version):
        named = [_in_path(name, version) for name in _NAMED.findall(path)]
        yield path, {**item, "parameters": named} if named else item


_NAMED = re.compile(r"\{(\w+)\}")


def _in_path(name: str, version: int) -> Json:
    parameter: Json = {"name": name, "in": "path", "required": True, "description": f"{name} of the object"}
    return {**parameter, "schema": {"type": "string"}} if version == 3 else {**parameter, "type": "string"}


def _operations_of(resource: Resource, version: int) -> Iterator[tuple[str, Json]]:
    base = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    if resource.namespaced:
        yield f"{base}/{resource.plural}", _operations(resource, version, ("get",), many=True)
        base = f"{base}/namespaces/{{namespace}}"
    yield f"{base}/{resource.plural}", _operations(resource, version, ("get", "post", "delete"), many=True)
    item = f"{base}/{resource.plural}/{{name}}"
    methods = ("get", "put", "patch", "delete")
    yield item, _operations(resource, version, methods, many=False)
    if resource.has_status:
        yield f"{item}/status", _operations(resource, version, methods[:3], many=False)


_ACTIONS = {
    ("get", True): "list",
    ("get", False): "get",
    ("post", True): "post",
    ("put", False): "put",
    ("patch", False): "patch",
    ("delete", True): "deletecollection",
    ("delete", False): "delete",
}


def _operations(resource: Resource, version: int, methods: tuple[str, ...], *, many: bool) -> Json:
    return {method: _operation(resource, version, method, many=many) for method in methods}


def _operation(resource: Resource, version: int, method: str, *, many: bool) -> Json:
    prefix = _V3 if version == 3 else _V2
    name = schema_name(resource) + ("List" if many and method == "get" else "")
    reference = {"$ref": prefix + name}
    action = _ACTIONS[method, many]
    operation: Json = {
        "operationId": f"{action}{resource.version.capitalize()}{resource.kind}",
        "responses": {"200": _response(reference, version), "401": {"description": "Unauthorized"}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": _gvk(resource),
    }
    if method in ("post", "put", "patch"):
        operation["parameters"] = [_parameter(*parameter, version) for parameter in _WRITE_PARAMETERS]
        if version == 3:
            operation["requestBody"] = {"content": {"*/*": {"schema": reference}}, "required": True}
        else:
            operation["parameters"].append({"name": "body", "in": "body", "required": True, "schema": reference})
    return operation


def _response(reference: Json, version: int) -> Json:
    if version == 3:
        return {"description": "OK", "content": {"application/json": {"schema": reference}}}
    return {"description": "OK", "schema": reference}


def _parameter(name: str, kind: str, description: str, version: int) -> Json:
    parameter: Json = {"name": name, "in": "query", "description": description}
    if version == 3:
        return {**parameter, "schema": {"type": kind, "uniqueItems": True}}
    return {**parameter, "type": kind, "uniqueItems": True}
