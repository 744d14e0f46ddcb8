"""Failures as the Status objects that Kubernetes clients understand, worded as kube-apiserver words them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alidade_local.apiserver.resources import Resource

Json = dict[str, Any]


class ApiError(Exception):
    """A request that ends with a Status of failure."""

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details

    def status(self) -> Json:
        """The metav1.Status that the client receives."""
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


def quoted(value: str) -> str:
    """The value as Go's %q prints it, for the characters that occur in names and specs."""
    return json.dumps(value, ensure_ascii=False)


def shown(value: Any) -> str:
    """A bad value as it is printed in an error message."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "null"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class FieldError:
    """One field that is wrong: its path, the cause's reason, and the sentence without the path."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field or '<nil>'}: {self.message}"

    @property
    def cause(self) -> Json:
        """The entry of details.causes."""
        return {"reason": self.reason, "message": self.message, "field": self.field or "<nil>"}


def required(field: str, detail: str = "") -> FieldError:
    """A field that must be given."""
    return FieldError(field, "FieldValueRequired", "Required value" + (f": {detail}" if detail else ""))


def invalid(field: str, value: Any, detail: str) -> FieldError:
    """A value that breaks a rule."""
    return FieldError(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {detail}")


def type_invalid(field: str, value: Any, detail: str) -> FieldError:
    """A value of the wrong type."""
    return FieldError(field, "FieldValueTypeInvalid", f"Invalid value: {shown(value)}: {detail}")


def forbidden_field(field: str, detail: str) -> FieldError:
    """A field that may not be set or changed."""
    return FieldError(field, "FieldValueForbidden", f"Forbidden: {detail}")


def duplicate(field: str, value: Any) -> FieldError:
    """A value that occurs twice where it may occur once."""
    return FieldError(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def not_supported(field: str, value: Any, supported: Sequence[Any]) -> FieldError:
    """A value outside its enumeration."""
    names = ", ".join(quoted(str(item)) for item in supported)
    return FieldError(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {names}")


def too_long(field: str, limit: int) -> FieldError:
    """A string longer than its limit."""
    return FieldError(field, "FieldValueTooLong", f"Too long: may not be more than {limit} bytes")


def too_many(field: str, actual: int, limit: int) -> FieldError:
    """A list or map with more entries than its limit."""
    return FieldError(field, "FieldValueTooMany", f"Too many: {actual}: must have at most {limit} items")


def _details(resource: Resource, name: str) -> Json:
    details: Json = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    details["kind"] = resource.plural
    return details


def bad_request(message: str) -> ApiError:
    """400: the request itself makes no sense."""
    return ApiError(400, "BadRequest", message)


def unauthorized() -> ApiError:
    """401: no known bearer token."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(resource: Resource, name: str, why: str) -> ApiError:
    """403: known user, or known state, that does not allow it."""
    shown_name = f" {quoted(name)}" if name else ""
    return ApiError(
        403, "Forbidden", f"{resource.group_resource}{shown_name} is forbidden: {why}", _details(resource, name)
    )


def not_found(resource: Resource, name: str) -> ApiError:
    """404: no such object."""
    return ApiError(404, "NotFound", f"{resource.group_resource} {quoted(name)} not found", _details(resource, name))


def no_such_resource() -> ApiError:
    """404: no such path, as the original words it."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed() -> ApiError:
    """405: what is there does not offer the method."""
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, {})


def already_exists(resource: Resource, name: str) -> ApiError:
    """409: the name is taken."""
    return ApiError(
        409, "AlreadyExists", f"{resource.group_resource} {quoted(name)} already exists", _details(resource, name)
    )


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(resource: Resource, name: str, why: str = MODIFIED) -> ApiError:
    """409: the object is not the one the client meant."""
    return ApiError(
        409,
        "Conflict",
        f"Operation cannot be fulfilled on {resource.group_resource} {quoted(name)}: {why}",
        _details(resource, name),
    )


def gone(message: str) -> ApiError:
    """410: the resource version is older than the history kept."""
    return ApiError(410, "Expired", message)


def invalid_object(resource: Resource, name: str, errors: Sequence[FieldError]) -> ApiError:
    """422: the object breaks its schema or its kind's rules; one cause per field."""
    return _invalid(resource.group, resource.kind, name, errors)


def invalid_review(field: str, value: Any, detail: str) -> ApiError:
    """422: a question about access that names nobody, or nothing."""
    return _invalid("authorization.k8s.io", "", "", [invalid(field, value, detail)])


class UnknownFieldsError(ApiError):
    """400: fields that the kind does not have, where none are allowed."""

    def __init__(self, resource: Resource, problem: str) -> None:
        kind = resource.kind
        text = f'{kind} in version "{resource.version}" cannot be handled as a {kind}: {problem}'
        super().__init__(400, "BadRequest", text)
        self.problem = problem


def invalid_patch(result: Json, problem: str) -> ApiError:
    """422: what a patch makes of an object cannot be read."""
    text = json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    return _invalid("", "", "", [invalid("patch", text, problem)])


def invalid_options(kind: str, errors: Sequence[FieldError]) -> ApiError:
    """422: the parameters of a request break the rules of `ListOptions`, `CreateOptions` and their like."""
    return _invalid("meta.k8s.io", kind, "", errors)


def _invalid(group: str, kind: str, name: str, errors: Sequence[FieldError]) -> ApiError:
    texts = list(dict.fromkeys(str(error) for error in errors))
    summary = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details: Json = {"name": name} if name else {}
    if group:
        details["group"] = group
    if kind:
        details["kind"] = kind
    details["causes"] = [error.cause for error in errors]
    qualified = f"{kind}.{group}" if group else kind
    return ApiError(422, "Invalid", f"{qualified} {quoted(name)} is invalid: {summary}", details)


def too_large_body(limit: int) -> ApiError:
    """413: the body exceeds the cap."""
    return ApiError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def unsupported_media_type(given: str, supported: Sequence[str]) -> ApiError:
    """415: a body in a format the server does not read."""
    names = ", ".join(supported)
    return ApiError(
        415,
        "UnsupportedMediaType",
        f"the body of the request was in an unknown format ({given or 'no content type'}) - "
        f"accepted media types include: {names}",
    )


def not_acceptable(supported: Sequence[str]) -> ApiError:
    """406: the client takes nothing the server can write."""
    return ApiError(
        406,
        "NotAcceptable",
        f"only the following media types are accepted: {', '.join(supported)}",
    )
