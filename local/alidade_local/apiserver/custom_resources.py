"""CustomResourceDefinitions: checked, established, and turned into resources."""

from functools import partial
from typing import Any

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.background import Worker
from alidade_local.apiserver.encoding import copy_json
from alidade_local.apiserver.errors import FieldError, invalid, not_supported, required
from alidade_local.apiserver.json_path import JsonPathError, compile_path
from alidade_local.apiserver.kinds import CUSTOM, KindRules
from alidade_local.apiserver.names import service_problem, subdomain_problem
from alidade_local.apiserver.options import DeleteOptions
from alidade_local.apiserver.registry import Registry
from alidade_local.apiserver.resources import Column, Resource, ScalePaths
from alidade_local.apiserver.rest import Objects, Target
from alidade_local.apiserver.schema import ANYTHING, Schema, object_meta
from alidade_local.apiserver.storage import Event, Stored
from alidade_local.apiserver.structural import structural_errors

Json = dict[str, Any]

DEFINITIONS_KEY = "customresourcedefinitions.apiextensions.k8s.io"
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


def default_definition(definition: Json) -> None:
    """Names and strategies that may be left out."""
    spec = definition.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = str(names.get("kind", ""))
    if not names.get("singular"):
        names["singular"] = kind.lower()
    if not names.get("listKind"):
        names["listKind"] = f"{kind}List"
    spec.setdefault("conversion", {"strategy": "None"})


def new_definition(definition: Json) -> None:
    """The status of a definition that was just written, and the finalizer that has its objects deleted with it."""
    finalizers = definition["metadata"].setdefault("finalizers", [])
    if CLEANUP not in finalizers:
        finalizers.append(CLEANUP)
    definition["status"] = {"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []}


def validate_definition(definition: Json, old: Json | None) -> list[FieldError]:
    """What is wrong with a definition."""
    spec = definition["spec"]
    if old is not None and old["spec"] == spec:
        return []
    names = spec["names"]
    errors: list[FieldError] = []
    group, plural = spec.get("group") or "", names.get("plural") or ""
    if not group:
        errors.append(required("spec.group"))
    elif problem := subdomain_problem(group):
        errors.append(invalid("spec.group", group, problem))
    elif "." not in group:
        errors.append(invalid("spec.group", group, "should be a domain with at least one dot"))
    if definition["metadata"].get("name") != f"{plural}.{group}":
        errors.append(
            invalid("metadata.name", definition["metadata"].get("name"), 'must be spec.names.plural+"."+spec.group')
        )
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        errors.append(not_supported("spec.scope", spec.get("scope", ""), ("Cluster", "Namespaced")))
    for name in ("plural", "kind"):
        if not names.get(name):
            errors.append(required(f"spec.names.{name}"))
    if plural and (problem := service_problem(plural)):
        errors.append(invalid("spec.names.plural", plural, problem))
    errors += _version_errors(spec.get("versions") or [])
    if old is not None:
        for path in ("group", "scope"):
            if old["spec"].get(path) != spec.get(path):
                errors.append(invalid(f"spec.{path}", spec.get(path), "field is immutable"))
    return errors


def _version_errors(versions: list[Json]) -> list[FieldError]:
    errors: list[FieldError] = []
    if sum(bool(version.get("storage")) for version in versions) != 1:
        errors.append(
            invalid("spec.versions", _outline(versions), "must have exactly one version marked as storage version")
        )
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            errors.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
        else:
            # The original keeps the schema of a sole version, or one that all share, with the definition.
            where = "spec.validation" if len(versions) == 1 else f"{path}.schema"
            errors += structural_errors(schema, f"{where}.openAPIV3Schema")
        errors += _column_errors(version, path)
    return errors


def _column_errors(version: Json, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        here = f"{path}.additionalPrinterColumns[{index}]"
        types = ("boolean", "date", "integer", "number", "string")
        if column.get("type") not in types:
            errors.append(not_supported(f"{here}.type", column.get("type", ""), types))
        try:
            compile_path(column.get("jsonPath") or "")
        except JsonPathError as error:
            errors.append(invalid(f"{here}.jsonPath", column.get("jsonPath"), f"must be a simple json path: {error}"))
    return errors


def _outline(versions: list[Json]) -> list[str]:
    return [str(version.get("name")) for version in versions]


DEFINITION = KindRules(default=default_definition, prepare_create=new_definition, validate=validate_definition)


def resources_of(definition: Json) -> list[Resource]:
    """The resources that a definition's served versions make."""
    spec = definition["spec"]
    names = spec["names"]
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            plural=names["plural"],
            singular=names["singular"],
            kind=names["kind"],
            namespaced=spec["scope"] == "Namespaced",
            rules=CUSTOM,
            load_schema=partial(_schema_of, version),
            list_kind=names["listKind"],
            short_names=tuple(names.get("shortNames") or ()),
            categories=tuple(names.get("categories") or ()),
            has_status="status" in (version.get("subresources") or {}),
            scale=_scale_of(version),
            columns=tuple(_column(raw) for raw in version.get("additionalPrinterColumns") or ()),
            custom=True,
            schema_rv=int(definition["metadata"]["resourceVersion"]),
            storage_version=next(item["name"] for item in spec["versions"] if item.get("storage")),
            selectable_fields=tuple(
                field["jsonPath"].removeprefix(".") for field in version.get("selectableFields") or ()
            ),
        )
        for version in _by_priority(spec["versions"])
        if version.get("served")
    ]


_EVERY_OBJECT: Json = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}}
"""What a definition need not say of an object; rules at the root see it."""


def _schema_of(version: Json) -> Schema:
    raw = (version.get("schema") or {}).get("openAPIV3Schema")
    if not raw:
        return ANYTHING
    properties = raw.get("properties") or {}
    metadata = object_meta()
    own = (properties.get("metadata") or {}).get("properties") or {}
    metadata["properties"] = {**metadata["properties"], **own}
    return Schema({**raw, "properties": {**_EVERY_OBJECT, **properties, "metadata": metadata}})


def _by_priority(versions: list[Json]) -> list[Json]:
    """v1 before v1beta1 before v1alpha1, newer numbers first; other names last, by name."""

    def rank(version: Json) -> tuple[int, int, int, str]:
        name = version["name"]
        stages = {"": 0, "beta": 1, "alpha": 2}
        text = name.removeprefix("v")
        major = text[: len(text) - len(text.lstrip("0123456789"))]
        stage = text[len(major) :].rstrip("0123456789")
        minor = text[len(major) + len(stage) :]
        if not name.startswith("v") or not major or stage not in stages:
            return (3, 0, 0, name)
        return (stages[stage], -int(major), -int(minor or 0), name)

    return sorted(versions, key=rank)


def _scale_of(version: Json) -> ScalePaths | None:
    scale = (version.get("subresources") or {}).get("scale")
    if not scale:
        return None
    return ScalePaths(
        scale.get("specReplicasPath", ".spec.replicas"),
        scale.get("statusReplicasPath", ".status.replicas"),
        scale.get("labelSelectorPath"),
    )


def _column(raw: Json) -> Column:
    return Column(
        raw["name"],
        raw["type"],
        raw["jsonPath"],
        raw.get("description", ""),
        raw.get("format", ""),
        raw.get("priority", 0),
    )


class Definitions:
    """Keeps the registry in step with the stored definitions, and deletes objects with their definition."""

    def __init__(self, objects: Objects, registry: Registry) -> None:
        self._objects = objects
        self._store = objects.store
        self._registry = registry
        self._ending: set[str] = set()
        self.worker: Worker[str] = Worker("custom resources", self._store, self._tend)
        for stored in self._store.all(DEFINITIONS_KEY):
            registry.replace_custom(stored.name, resources_of(stored.obj))
            self.worker.add(stored.name)
        self._store.listen(None, self._changed)

    def _changed(self, event: Event) -> None:
        if event.resource == DEFINITIONS_KEY:
            if event.type == "DELETED":
                self._registry.replace_custom(event.stored.name, ())
            elif event.previous is None or event.previous.obj["spec"] != event.stored.obj["spec"]:
                self._registry.replace_custom(event.stored.name, resources_of(event.stored.obj))
            self.worker.add(event.stored.name)
        elif event.type == "DELETED" and event.resource in self._ending:
            self.worker.add(event.resource)

    def _tend(self, name: str) -> None:
        stored = self._store.get(DEFINITIONS_KEY, "", name)
        if stored is None:
            self._ending.discard(name)
        elif stored.obj["metadata"].get("deletionTimestamp"):
            self._ending.add(name)
            self._delete_objects(stored)
        else:
            accepted = accept(stored.obj)
            if accepted is not None:
                self._store.put(DEFINITIONS_KEY, accepted)

    def _delete_objects(self, definition: Stored) -> None:
        key = definition.name
        resource = self._registry.of_key(key)
        for stored in self._store.all(key):
            if resource is not None and not stored.obj["metadata"].get("deletionTimestamp"):
                target = Target(resource, stored.namespace, stored.name)
                self._objects.delete(target, DeleteOptions(propagation="Background", uid=stored.uid))
        if not self._store.count(key):
            self._objects.remove_finalizer(DEFINITIONS_KEY, definition, CLEANUP)


def accept(definition: Json) -> Json | None:
    """The definition with the status of an established one, or nothing when it says so already."""
    names = definition["spec"]["names"]
    status = definition.get("status") or {}
    storage = next(version["name"] for version in definition["spec"]["versions"] if version.get("storage"))
    stored_versions = list(status.get("storedVersions") or [])
    if storage not in stored_versions:
        stored_versions.append(storage)
    known = {condition["type"]: condition for condition in status.get("conditions") or []}
    if (
        status.get("acceptedNames") == names
        and status.get("storedVersions") == stored_versions
        and known.get("Established", {}).get("status") == "True"
    ):
        return None
    wanted = (
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
    )
    for kind, reason, message in wanted:
        if known.get(kind, {}).get("status") != "True":
            known[kind] = {
                "type": kind,
                "status": "True",
                "lastTransitionTime": timestamps.now(),
                "reason": reason,
                "message": message,
            }
    new: Json = copy_json(definition)
    new["status"] = {
        "conditions": list(known.values()),
        "acceptedNames": copy_json(names),
        "storedVersions": stored_versions,
    }
    return new
