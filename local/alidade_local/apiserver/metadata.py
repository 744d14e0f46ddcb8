"""What holds for metadata of every kind."""

import secrets
from typing import Any

from alidade_local.apiserver import names
from alidade_local.apiserver.errors import FieldError, invalid, required
from alidade_local.apiserver.resources import Resource

Json = dict[str, Any]

GENERATED_SUFFIX_LENGTH = 5
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # without vowels and look-alikes, so that no words appear
_ANNOTATION_LIMIT = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")
_LABEL_NAMES = frozenset({"namespaces."})
_SERVICE_NAMES = frozenset({"services."})


def generated_suffix() -> str:
    """Five random characters for generateName."""
    return "".join(secrets.choice(_SUFFIX_ALPHABET) for _ in range(GENERATED_SUFFIX_LENGTH))


def metadata_errors(resource: Resource, obj: Json) -> list[FieldError]:
    """What is wrong with an object's name, labels, annotations, finalizers and owners."""
    metadata = obj["metadata"]
    errors = _name_errors(resource, metadata)
    errors += names.label_errors(metadata.get("labels") or {}, "metadata.labels")
    errors += _annotation_errors(metadata.get("annotations") or {})
    for index, name in enumerate(metadata.get("finalizers") or ()):
        if problem := names.qualified_name_problem(name):
            errors.append(invalid("metadata.finalizers", name, problem))
        elif _is_core(resource) and "/" not in name and name not in _STANDARD_FINALIZERS:
            problem = "name is neither a standard finalizer name nor is it fully qualified"
            errors.append(invalid(f"metadata.finalizers[{index}]", name, problem))
    return errors + _owner_errors(metadata.get("ownerReferences") or [])


def _is_core(resource: Resource) -> bool:
    """Whether the kind comes with kube-apiserver itself, which is stricter than the library under it."""
    return not resource.custom and resource.group != "apiextensions.k8s.io"


def _name_errors(resource: Resource, metadata: Json) -> list[FieldError]:
    name = metadata.get("name") or ""
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if resource.key in _LABEL_NAMES:
        problem = names.label_problem(name)
    elif resource.key in _SERVICE_NAMES:
        problem = names.service_problem(name)
    elif resource.group == "rbac.authorization.k8s.io":
        problem = names.path_segment_problem(name)
    else:
        problem = names.subdomain_problem(name)
    return [invalid("metadata.name", name, problem)] if problem else []


def _annotation_errors(annotations: Json) -> list[FieldError]:
    errors = [
        invalid("metadata.annotations", key, problem)
        for key in annotations
        if (problem := names.qualified_name_problem(key.lower()))
    ]
    if sum(len(key) + len(str(value)) for key, value in annotations.items()) > _ANNOTATION_LIMIT:
        errors.append(
            FieldError(
                "metadata.annotations", "FieldValueTooLong", f"Too long: may not be more than {_ANNOTATION_LIMIT} bytes"
            )
        )
    return errors


def _owner_errors(owners: list[Json]) -> list[FieldError]:
    errors: list[FieldError] = []
    path = "metadata.ownerReferences"
    for owner in owners:
        for name in ("apiVersion", "kind", "name", "uid"):
            if not owner.get(name):
                errors.append(invalid(f"{path}.{name}", owner.get(name, ""), "must not be empty"))
        if (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Event"):
            errors.append(invalid(path, owner, "/v1, Kind=Event is disallowed from being an owner"))
    controllers = [owner for owner in owners if owner.get("controller")]
    if len(controllers) > 1:
        errors.append(
            invalid(
                path,
                owners,
                'Only one reference can have Controller set to true. Found "true" in references for '
                + " and ".join(f"{owner.get('kind')}/{owner.get('name')}" for owner in controllers),
            )
        )
    return errors
