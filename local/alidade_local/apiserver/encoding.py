"""Bytes to objects and back: JSON and YAML bodies, with bounds on their depth."""

from typing import Any

import orjson
import yaml

from alidade_local.apiserver.errors import ApiError, bad_request

Json = dict[str, Any]

JSON_TYPE = "application/json"
_MOST_VALUES = 1_000_000

YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")


class _YamlLoader(yaml.CSafeLoader):
    """Safe YAML in which dates stay text, as they do in JSON."""


_YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return orjson.dumps(value)


def decode_json(body: bytes, max_nesting: int) -> Any:
    """The value of a JSON body, or a 400 that says why there is none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"the body of the request is not valid JSON: {error}") from None
    check_nesting(value, max_nesting)
    return value


def decode_yaml(body: bytes, max_nesting: int) -> Any:
    """The value of a YAML body (which may be JSON), or a 400 that says why there is none."""
    if body.lstrip()[:1] == b"{":
        return decode_json(body, max_nesting)
    try:
        _check_yaml_nesting(body, max_nesting)
        value = yaml.load(body, Loader=_YamlLoader)
        _check_expansion(value)
        return orjson.loads(orjson.dumps(value))
    except yaml.YAMLError as error:
        raise bad_request(f"error converting YAML to JSON: {' '.join(str(error).split())}") from None
    except (TypeError, ValueError):
        raise bad_request("error converting YAML to JSON: keys must be text and values those of JSON") from None


def _check_yaml_nesting(body: bytes, limit: int) -> None:
    """Refuse deep nesting before anything is built: the C loader recurses, and would take the process down."""
    depth = 0
    for event in yaml.parse(body, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > limit:
                raise _too_deep(limit)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _check_expansion(value: Any) -> None:
    """Refuse aliases that refer to themselves or multiply to more than a million values ("billion laughs")."""
    sizes: dict[int, int | None] = {}

    def size(item: Any) -> int:
        if not isinstance(item, dict | list):
            return 1
        known = sizes.get(id(item), 0)
        if known is None:
            raise bad_request("error converting YAML to JSON: an alias refers to itself")
        if known:
            return known
        sizes[id(item)] = None
        total = 1 + sum(size(child) for child in (item.values() if isinstance(item, dict) else item))
        if total > _MOST_VALUES:
            raise bad_request(f"error converting YAML to JSON: more than {_MOST_VALUES} values after its aliases")
        sizes[id(item)] = total
        return total

    size(value)


def _too_deep(limit: int) -> ApiError:
    return ApiError(400, "BadRequest", f"the object is nested more than {limit} levels deep")


def check_nesting(value: Any, limit: int) -> None:
    """Refuse values nested deeper than the limit, without recursion of its own."""
    level = [value]
    for _ in range(limit):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(child for child in item.values() if isinstance(child, dict | list))
            elif isinstance(item, list):
                below.extend(child for child in item if isinstance(child, dict | list))
        if not below:
            return
        level = below
    raise _too_deep(limit)


def as_object(value: Any) -> Json:
    """The value as a JSON object, or a 400."""
    if not isinstance(value, dict):
        raise bad_request(
            f"couldn't get version/kind; json parse error: expected an object, found {type(value).__name__}"
        )
    return value


def copy_json(value: Any) -> Any:
    """A deep copy of JSON data (several times faster than copy.deepcopy)."""
    if isinstance(value, dict):
        return {key: copy_json(item) if isinstance(item, dict | list) else item for key, item in value.items()}
    if isinstance(value, list):
        return [copy_json(item) if isinstance(item, dict | list) else item for item in value]
    return value
