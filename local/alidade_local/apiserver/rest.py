"""The verbs on objects: what create, update, patch and delete mean, whatever the kind."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from alidade_local.apiserver import managed_fields, server_side_apply, timestamps
from alidade_local.apiserver.conformance import conform, default_object, empty_metadata, violations
from alidade_local.apiserver.encoding import copy_json
from alidade_local.apiserver.errors import (
    ApiError,
    FieldError,
    UnknownFieldsError,
    already_exists,
    bad_request,
    conflict,
    forbidden,
    forbidden_field,
    invalid,
    invalid_object,
    invalid_patch,
    not_found,
)
from alidade_local.apiserver.metadata import GENERATED_SUFFIX_LENGTH, generated_suffix, metadata_errors
from alidade_local.apiserver.options import DeleteOptions, WriteOptions
from alidade_local.apiserver.resources import Resource
from alidade_local.apiserver.storage import Store, Stored
from alidade_local.apiserver.versions import current_form, stored_form
from alidade_local.ownership import FOREGROUND, ORPHAN

Json = dict[str, Any]

_SERVER_OWNED = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "name",
    "namespace",
    "selfLink",
    "generateName",
)


@dataclass
class Outcome:
    """What a write led to."""

    obj: Json
    created: bool = False
    stored: Stored | None = None
    """The stored revision, when it is exactly what the client gets."""
    rv: int = 0
    """The resource version that must be committed before the answer."""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Target:
    """What a request speaks of."""

    resource: Resource
    namespace: str
    name: str
    subresource: str = ""


Change = Callable[[Json], Json]

NAMESPACES_KEY = "namespaces."
_IMMORTAL_NAMESPACES = ("default", "kube-system", "kube-public")


class Objects:
    """Objects of all resources, with the rules of the API applied to every write."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, target: Target) -> Stored:
        """The object, or 404."""
        stored = self.store.get(target.resource.key, target.namespace, target.name)
        if stored is None:
            raise not_found(target.resource, target.name)
        return current_form(target.resource, stored)

    # -- create ---------------------------------------------------------------------------------------------------

    def create(self, target: Target, obj: Json, options: WriteOptions) -> Outcome:
        """Store a new object."""
        resource = target.resource
        self._check_identity(target, obj)
        self._check_namespace(target, (obj["metadata"] or {}).get("name", ""))
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        warnings = conform(resource, obj, options.field_validation)
        if resource.has_status:
            _without_status(resource, obj)
        if not managed_fields.read(obj):  # of what the server sets from here on the writer owns nothing
            managed_fields.record_update(obj, None, resource, options, "")
        self._prepare_new(target, obj)
        errors = metadata_errors(resource, obj) + violations(resource, obj, None)
        if errors:
            raise invalid_object(resource, metadata["name"], errors)
        if self.store.get(resource.key, target.namespace, metadata["name"]) is not None:
            raise already_exists(resource, metadata["name"])
        return self._put(resource, obj, options, created=True, warnings=warnings)

    def create_internally(self, resource: Resource, namespace: str, name: str, content: Json) -> Stored:
        """Store an object of the server's own making."""
        obj = {
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
            **content,
        }
        options = WriteOptions(field_manager="kube-apiserver", field_validation="Ignore")
        stored = self.create(Target(resource, namespace, name), obj, options).stored
        assert stored is not None
        return stored

    def change_internally(self, key: str, stored: Stored, change: Callable[[Json], None]) -> None:
        """Change an object on the server's own behalf; it goes if the change was what its deletion waited for."""
        obj = copy_json(stored.obj)
        change(obj)
        if obj == stored.obj:
            return
        changed = self.store.put(key, obj)
        if _may_go(obj):
            self.store.delete(key, changed)

    def remove_finalizer(self, key: str, stored: Stored, finalizer: str) -> None:
        """Take a finalizer off an object."""

        def without(obj: Json) -> None:
            kept = [name for name in obj["metadata"].get("finalizers") or () if name != finalizer]
            if kept:
                obj["metadata"]["finalizers"] = kept
            else:
                obj["metadata"].pop("finalizers", None)

        self.change_internally(key, stored, without)

    def _prepare_new(self, target: Target, obj: Json) -> None:
        resource, metadata = target.resource, obj["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            prefix = metadata["generateName"][: 63 - GENERATED_SUFFIX_LENGTH]
            metadata["name"] = prefix + generated_suffix()
        metadata.setdefault("name", "")
        if resource.namespaced:
            metadata["namespace"] = target.namespace
        metadata["uid"] = str(uuid4())
        metadata["creationTimestamp"] = timestamps.now()
        for name in ("deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation"):
            metadata.pop(name, None)
        if resource.rules.counts_generation:
            metadata["generation"] = 1
        resource.rules.prepare_create(obj)
        if resource.has_status and not resource.custom:
            obj.setdefault("status", {})

    def _check_identity(self, target: Target, obj: Json) -> None:
        """The body must speak of the object and kind that the path names."""
        resource = target.resource
        if not resource.custom:  # typed clients leave it to the path to say what the body is
            obj["apiVersion"] = obj.get("apiVersion") or resource.api_version
            obj["kind"] = obj.get("kind") or resource.kind
        for name, shown in (("kind", "Kind"), ("apiVersion", "apiVersion")):
            if not obj.get(name):
                raise bad_request(f"Object '{shown}' is missing in the body")
        if obj["apiVersion"] != resource.api_version:
            raise bad_request(
                f"the API version in the data ({obj['apiVersion']}) does not match the expected API version "
                f"({resource.api_version})"
            )
        if obj["kind"] != resource.kind:
            raise bad_request(f'{resource.kind} in version "{resource.version}" cannot be handled as a {obj["kind"]}')
        metadata = obj.setdefault("metadata", {})
        if not isinstance(metadata, dict):
            raise bad_request("metadata must be an object")
        if target.name and metadata.get("name", target.name) != target.name:
            raise bad_request(
                f"the name of the object ({metadata['name']}) does not match the name on the URL ({target.name})"
            )
        namespace = metadata.get("namespace") or target.namespace
        if resource.namespaced and namespace != target.namespace:
            raise bad_request(
                f"the namespace of the object ({namespace}) does not match the namespace on the request "
                f"({target.namespace})"
                if target.name
                else "the namespace of the provided object does not match the namespace sent on the request"
            )
        if not resource.namespaced:
            metadata.pop("namespace", None)

    def _check_namespace(self, target: Target, name: str) -> None:
        if not target.resource.namespaced:
            return
        namespace = self.store.get(NAMESPACES_KEY, "", target.namespace)
        if namespace is None:
            raise ApiError(
                404,
                "NotFound",
                f'namespaces "{target.namespace}" not found',
                {"name": target.namespace, "kind": "namespaces"},
            )
        if namespace.obj["metadata"].get("deletionTimestamp"):
            refusal = forbidden(
                target.resource,
                name,
                f"unable to create new content in namespace {target.namespace} because it is being terminated",
            )
            refusal.details = {
                **(refusal.details or {}),
                "causes": [
                    {
                        "reason": "NamespaceTerminating",
                        "message": f"namespace {target.namespace} is being terminated",
                        "field": "metadata.namespace",
                    }
                ],
            }
            raise refusal

    # -- update ---------------------------------------------------------------------------------------------------

    def update(self, target: Target, obj: Json, options: WriteOptions) -> Outcome:
        """Replace an object, its status, or everything but its status."""
        self._check_identity(target, obj)
        current = self.get(target)
        metadata = obj["metadata"]
        if not metadata.get("name"):
            raise bad_request(
                f"the name of the object ({target.name} based on URL) was undeterminable: name must be provided"
            )
        if not metadata.get("resourceVersion") and target.resource.rules.requires_version_on_update:
            error = invalid("metadata.resourceVersion", 0, "must be specified for an update")
            error = FieldError(error.field, error.reason, error.message.replace("value: 0:", "value: 0x0:"))
            raise invalid_object(target.resource, target.name, [error])
        return self.replace(target, current, obj, options, anew=_says_nothing(target.resource, metadata))

    def patch(self, target: Target, change: Change, options: WriteOptions) -> Outcome:
        """Replace an object by a changed copy of itself."""
        current = self.get(target)
        obj = change(current.obj)
        self._check_identity(target, obj)
        given = copy_json(obj)
        try:
            return self.replace(target, current, obj, options)
        except UnknownFieldsError as error:
            raise invalid_patch(given, error.problem) from error

    def apply(self, target: Target, config: Json, options: WriteOptions) -> Outcome:
        """Server-side apply: creates what is absent, changes what differs, leaves alone what is as wanted."""
        resource = target.resource
        for name in ("apiVersion", "kind"):
            if not config.get(name):
                raise bad_request(f"Object '{name.capitalize() if name == 'kind' else name}' is missing in the body")
        self._check_identity(target, config)
        metadata = config["metadata"]
        metadata.setdefault("name", target.name)
        if target.namespace:
            metadata["namespace"] = target.namespace
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        if self.store.get(resource.key, target.namespace, target.name) is None:
            return self._apply_new(target, config, options)
        current = self.get(target)
        if metadata.get("uid") and metadata["uid"] != current.uid:
            raise conflict(
                resource,
                target.name,
                f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {current.uid}",
            )
        if metadata.get("resourceVersion") not in (None, str(current.rv)):
            raise conflict(resource, target.name)
        config["metadata"] = {name: value for name, value in metadata.items() if name != "resourceVersion"}
        anew = _says_nothing(resource, metadata)
        new = server_side_apply.applied(current.obj, config, resource, options, target.subresource)
        return self.replace(target, current, new, options, applied=True, anew=anew)

    def _apply_new(self, target: Target, config: Json, options: WriteOptions) -> Outcome:
        if target.subresource:
            raise not_found(target.resource, target.name)
        metadata = config["metadata"]
        if metadata.get("uid"):
            raise conflict(
                target.resource,
                target.name,
                f"uid mismatch: the provided object specified uid {metadata['uid']}, and no existing object was found",
            )
        if metadata.get("resourceVersion"):
            raise not_found(target.resource, target.name)
        empty: Json = {"apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}}
        obj = server_side_apply.applied(empty, config, target.resource, options, "")
        return self.create(Target(target.resource, target.namespace, target.name), obj, options)

    def replace(
        self,
        target: Target,
        current: Stored,
        obj: Json,
        options: WriteOptions,
        *,
        applied: bool = False,
        anew: bool = False,
    ) -> Outcome:
        """Put a changed object in the place of the current one, as far as the subresource lets it.

        applied: the change came by server-side apply, which has recorded its owners itself.
        anew: store it even if nothing has changed.
        """
        resource, old = target.resource, current.obj
        metadata = obj["metadata"]
        self._check_preconditions(target, current, metadata)
        warnings = conform(resource, obj, options.field_validation)
        new = self._within_subresource(target, obj, old)
        _keep_server_owned(new["metadata"], old["metadata"])
        resource.rules.prepare_update(new, old)
        self._count_generation(resource, new, old)
        errors = metadata_errors(resource, new) + _finalizer_errors(new, old) + violations(resource, new, old)
        if errors:
            raise invalid_object(resource, current.name, errors)
        return self.store_change(target, current, new, options, warnings, applied=applied, anew=anew)

    def store_change(
        self,
        target: Target,
        current: Stored,
        new: Json,
        options: WriteOptions,
        warnings: list[str],
        *,
        applied: bool = False,
        anew: bool = False,
    ) -> Outcome:
        """Store a checked object unless nothing changed; a deletion that waited for it happens now."""
        old = current.obj
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if not applied:
            if "managedFields" not in new["metadata"] and "managedFields" in old["metadata"]:
                new["metadata"]["managedFields"] = old["metadata"]["managedFields"]
            if new == old and not anew:
                return Outcome(old, stored=current, rv=current.rv, warnings=warnings)
            managed_fields.record_update(new, old, target.resource, options, target.subresource)
        if new == old and not anew:
            return Outcome(old, stored=current, rv=current.rv, warnings=warnings)
        outcome = self._put(target.resource, new, options, created=False, warnings=warnings)
        if not options.dry_run and outcome.stored is not None and _may_go(new):
            gone = self.store.delete(target.resource.key, outcome.stored)
            outcome.rv = gone.rv
        return outcome

    def _check_preconditions(self, target: Target, current: Stored, metadata: Json) -> None:
        version = metadata.get("resourceVersion")
        if metadata.get("uid") and metadata["uid"] != current.uid:
            raise conflict(
                target.resource,
                current.name,
                f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {current.uid}",
            )
        if version and version != str(current.rv):
            raise conflict(target.resource, current.name)

    def _within_subresource(self, target: Target, obj: Json, old: Json) -> Json:
        """The part of the written object that the request may change, and the old rest."""
        resource = target.resource
        if target.subresource == "status":
            new = dict(old)
            new["metadata"] = dict(old["metadata"])
            if not resource.custom:
                for name in ("labels", "annotations", "finalizers", "ownerReferences"):
                    if name in obj["metadata"] and name in ("labels", "annotations"):
                        new["metadata"][name] = obj["metadata"][name]
            if "managedFields" in obj["metadata"]:
                new["metadata"]["managedFields"] = obj["metadata"]["managedFields"]
            if "status" in obj:
                new["status"] = obj["status"]
            else:
                _without_status(resource, new)
            return new
        if resource.key == NAMESPACES_KEY and target.subresource != "finalize":
            obj["spec"] = old["spec"]  # its finalizers are all it has
        if resource.has_status:
            if "status" in old:
                obj["status"] = old["status"]
            else:
                _without_status(resource, obj)
        return obj

    @staticmethod
    def _count_generation(resource: Resource, new: Json, old: Json) -> None:
        if not resource.rules.counts_generation:
            return
        unseen = ("metadata", "status") if resource.has_status else ("metadata",)
        before = {name: value for name, value in old.items() if name not in unseen}
        after = {name: value for name, value in new.items() if name not in unseen}
        marked = resource.key == "deployments.apps" and (
            (old["metadata"].get("annotations") or {}) != (new["metadata"].get("annotations") or {})
        )  # a Deployment's annotations are part of what its controller acts on
        if before != after or marked:
            new["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1

    def _put(
        self, resource: Resource, obj: Json, options: WriteOptions, *, created: bool, warnings: list[str]
    ) -> Outcome:
        if options.dry_run:
            return Outcome(obj, created=created, rv=self.store.committed_rv, warnings=warnings)
        stored = self.store.put(resource.key, stored_form(resource, obj))
        return Outcome(obj, created=created, stored=stored, rv=stored.rv, warnings=warnings)

    # -- delete ---------------------------------------------------------------------------------------------------

    def delete(self, target: Target, options: DeleteOptions) -> tuple[Outcome, bool]:
        """Delete an object, or mark it for deletion; says whether it is gone."""
        resource = target.resource
        if resource.key == NAMESPACES_KEY and target.name in _IMMORTAL_NAMESPACES:
            raise forbidden(resource, target.name, "this namespace may not be deleted")
        current = self.get(target)
        self._check_delete_preconditions(target, current, options)
        obj = copy_json(current.obj)
        metadata = obj["metadata"]
        _set_propagation_finalizers(metadata, options.propagation or resource.rules.default_propagation)
        grace = resource.rules.grace_period(obj)
        if options.grace_period_s is not None:
            grace = min(grace, options.grace_period_s) if grace else 0
        if resource.key == NAMESPACES_KEY and "kubernetes" in ((obj.get("spec") or {}).get("finalizers") or ()):
            obj["status"] = {**(obj.get("status") or {}), "phase": "Terminating"}
            return self._mark(resource, current, obj, 0, options), False
        if metadata.get("finalizers") or grace > 0:
            return self._mark(resource, current, obj, grace, options), False
        if options.dry_run:
            return Outcome(current.obj, rv=current.rv), True
        stored = self.store.delete(resource.key, current)
        last = stored.obj
        if resource.key == "pods.":  # whoever deletes it sees when it ended
            now = {"deletionTimestamp": timestamps.now(), "deletionGracePeriodSeconds": 0}
            last = {**last, "metadata": {**last["metadata"], **now}}
        return Outcome(last, stored=stored, rv=stored.rv), True

    def _check_delete_preconditions(self, target: Target, current: Stored, options: DeleteOptions) -> None:
        if options.uid and options.uid != current.uid:
            raise conflict(
                target.resource,
                current.name,
                f"Precondition failed: UID in precondition: {options.uid}, UID in object meta: {current.uid}",
            )
        if options.resource_version and options.resource_version != str(current.rv):
            raise conflict(
                target.resource,
                current.name,
                f"Precondition failed: ResourceVersion in precondition: {options.resource_version}, ResourceVersion "
                f"in object meta: {current.rv}",
            )

    def _mark(self, resource: Resource, current: Stored, obj: Json, grace: int, options: DeleteOptions) -> Outcome:
        metadata = obj["metadata"]
        if not metadata.get("deletionTimestamp"):
            metadata["deletionTimestamp"] = timestamps.in_seconds(grace)
            metadata["deletionGracePeriodSeconds"] = grace
            if resource.rules.counts_generation and "generation" in metadata:
                metadata["generation"] += 1
        elif grace < metadata.get("deletionGracePeriodSeconds", 0):
            metadata["deletionTimestamp"] = timestamps.in_seconds(grace)
            metadata["deletionGracePeriodSeconds"] = grace
        if obj == current.obj or options.dry_run:
            return Outcome(obj, rv=current.rv)
        stored = self.store.put(resource.key, stored_form(resource, obj))
        return Outcome(stored.obj, stored=stored, rv=stored.rv)


def _says_nothing(resource: Resource, metadata: Json) -> bool:
    """Whether the original stores a custom resource anew: it compares it as it was given, with its `labels: {}`."""
    return resource.custom and bool(empty_metadata(metadata))


def _keep_server_owned(metadata: Json, old: Json) -> None:
    for name in _SERVER_OWNED:
        if name in old:
            metadata[name] = old[name]
        else:
            metadata.pop(name, None)


def _finalizer_errors(new: Json, old: Json) -> list[FieldError]:
    """An object being deleted gets no new finalizers."""
    if not old["metadata"].get("deletionTimestamp"):
        return []
    added = sorted(set(new["metadata"].get("finalizers") or ()) - set(old["metadata"].get("finalizers") or ()))
    if not added:
        return []
    names = ", ".join(f'"{name}"' for name in added)
    return [
        forbidden_field(
            "metadata.finalizers",
            f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{names}}}",
        )
    ]


def _may_go(obj: Json) -> bool:
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if obj.get("kind") == "Namespace":
        return not (obj.get("spec") or {}).get("finalizers")
    return not metadata.get("deletionGracePeriodSeconds")


def _set_propagation_finalizers(metadata: Json, propagation: str) -> None:
    if not propagation:
        return
    wanted = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(propagation)
    finalizers = [name for name in metadata.get("finalizers") or () if name not in (FOREGROUND, ORPHAN)]
    if wanted:
        finalizers.append(wanted)
    if finalizers:
        metadata["finalizers"] = finalizers
    else:
        metadata.pop("finalizers", None)


def _without_status(resource: Resource, obj: Json) -> None:
    """Takes the status away, but for what the schema has as its default: so it is read from the original's store."""
    obj.pop("status", None)
    if resource.custom:
        default_object(resource, obj)
