"""Makes a written object what its kind allows, or says why it cannot be."""

from typing import Any

from alidade_local.apiserver import scaling
from alidade_local.apiserver.defaulting import apply_defaults
from alidade_local.apiserver.errors import FieldError, UnknownFieldsError, quoted
from alidade_local.apiserver.go_types import check_types
from alidade_local.apiserver.pruning import drop_empty, prune
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.validation import validate

Json = dict[str, Any]

_BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)


def conform(resource: Resource, obj: Json, field_validation: str) -> list[str]:
    """Prune and default an object in place; returns warnings, or refuses unknown fields under Strict."""
    unknown = prune(obj, resource.schema)
    warnings: list[str] = []
    if unknown and field_validation != "Ignore":
        unknown.sort(key=lambda path: not path.startswith("metadata."))
        texts = [f"unknown field {quoted(path)}" for path in unknown]
        if field_validation == "Strict":
            raise UnknownFieldsError(resource, f"strict decoding error: {', '.join(texts)}")
        warnings = texts
    check_types(obj, resource)
    for name in empty_metadata(obj["metadata"]):
        del obj["metadata"][name]
    if not resource.custom:
        drop_empty(obj, resource.schema)
    default_object(resource, obj)
    return warnings


def empty_metadata(metadata: Json) -> list[str]:
    """The members of metadata that say nothing, and so are not kept."""
    members = ("labels", "annotations", "finalizers", "ownerReferences", "generateName")
    return [name for name in members if name in metadata and not metadata[name]]


def default_object(resource: Resource, obj: Json) -> None:
    """Fill in what the kind has defaults for."""
    if resource.custom:
        apply_defaults(obj, resource.schema)
    else:
        resource.rules.default(obj)


def violations(resource: Resource, obj: Json, old: Json | None) -> list[FieldError]:
    """What is wrong with an object by schema, CEL rules and its kind's own rules."""
    if not resource.custom:
        return list(resource.rules.validate(obj, old))
    errors = validate(obj, resource.schema) if old is None else validate(obj, resource.schema, "", old)
    if resource.scale is not None:
        errors += scaling.replica_errors(resource.scale, obj)
    if not resource.schema.has_rules:
        return errors
    if any(error.reason in _BLOCKING for error in errors):
        return [
            *errors,
            FieldError(
                "",
                "FieldValueInvalid",
                "Invalid value: null: some validation rules were not checked because the object was invalid; correct "
                "the existing errors to complete validation",
            ),
        ]
    from alidade_local.apiserver import cel_rules  # takes a third of a second to load; only schemas with rules need it

    return errors + cel_rules.check(obj, resource.schema, old)
