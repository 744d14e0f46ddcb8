"""A cluster in memory, served by the operator's own client, cache, observation, plan and executor."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Coroutine
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st

from alidade_crds.contract import ProgressDocument, ResultDocument
from alidade_operator.api import (
    ALIGNMENT_RUN,
    CLAIM,
    CONFIG_MAP,
    EVALUATION,
    EVENT,
    JOB,
    MODEL_SERVE,
    PARENT_KINDS,
    POD,
    PYTORCH_JOB,
    TRAIN_JOB,
    Api,
    ApiError,
    JsonObject,
    Kind,
)
from alidade_operator.cache import Cache, Key
from alidade_operator.config import OperatorConfig
from alidade_operator.executor import Executor, OutdatedPlanError
from alidade_operator.observe import Sight
from alidade_operator.observerun import observe_run
from alidade_operator.reconcile.alignmentrun import plan_alignment_run
from alidade_operator.reconcile.plan import Plan
from alidade_operator.reconcile.run import AlignmentRun
from tests.operator.builders import CONFIG, NOW

T = TypeVar("T")
NAMESPACE = "team-a"
KINDS = {kind.kind: kind for kind in (*PARENT_KINDS, PYTORCH_JOB, TRAIN_JOB, JOB, POD, CLAIM)}
SFT = {
    "template": {
        "method": "sft",
        "model": {"uri": "hf://org/base"},
        "dataset": {"uri": "pvc://data/sft.json"},
    }
}
HELPFULNESS = {"name": "helpfulness", "template": {"dataset": {"uri": "pvc://data/preferences.json"}}}
PROMPTS = {"uri": "pvc://data/prompts.json"}


def run_spec(**blocks: Any) -> JsonObject:
    """The spec of an AlignmentRun as in YAML; by default SFT, one reward model, RAFT."""
    spec = {"sft": SFT, "rewardModels": [HELPFULNESS], "prompts": PROMPTS, "align": [{"raft": {}}]} | blocks
    return {name: value for name, value in spec.items() if value is not None}


def drive(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    raise AssertionError("nothing in memory has to be waited for")


TROUBLES = st.lists(st.sampled_from(["", "lost", "unanswered", "failed", "failed late"]), max_size=6)


class MemoryApi(Api):
    """The operator's client, whose calls end in a dictionary: names, uids, versions, generations, apply, deletion."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], JsonObject] = {}
        """By kind and name; there is one namespace."""
        self.events: list[JsonObject] = []
        self.lingering: set[str] = set()
        """Kinds whose objects stay for a while once they are deleted."""
        self.refused: set[str] = set()
        """Kinds that a quota lets nobody make."""
        self.troubles: list[str] = []
        """What becomes of the next calls: `lost` before they are carried out, or `unanswered` after it; an error of the
        server's before it, `failed`, or after it, `failed late`, upon which the client calls again; or nothing."""
        self.made: list[tuple[str, str]] = []
        """Every object that was ever made."""
        self.log: list[tuple[str, JsonObject]] = []
        """What a watch would tell: type of the event, and the object as it was then."""
        self.shared = frozenset({EVALUATION.kind, MODEL_SERVE.kind})
        """Kinds of whose status the operator under test writes a part."""
        self._numbers = itertools.count(1)

    async def _send(self, method: str, kind: Kind, path: str, **call: Any) -> JsonObject:
        trouble = self.troubles.pop(0) if self.troubles else ""
        if trouble == "lost":
            raise ApiError(0, "Unreachable", "the call was lost")
        if trouble == "failed":
            raise ApiError(500, "InternalError", "the call failed")
        answer = self._answer(method, kind, path, **call)
        if trouble == "unanswered":
            raise ApiError(0, "Unreachable", "the answer was lost")
        if trouble == "failed late":
            raise ApiError(500, "InternalError", "the call failed once it was done")
        return answer

    async def _pause(self, seconds: float) -> None:
        """Nothing in memory has to be waited for."""

    def _answer(self, method: str, kind: Kind, path: str, **call: Any) -> JsonObject:
        body = copy.deepcopy(call["body"])
        parts = path.removeprefix(kind.path(NAMESPACE)).strip("/").split("/")
        if kind is EVENT:
            self.events.append(body)
            return {}
        if method == "POST":
            return copy.deepcopy(self._create(kind, body))
        known = self.objects.get((kind.kind, parts[0]))
        if method == "PATCH":
            is_apply = call["content_type"] == "application/apply-patch+yaml"
            return copy.deepcopy(self._patch(kind, known, body, sub=parts[1:], is_apply=is_apply))
        if known is None:
            raise ApiError(404, "NotFound", f"{kind.plural} {parts[0]} not found")
        if method == "DELETE":
            if known["metadata"]["uid"] != body["preconditions"]["uid"]:
                raise ApiError(409, "Conflict", "the uid in the precondition is another one")
            return copy.deepcopy(self._delete(known))
        return copy.deepcopy(known)

    def _create(self, kind: Kind, body: JsonObject) -> JsonObject:
        name = body["metadata"]["name"]
        if kind.kind in self.refused:
            raise ApiError(403, "Forbidden", f"{kind.plural} {name} is forbidden: exceeded quota: small.")
        if (kind.kind, name) in self.objects:
            raise ApiError(409, "AlreadyExists", f"{kind.plural} {name} already exists")
        fixed = {"namespace": NAMESPACE, "uid": f"uid-{next(self._numbers)}", "generation": 1}
        body = {"kind": kind.kind, **body, "metadata": {**body["metadata"], **fixed}}
        body.pop("status", None)
        self.made.append((kind.kind, name))
        return self._write(body)

    def _patch(
        self, kind: Kind, known: JsonObject | None, body: JsonObject, *, sub: list[str], is_apply: bool
    ) -> JsonObject:
        uid = body["metadata"].pop("uid", None)
        if known is None:
            if uid is not None or sub or not is_apply:
                raise ApiError(404, "NotFound", f"{kind.plural} not found")
            return self._create(kind, body)
        if uid not in (None, known["metadata"]["uid"]):
            raise ApiError(409, "Conflict", "the uid in the precondition is another one")
        written = copy.deepcopy(known)
        if sub:
            status = known.get("status") or {}
            written["status"] = _merged_status(status, body["status"]) if kind.kind in self.shared else body["status"]
        else:
            _merge(written, {name: value for name, value in body.items() if name not in ("apiVersion", "status")})
            if written.get("spec") != known.get("spec"):
                written["metadata"]["generation"] += 1
        return known if written == known else self._write(written)

    def _delete(self, known: JsonObject) -> JsonObject:
        if known["kind"] in self.lingering:
            known["metadata"]["deletionTimestamp"] = NOW.isoformat()
            return self._write(known)
        self.remove(known)
        return {"kind": "Status", "status": "Success"}

    def remove(self, body: JsonObject) -> None:
        """The object is gone, and in the background what it owns."""
        uid = body["metadata"]["uid"]
        body = self.objects.pop((body["kind"], body["metadata"]["name"]))
        body["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.log.append(("DELETED", copy.deepcopy(body)))
        for key, other in list(self.objects.items()):
            if key in self.objects and any(ref["uid"] == uid for ref in other["metadata"].get("ownerReferences", [])):
                self.remove(other)

    def collect(self) -> None:
        """The garbage collector takes what was made for an owner that had gone by then."""
        uids = {body["metadata"]["uid"] for body in self.objects.values()}
        for key, body in list(self.objects.items()):
            owners = {owner["uid"] for owner in body["metadata"].get("ownerReferences", [])}
            if owners and not owners & uids and key in self.objects:
                self.remove(body)

    def _write(self, body: JsonObject) -> JsonObject:
        body["metadata"]["resourceVersion"] = str(next(self._numbers))
        self.objects[body["kind"], body["metadata"]["name"]] = body
        self.log.append(("MODIFIED", copy.deepcopy(body)))
        return body


def _merged_status(known: JsonObject, applied: JsonObject) -> JsonObject:
    """The status after an apply, of a kind with another controller: what that one has written stays."""
    conditions = {one["type"]: one for one in (*known.get("conditions", []), *applied["conditions"])}
    return {**known, **applied, "conditions": list(conditions.values())}


def _merge(known: JsonObject, patch: JsonObject) -> None:
    """RFC 7386; of an apply it is what matters here, since nobody else owns what the operator leaves out."""
    for name, value in patch.items():
        if value is None:
            known.pop(name, None)
        elif isinstance(value, dict) and isinstance(known.get(name), dict):
            _merge(known[name], value)
        else:
            known[name] = value


class MemoryCluster:
    """A namespace with the usual claims, and an operator that looks at it when told to."""

    def __init__(self, config: OperatorConfig = CONFIG) -> None:
        self.api = MemoryApi()
        self.cache = Cache()
        self.config = config
        self.now: datetime = NOW
        self.progress: dict[str, ProgressDocument] = {}
        self._executor = Executor(self.api, self.cache)
        for name in ("alidade-workspace", "data"):
            self.put(CLAIM, name)

    # What others do

    def put(self, kind: Kind, name: str, **content: Any) -> JsonObject:
        """Somebody makes an object; the watch tells the operator."""
        metadata = {"name": name, **content.pop("metadata", {})}
        status = content.pop("status", None)
        body = self.api._create(kind, {"apiVersion": kind.api_version, "metadata": metadata, **content})
        if status is not None:
            body["status"] = status
        self.tell(kind, name)
        return body

    def tell(self, kind: Kind, name: str) -> None:
        """The watch brings the newest version of an object, or its end."""
        body = self.api.objects.get((kind.kind, name))
        known = self.cache.get(Key(kind.kind, NAMESPACE, name))
        if known is not None and (body is None or body["metadata"]["uid"] != known["metadata"]["uid"]):
            self.cache.remove(kind, known)
        if body is not None:
            self.cache.put(kind, copy.deepcopy(body))

    def tell_all(self) -> None:
        """The watch brings everything."""
        for kind in KINDS.values():
            for body in list(self.cache.all(kind)):
                self.tell(kind, body["metadata"]["name"])
        for word, name in self.api.objects:
            if word in KINDS:
                self.tell(KINDS[word], name)

    def apply(self, name: str = "demo", **blocks: Any) -> None:
        """A user applies an AlignmentRun; the spec is the one of `run_spec`."""
        known = self.api.objects.get((ALIGNMENT_RUN.kind, name))
        if known is None:
            self.put(ALIGNMENT_RUN, name, spec=run_spec(**blocks))
            return
        spec = run_spec(**blocks)
        if spec != known["spec"]:
            known["spec"] = spec
            known["metadata"]["generation"] += 1
            self.api._write(known)
        self.tell(ALIGNMENT_RUN, name)

    def write_status(self, kind: Kind, name: str, **fields: Any) -> None:
        """A controller writes fields of a status; the watch tells the operator."""
        body = self.api.objects[kind.kind, name]
        body["status"] = {**body.get("status", {}), **fields}
        self.api._write(body)
        self.tell(kind, name)

    def delete(self, kind: Kind, name: str) -> None:
        """Somebody deletes an object; the watch tells the operator of it and of all that went with it."""
        self.api.remove(self.api.objects[kind.kind, name])
        self.tell_all()

    def train(self, name: str, *, digest: str | None = None, kind: Kind | None = None, **fields: Any) -> None:
        """A FineTuneJob or RewardModel succeeds."""
        kind = kind or self._kind_of(name)
        body = self.api.objects[kind.kind, name]
        output = body["spec"].get("output", {}).get("uri", f"pvc://alidade-workspace/{name}")
        model = {"uri": f"{output}/model", "digest": digest or f"sha256:{name}", "parameters": 1000}
        defaults = {
            "phase": "Succeeded",
            "model": model | {"trainableParameters": 1000},
            "startedAt": _text(self.now - timedelta(minutes=2)),
            "finishedAt": _text(self.now),
            "activeSeconds": 100.0,
        }
        self.write_status(kind, name, conditions=[true("Succeeded")], **(defaults | fields))

    def fail(self, name: str, message: str = "Line 2 is broken.") -> None:
        """A FineTuneJob or RewardModel fails for good."""
        self.write_status(self._kind_of(name), name, phase="Failed", conditions=[true("Failed", message)])

    def _kind_of(self, name: str) -> Kind:
        return next(KINDS[kind] for kind, known in self.api.objects if known == name and kind in KINDS)

    def run_pod(self, job: str, **progress: Any) -> None:
        """The pods of a PyTorchJob run, and answer with this progress."""
        body = self.api.objects[PYTORCH_JOB.kind, job]
        labels = body["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["metadata"]["labels"] | {
            "training.kubeflow.org/job-name": job,
            "training.kubeflow.org/replica-type": "master",
            "training.kubeflow.org/replica-index": "0",
        }
        owner = {"kind": PYTORCH_JOB.kind, "name": job, "uid": body["metadata"]["uid"], "controller": True}
        started = {"startedAt": _text(self.now)}
        status = {"phase": "Running", "podIP": "10.0.0.7"} | _container({"running": started})
        pod = self.put(POD, f"{job}-master-0", metadata={"labels": labels, "ownerReferences": [owner]}, status=status)
        self.write_status(PYTORCH_JOB, job, conditions=[true("Running")], startTime=_text(self.now))
        if progress:
            document = {"state": "training", "updated_at": self.now} | progress
            self.progress[pod["metadata"]["uid"]] = ProgressDocument.model_validate(document)

    def report(self, job: str, **progress: Any) -> None:
        """The first pod of a PyTorchJob answers with this progress."""
        uid = self.api.objects[POD.kind, f"{job}-master-0"]["metadata"]["uid"]
        document = {"state": "training", "updated_at": self.now} | progress
        self.progress[uid] = ProgressDocument.model_validate(document)

    def end_pod(self, job: str, result: ResultDocument | None = None, *, exit_code: int = 0) -> None:
        """The pod of a PyTorchJob ends with this result."""
        message = result.to_termination_message() if result is not None else ""
        pod = self.api.objects[POD.kind, f"{job}-master-0"]
        started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        times = {"startedAt": started, "finishedAt": _text(self.now)}
        ended = _container({"terminated": {"exitCode": exit_code, "message": message, **times}})
        word = "Failed" if exit_code else "Succeeded"
        self.write_status(POD, f"{job}-master-0", phase=word, **ended)
        since = self.api.objects[PYTORCH_JOB.kind, job]["status"]["startTime"]
        done = {"startTime": since, "completionTime": _text(self.now)}
        self.write_status(PYTORCH_JOB, job, conditions=[true(word)], **done)

    def clock(self, **time: float) -> None:
        """Time passes."""
        self.now += timedelta(**time)

    # What the operator does

    def look(self, name: str = "demo") -> Plan:
        """The plan for a run, which is not carried out."""
        return drive(self._plan(name))

    async def _plan(self, name: str) -> Plan:
        body = self.cache.get(Key(ALIGNMENT_RUN.kind, NAMESPACE, name))
        assert body is not None, f"there is no run {name}"
        run = AlignmentRun.parse(body)
        seen = await observe_run(run, Sight(self.cache, self.api, self.config, self.progress))
        return plan_alignment_run(run, seen, self.config, self.now)

    def step(self, name: str = "demo") -> Plan:
        """Plans and carries out once; raises OutdatedPlanError, and ApiError of a refusal."""
        made = self.look(name)
        body = self.cache.get(Key(ALIGNMENT_RUN.kind, NAMESPACE, name))
        assert body is not None, f"there is no run {name}"
        drive(self._executor.carry_out(made, ALIGNMENT_RUN, body, self.now))
        self.tell_all()
        return made

    def settle(self, name: str = "demo", *, most: int = 12) -> list[Plan]:
        """Plans and carries out until nothing changes any more; the plans that changed something."""
        plans: list[Plan] = []
        for _ in range(most):
            try:
                made = self.step(name)
            except OutdatedPlanError:
                continue
            if made.status is None and not made.children and not made.deletions:
                return plans
            plans.append(made)
        raise AssertionError(f"not settled after {most} plans: {plans[-1]}")

    # What can be read

    def status(self, name: str = "demo") -> JsonObject:
        """The status of a run."""
        status: JsonObject = self.api.objects[ALIGNMENT_RUN.kind, name].get("status", {})
        return status

    def condition(self, kind: str, name: str = "demo") -> tuple[str, str, str]:
        """Status, reason and message of a condition of a run."""
        conditions = self.status(name)["conditions"]
        return next((one["status"], one["reason"], one["message"]) for one in conditions if one["type"] == kind)

    def truths(self, name: str = "demo") -> dict[str, str]:
        """The status of every condition of a run."""
        return {one["type"]: one["status"] for one in self.status(name)["conditions"]}

    def stages(self, name: str = "demo") -> list[tuple[str, str, bool]]:
        """Name, phase, and whether it is reused, of the stages of a run."""
        return [(one["name"], one["phase"], one["reused"]) for one in self.status(name)["stages"]]

    def stage(self, stage: str, name: str = "demo") -> JsonObject:
        """A stage in the status of a run."""
        found: JsonObject = next(one for one in self.status(name)["stages"] if one["name"] == stage)
        return found

    def names(self, kind: Kind) -> list[str]:
        """Names of what there is of a kind."""
        return sorted(name for known, name in self.api.objects if known == kind.kind)

    def of(self, kind: Kind, stage: str = "", name: str = "demo") -> JsonObject:
        """The only child of a run of a kind, or of one of its stages."""
        found = [
            body
            for (known, _), body in self.api.objects.items()
            if known == kind.kind
            and body["metadata"].get("labels", {}).get("app.kubernetes.io/instance") == name
            and stage in ("", body["metadata"]["labels"]["app.kubernetes.io/component"])
        ]
        assert len(found) == 1, [body["metadata"]["name"] for body in found]
        return found[0]

    def job(self, name: str = "demo") -> str:
        """Name of the only PyTorchJob of a run."""
        return str(self.of(PYTORCH_JOB, name=name)["metadata"]["name"])

    def document(self, name: str = "demo") -> str:
        """The job document of a run's alignment, as JSON."""
        return str(self.of(CONFIG_MAP, name=name)["data"]["job.json"])


def true(kind: str, message: str = "So it is.") -> JsonObject:
    """A condition that holds."""
    times = {"lastTransitionTime": _text(NOW)}
    return {"type": kind, "status": "True", "reason": "Played", "message": message, **times}


def _text(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _container(state: JsonObject) -> JsonObject:
    return {"containerStatuses": [{"name": "pytorch", "state": state}]}
