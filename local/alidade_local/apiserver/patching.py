"""JSON patch, merge patch and strategic merge patch on objects."""

from typing import Any

import jsonpatch
import jsonpointer

from alidade_local.apiserver.encoding import as_object, copy_json
from alidade_local.apiserver.errors import ApiError, bad_request, unsupported_media_type
from alidade_local.apiserver.requests import JSON_PATCH, MERGE_PATCH, PATCH_TYPES, STRATEGIC_PATCH
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.strategic import strategic_merge

Json = dict[str, Any]


def patched(media: str, old: Json, patch: Any, resource: Resource) -> Json:
    """A patched copy of an object."""
    if media == JSON_PATCH:
        return as_object(_json_patched(old, patch))
    if media == MERGE_PATCH:
        return as_object(_merged(copy_json(old), as_object(patch)))
    if media == STRATEGIC_PATCH and not resource.custom:
        return strategic_merge(copy_json(old), as_object(patch), resource.schema)
    supported = [kind for kind in PATCH_TYPES if not (resource.custom and kind == STRATEGIC_PATCH)]
    raise unsupported_media_type(media, supported)


def _json_patched(old: Json, patch: Any) -> Any:
    if not isinstance(patch, list):
        raise bad_request("a JSON patch is a list of operations")
    if len(patch) > 10_000:
        raise ApiError(413, "RequestEntityTooLarge", "The allowed maximum operations in a JSON patch is 10000")
    result: Any = copy_json(old)
    for operation in patch:
        try:
            result = jsonpatch.JsonPatch([_lenient(operation, result)]).apply(result, in_place=True)
        except (jsonpatch.JsonPatchException, jsonpointer.JsonPointerException, TypeError, AttributeError):
            message = "the server rejected our request due to an error in our request"
            raise ApiError(422, "Invalid", message, {}) from None
    return result


def _lenient(operation: Any, value: Any) -> Any:
    """The original replaces what is not there by adding it."""
    if not isinstance(operation, dict) or operation.get("op") != "replace":
        return operation
    holder, key = jsonpointer.JsonPointer(str(operation.get("path"))).to_last(value)
    if not isinstance(holder, dict) or key in holder:
        return operation
    return {**operation, "op": "add"}


def _merged(value: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = value if isinstance(value, dict) else {}
    for name, item in patch.items():
        if item is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), item)
    return result
