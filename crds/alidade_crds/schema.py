"""Structural schemas (Kubernetes' dialect of OpenAPI v3.0) from pydantic models."""

from typing import Any

from pydantic import BaseModel

# JSON Schema keywords that mean the same in a structural schema.
_KEPT = (
    "description", "type", "format", "enum", "pattern", "minimum", "maximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "required",
)  # fmt: skip
_INT64 = 2**31
_VALIDATIONS = "x-kubernetes-validations"


def structural_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The structural schema of a model: no references, nothing but what the API server takes."""
    document = model.model_json_schema(by_alias=True)
    return _convert(document, document.get("$defs", {}))


def _convert(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    node = _resolve(node, definitions)
    options = [_resolve(option, definitions) for option in node.get("anyOf", [])]
    if options:
        return _convert_union(node, options, definitions)
    result = {key: node[key] for key in _KEPT if key in node}
    result.update({key: value for key, value in node.items() if key.startswith("x-kubernetes-")})
    if "const" in node:
        result["enum"] = [node["const"]]
    for bound in ("Minimum", "Maximum"):
        if f"exclusive{bound}" in node:
            result[bound.lower()] = node[f"exclusive{bound}"]
            result[f"exclusive{bound}"] = True
    if node.get("default") is not None:
        result["default"] = _as_stored(node["default"])
    if result.get("type") == "integer":
        result["format"] = "int64" if node.get("maximum", _INT64) >= _INT64 else "int32"
    if result.get("type") == "array":
        result["items"] = _convert(node["items"], definitions)
        result.setdefault("x-kubernetes-list-type", "atomic")
    if result.get("type") == "object":
        result.update(_object(node, definitions))
    return result


def _object(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    if node.get("properties") == {}:
        return {}  # as kube-apiserver keeps it: an object without known fields
    if "properties" in node:
        required = node.get("required", [])
        return {
            "properties": {
                name: _with_default(_convert(value, definitions), required=name in required)
                for name, value in node["properties"].items()
            }
        }
    values = node.get("additionalProperties")
    if isinstance(values, dict):
        return {"additionalProperties": _convert(values, definitions)}
    return {"x-kubernetes-preserve-unknown-fields": True}


def _with_default(schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    """An optional block defaults to an empty one, so that the defaults inside it are filled in.

    One with rules is written out: kube-apiserver checks them against a default as it stands, before that is filled in.
    """
    if schema.get("type") != "object" or required or schema.get("nullable"):
        return schema
    return {**schema, "default": schema.get("default") or (_filled(schema) if _VALIDATIONS in schema else {})}


def _as_stored(default: Any) -> Any:
    """A default as kube-apiserver keeps it, 1 for 1.0: another form of the same would be a difference to GitOps."""
    if isinstance(default, dict):
        return {name: _as_stored(value) for name, value in default.items()}
    if isinstance(default, list):
        return [_as_stored(value) for value in default]
    return int(default) if isinstance(default, float) and default.is_integer() else default


def _filled(schema: dict[str, Any]) -> dict[str, Any]:
    """What the defaults inside a block make of an empty one."""
    properties = schema.get("properties", {}).items()
    defaults = {name: value["default"] for name, value in properties if "default" in value}
    return {name: _filled(schema["properties"][name]) if value == {} else value for name, value in defaults.items()}


def _convert_union(node: dict[str, Any], options: list[dict[str, Any]], definitions: dict[str, Any]) -> dict[str, Any]:
    outer = {key: value for key, value in node.items() if key != "anyOf"}
    some = [option for option in options if option.get("type") != "null"]
    if len(some) == 1:
        return _convert({**some[0], **outer}, definitions) | {"nullable": True}
    kinds = {option["type"] for option in some}
    assert kinds == {"string", "integer"}, f"a structural schema has no union of {sorted(kinds)}"
    kept = {
        key: value
        for key, value in outer.items()
        if key.startswith("x-kubernetes-") or key in ("description", "default")
    }
    return {**kept, "x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}


def _resolve(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    if reference is None:
        return node
    rest = {key: value for key, value in node.items() if key != "$ref"}
    return {**definitions[reference.removeprefix("#/$defs/")], **rest}
