"""What the operator knows of the cluster: the newest version seen of every object it watches."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from alidade_operator.api import (
    AUTOSCALER,
    CHILD_KINDS,
    CLAIM,
    DEPLOYMENT,
    JOB,
    PARENT_KINDS,
    POD,
    POLICY_KINDS,
    PYTORCH_JOB,
    SCALED_OBJECT,
    SERVICE,
    TRAIN_JOB,
    JsonObject,
    Kind,
)

# Deleted uids are remembered so that an older event that arrives late does not bring an object back.
TOMBSTONES = 10_000


class Key(NamedTuple):
    """A resource by its kind, namespace and name."""

    kind: str
    namespace: str
    name: str


def version_of(body: Mapping[str, JsonObject]) -> int:
    """The resource version as a number (comparable within a kind since Kubernetes 1.35, and in practice before)."""
    return int(body["metadata"].get("resourceVersion") or 0)


def key_of(kind: Kind, body: JsonObject) -> Key:
    """The key of an object."""
    metadata = body["metadata"]
    return Key(kind.kind, metadata.get("namespace", ""), metadata["name"])


class Cache:
    """Objects by kind, namespace and name. Of two versions of one object the newer stays, whatever their order."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[tuple[str, str], JsonObject]] = {}
        self._gone: dict[str, None] = {}
        self._children: dict[Key, set[Key]] = {}
        self._dependents: dict[Key, set[Key]] = {}
        self._alike: dict[Key, set[Key]] = {}
        self.missing_kinds: set[str] = set()

    @property
    def size(self) -> int:
        """Number of objects that are known."""
        return sum(len(objects) for objects in self._objects.values())

    def put(self, kind: Kind, body: JsonObject) -> bool:
        """Takes in a version of an object; False when a newer one, or its end, is already known."""
        metadata = body["metadata"]
        if metadata["uid"] in self._gone:
            return False
        objects = self._objects.setdefault(kind.kind, {})
        name = (metadata.get("namespace", ""), metadata["name"])
        known = objects.get(name)
        if known is not None:
            if known["metadata"]["uid"] == metadata["uid"]:
                if version_of(body) <= version_of(known):
                    return False
            elif version_of(body) < version_of(known):
                # A late event of an object whose name has been taken over since.
                return False
            self._unlink(kind, known)
        trimmed = trim(kind, body)
        objects[name] = trimmed
        self._link(kind, trimmed)
        return True

    def remove(self, kind: Kind, body: JsonObject) -> bool:
        """Takes note that an object is gone for good; False when that was known."""
        self._bury(body["metadata"]["uid"])
        return self._drop(kind, body)

    def _drop(self, kind: Kind, body: JsonObject) -> bool:
        metadata = body["metadata"]
        objects = self._objects.get(kind.kind, {})
        name = (metadata.get("namespace", ""), metadata["name"])
        known = objects.get(name)
        if known is None or known["metadata"]["uid"] != metadata["uid"]:
            return False
        self._unlink(kind, known)
        del objects[name]
        return True

    def _bury(self, uid: str) -> None:
        self._gone[uid] = None
        while len(self._gone) > TOMBSTONES:
            del self._gone[next(iter(self._gone))]

    def prune(
        self, kind: Kind, listed: Iterable[JsonObject], version: str, namespaces: Iterable[str]
    ) -> list[JsonObject]:
        """Removes what a full listing at `version` no longer has; returns what was removed.

        namespaces: those that were listed; empty when all were. An object newer than the listing stays.
        """
        alive = {body["metadata"]["uid"] for body in listed}
        covered = set(namespaces)
        lost = [
            body
            for (namespace, _), body in self._objects.get(kind.kind, {}).items()
            if body["metadata"]["uid"] not in alive
            and version_of(body) <= int(version)
            and (not covered or namespace in covered)
        ]
        for body in lost:
            # Not as gone for good: one without our labels, known from a refused creation, is in no listing either.
            self._drop(kind, body)
        return lost

    def get(self, key: Key) -> JsonObject | None:
        """One object, or None."""
        return self._objects.get(key.kind, {}).get((key.namespace, key.name))

    def proposing(self, kind: Kind, body: JsonObject, *, alone: bool) -> "Cache":
        """What would be known if a resource were as proposed. alone: and if there were no other resource of ours."""
        imagined = _Proposing(key_of(kind, body), trim(kind, body), alone=alone)
        imagined._objects, imagined._gone = self._objects, self._gone
        imagined._children, imagined._dependents, imagined._alike = self._children, self._dependents, self._alike
        imagined.missing_kinds = self.missing_kinds
        return imagined

    def all(self, kind: Kind) -> Iterator[JsonObject]:
        """Every object of a kind."""
        yield from self._objects.get(kind.kind, {}).values()

    def children(self, parent: Key) -> Iterator[JsonObject]:
        """What carries the labels of a resource: training jobs and pods, and the resources that a run has made."""
        for key in sorted(self._children.get(parent, ())):
            body = self.get(key)
            if body is not None:
                yield body

    def dependents(self, source: Key) -> list[Key]:
        """Resources that refer to another one, or take its result."""
        return sorted(self._dependents.get(source, ()))

    def alike(self, namespace: str, inputs: str) -> Iterator[JsonObject]:
        """Resources of a namespace whose results come from inputs of that hash."""
        for key in sorted(self._alike.get(_inputs_key(namespace, inputs), ())):
            body = self.get(key)
            if body is not None:
                yield body

    def _link(self, kind: Kind, body: JsonObject) -> None:
        for index, source in self._sources(kind, body):
            index.setdefault(source, set()).add(key_of(kind, body))

    def _unlink(self, kind: Kind, body: JsonObject) -> None:
        for index, source in self._sources(kind, body):
            keys = index.get(source, set())
            keys.discard(key_of(kind, body))
            if not keys:
                index.pop(source, None)

    def _sources(self, kind: Kind, body: JsonObject) -> Iterator[tuple[dict[Key, set[Key]], Key]]:
        parent = parent_key(kind, body)
        if parent is not None:
            yield self._children, parent
        if kind in PARENT_KINDS:
            for reference in {*references(body), *_taken(body), *_compared(body)}:
                yield self._dependents, reference
            for inputs in _inputs_of(body):
                yield self._alike, _inputs_key(body["metadata"].get("namespace", ""), inputs)


PARENT_KIND_LABEL = "alidade.dev/kind"
PARENT_NAME_LABEL = "app.kubernetes.io/instance"
INPUTS_LABEL = "alidade.dev/inputs"
"""Hash of the inputs of a stage, on what a run has made for it."""


def parent_key(kind: Kind, body: JsonObject) -> Key | None:
    """The resource that a child belongs to by its labels; None for what is no child."""
    if kind not in CHILD_KINDS and kind not in PARENT_KINDS:
        return None
    labels = body["metadata"].get("labels") or {}
    parent_kind, name = labels.get(PARENT_KIND_LABEL), labels.get(PARENT_NAME_LABEL)
    if not parent_kind or not name:
        return None
    return Key(parent_kind, body["metadata"].get("namespace", ""), name)


def references(body: JsonObject) -> list[Key]:
    """The resources that a spec names: by model.from, in a run by a stage's ref, in an Evaluation as models, in a
    ModelServe as adapters."""
    spec, namespace = body.get("spec") or {}, body["metadata"].get("namespace", "")
    found = [_model_source(spec), *(_model_source(adapter) for adapter in spec.get("adapters") or [])]
    rewards = [(reward, "RewardModel") for reward in spec.get("rewardModels") or []]
    for block, kind in ((spec.get("sft"), "FineTuneJob"), *rewards):
        if isinstance(block, dict):
            ref = block.get("ref")
            found.append((kind, ref["name"]) if isinstance(ref, dict) and "name" in ref else None)
            found += [_model_source(block), _model_source(block.get("template"))]
    found += _evaluated(spec)
    return [Key(item[0], namespace, item[1]) for item in found if item is not None]


def _evaluated(spec: Any) -> list[tuple[str, str] | None]:
    """What an Evaluation's models, reward models and endpoint name."""
    found = [_model_source(one) for one in spec.get("models") or []]
    for suite in spec.get("suites") or []:
        found.append(_model_source({"model": suite.get("rewardModel")}) if isinstance(suite, dict) else None)
    endpoint = spec.get("endpoint")
    if isinstance(endpoint, dict) and "modelServe" in endpoint:
        found.append(("ModelServe", endpoint["modelServe"]))
    return found


def _model_source(block: Any) -> tuple[str, str] | None:
    """Kind and name that `model.from` of a block names."""
    model = block.get("model") if isinstance(block, dict) else None
    source = model.get("from") if isinstance(model, dict) else None
    if not isinstance(source, dict) or "kind" not in source or "name" not in source:
        return None
    return source["kind"], source["name"]


def _stages(body: JsonObject) -> list[JsonObject]:
    stages = (body.get("status") or {}).get("stages")
    return stages if isinstance(stages, list) else []


def _taken(body: JsonObject) -> list[Key]:
    """The resources whose results a run takes, its own and others'."""
    namespace = body["metadata"].get("namespace", "")
    return [Key(stage["kind"], namespace, stage["ref"]) for stage in _stages(body) if stage.get("ref")]


def _compared(body: JsonObject) -> list[Key]:
    """The ModelServe that an arena compares with."""
    block: Any = body.get("spec") or {}
    for name in ("gateway", "arena"):
        block = block.get(name) if isinstance(block, dict) else None
    against = block.get("against") if isinstance(block, dict) else None
    return [Key("ModelServe", body["metadata"].get("namespace", ""), against)] if isinstance(against, str) else []


def _inputs_of(body: JsonObject) -> set[str]:
    """Hashes of the inputs that a resource's results come from: a label on a stage's, the stages' own in a run."""
    label = (body["metadata"].get("labels") or {}).get(INPUTS_LABEL)
    own = {stage["inputs"] for stage in _stages(body) if stage.get("kind") == "Alignment" and stage.get("inputs")}
    return own | ({label} if label else set())


def _inputs_key(namespace: str, inputs: str) -> Key:
    return Key("inputs", namespace, inputs)


_OURS = frozenset(kind.kind for kind in PARENT_KINDS)


class _Proposing(Cache):
    """A cache that answers for one resource with a body that nobody has stored."""

    def __init__(self, key: Key, body: JsonObject, *, alone: bool) -> None:
        super().__init__()
        self._key = key
        self._body = body
        self._alone = alone

    def get(self, key: Key) -> JsonObject | None:
        """One object, or None."""
        if key == self._key:
            return self._body
        return None if self._alone and key.kind in _OURS else super().get(key)


_KEPT_METADATA = frozenset(
    {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "labels",
        "annotations",
        "ownerReferences",
    }
)
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def trim(kind: Kind, body: JsonObject) -> JsonObject:
    """An object without what the operator never looks at: thousands of them are held in memory."""
    metadata = {name: value for name, value in body["metadata"].items() if name in _KEPT_METADATA}
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {name: value for name, value in annotations.items() if name != _LAST_APPLIED}
    kept = {"kind": kind.kind, "metadata": metadata} | _KEPT_CONTENT.get(kind.kind, _keep_all)(body)
    return {name: _shared(value) for name, value in kept.items()}


def _shared(value: Any) -> Any:
    """The same value with field names shared by all objects: a parser makes them anew for each, a third of it all."""
    if isinstance(value, dict):
        return {sys.intern(name): _shared(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shared(item) for item in value]
    return value


def _keep_all(body: JsonObject) -> JsonObject:
    return {name: body[name] for name in ("spec", "status") if name in body}


def _keep_nothing(body: JsonObject) -> JsonObject:
    del body
    return {}


def _keep_training_job(body: JsonObject) -> JsonObject:
    run_policy = (body.get("spec") or {}).get("runPolicy") or {}
    return {"spec": {"runPolicy": {"suspend": run_policy.get("suspend")}}, "status": body.get("status") or {}}


def _keep_deployment(body: JsonObject) -> JsonObject:
    return {"spec": {"replicas": (body.get("spec") or {}).get("replicas")}, "status": body.get("status") or {}}


def _keep_suspend(body: JsonObject) -> JsonObject:
    return {"spec": {"suspend": (body.get("spec") or {}).get("suspend")}, "status": body.get("status") or {}}


_POD_STATUS = ("phase", "podIP", "reason", "message", "conditions", "containerStatuses", "initContainerStatuses")


def _keep_pod(body: JsonObject) -> JsonObject:
    status = body.get("status") or {}
    return {
        "spec": {"nodeName": (body.get("spec") or {}).get("nodeName")},
        "status": {name: status[name] for name in _POD_STATUS if name in status},
    }


def _keep_status(body: JsonObject) -> JsonObject:
    return {"status": body.get("status") or {}}


_KEPT_CONTENT: dict[str, Callable[[JsonObject], JsonObject]] = {
    **{kind.kind: _keep_nothing for kind in POLICY_KINDS},
    AUTOSCALER.kind: _keep_status,
    SCALED_OBJECT.kind: _keep_status,
    PYTORCH_JOB.kind: _keep_training_job,
    TRAIN_JOB.kind: _keep_suspend,
    JOB.kind: _keep_suspend,
    POD.kind: _keep_pod,
    CLAIM.kind: _keep_nothing,
    DEPLOYMENT.kind: _keep_deployment,
    SERVICE.kind: _keep_nothing,
}
