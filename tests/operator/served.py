"""A namespace with one ModelServe, the real controller before a cluster in memory, and its Deployments played."""

from __future__ import annotations

import copy
import json
from datetime import timedelta
from typing import Any

from alidade_crds.contract import BackendCounts, GatewayBackends, GatewayDocument
from alidade_operator.api import (
    AUTOSCALER,
    CLAIM,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    MODEL_SERVE,
    NETWORK_POLICY,
    POD,
    POD_MONITOR,
    SCALED_OBJECT,
    SERVICE,
    ApiError,
    JsonObject,
    Kind,
)
from alidade_operator.cache import Key
from alidade_operator.config import OperatorConfig
from alidade_operator.controller import Controller
from alidade_operator.executor import OutdatedPlanError
from alidade_operator.resources.observation import ReplicaLoad
from tests.operator.builders import CONFIG
from tests.operator.line import Line
from tests.operator.memory import NAMESPACE, MemoryCluster, drive

KINDS = {
    kind.kind: kind
    for kind in (
        MODEL_SERVE, CLAIM, DEPLOYMENT, SERVICE, POD, DISRUPTION_BUDGET, NETWORK_POLICY, AUTOSCALER, SCALED_OBJECT,
        POD_MONITOR,
    )
}  # fmt: skip
NAME = "chat"
KEY = Key(MODEL_SERVE.kind, NAMESPACE, NAME)
GATEWAY, CANARY, STABLE = f"{NAME}-gateway", f"{NAME}-canary", NAME
A, B = {"uri": "pvc://data/a"}, {"uri": "pvc://data/b"}
BROKEN = {"uri": "pvc://data/broken"}
"""A model whose replicas never become ready."""


class Served(MemoryCluster):
    """The cluster: a user, an operator, and the controllers of Deployments and pods, each a step at a time."""

    def __init__(self, config: OperatorConfig = CONFIG) -> None:
        super().__init__(config)
        self.api.shared = frozenset()
        self.told = 0
        self.start_operator()

    # The operator

    def start_operator(self) -> None:
        """It begins with what a listing tells; what an earlier one had in mind is lost."""
        self.line: Line[Key] = Line(self.now)
        self.operator = Controller(self.config, self.api, clock=lambda: self.now)
        self.operator._queue = self.line  # type: ignore[assignment]
        self.operator._executor._on_resource = self.line.add
        for body in self.api.objects.values():
            if body["kind"] in KINDS:
                self.operator.take_event(KINDS[body["kind"]], None, copy.deepcopy(body))
        self.told = len(self.api.log)

    def deliver(self, most: int = 1000) -> None:
        """The watches tell some of what has happened, the garbage collector's part too."""
        self.api.collect()
        for event, body in self.api.log[self.told : self.told + most]:
            if body["kind"] in KINDS:
                self.operator.take_event(KINDS[body["kind"]], event, copy.deepcopy(body))
            self.told += 1

    def work(self) -> bool:
        """The operator does what is due; whether there was anything."""
        self.line.now = self.now
        if self.line.due.get(KEY, self.now + timedelta(1)) > self.now:
            return False
        del self.line.due[KEY]
        try:
            drive(self.operator._reconcile(KEY))
        except (OutdatedPlanError, ApiError):
            self.line.failed(KEY)
        return True

    def settle(self, *, rounds: int = 60) -> None:
        """Everybody works until nothing moves any more; time stands still."""
        for _ in range(rounds):
            self.deliver()
            if not self.work() and not self.control():
                return
        raise AssertionError(f"not settled: {json.dumps(self.state, indent=1)}")

    # The user

    def serve(self, **fields: Any) -> None:
        """Applies the ModelServe; fields of its spec as in YAML, by default of model A."""
        spec = {"model": A} | fields
        known = self.api.objects.get((MODEL_SERVE.kind, NAME))
        if known is None:
            self.put(MODEL_SERVE, NAME, spec=spec)
        elif known["spec"] != spec:
            known["spec"] = spec
            known["metadata"]["generation"] += 1
            self.api._write(known)

    # Controllers of Deployments, and kubelets

    def control(self) -> bool:
        """Every Deployment takes a step; whether one did."""
        names = [name for kind, name in self.api.objects if kind == DEPLOYMENT.kind]
        return any([self.control_one(name) for name in names])

    def control_one(self, name: str) -> bool:
        """A pod is made, becomes ready, or goes; then the Deployment's status says so."""
        body = self.api.objects.get((DEPLOYMENT.kind, name))
        if body is None:
            return False
        moved = self._step(body)
        return self._report(body) or moved

    def _step(self, body: JsonObject) -> bool:
        spec = body["spec"]
        numbers, wanted = spec["strategy"]["rollingUpdate"], spec.get("replicas", 1)
        pods = self.pods(body["metadata"]["name"])
        new = [pod for pod in pods if pod["spec"]["revision"] == _revision(body)]
        ready = [pod for pod in pods if _is_ready(pod)]
        for pod in new:
            if not _is_ready(pod) and not pod["spec"]["is_broken"]:
                self._set_ready(pod)
                return True
        goers = sorted(pods, key=lambda pod: (pod in new, _is_ready(pod)))
        surplus = [pod for pod in goers if pod not in new] if len(new) <= wanted else goers
        for pod in surplus:
            if not _is_ready(pod) or len(ready) > max(wanted - numbers["maxUnavailable"], 0):
                self.api.remove(pod)
                return True
        if len(new) < wanted and len(pods) < wanted + numbers["maxSurge"]:
            self._make_pod(body)
            return True
        return False

    def _make_pod(self, body: JsonObject) -> None:
        template, name = body["spec"]["template"], body["metadata"]["name"]
        owner = {"kind": "Deployment", "name": name, "uid": body["metadata"]["uid"], "controller": True}
        number = len(self.api.made)
        metadata = copy.deepcopy(template["metadata"]) | {"name": f"{name}-{number}", "ownerReferences": [owner]}
        model = body["metadata"]["annotations"].get("alidade.dev/served-model", "")
        spec = {"revision": _revision(body), "model": model, "is_broken": model == BROKEN["uri"]}
        running = {"name": "server", "state": {"running": {"startedAt": "2026-11-21T12:00:00Z"}}}
        status = {"phase": "Running", "podIP": f"10.0.0.{number}", "containerStatuses": [running]}
        self.api._create(POD, {"kind": "Pod", "metadata": metadata, "spec": spec})
        self.api.objects[POD.kind, metadata["name"]]["status"] = status
        self.api._write(self.api.objects[POD.kind, metadata["name"]])

    def _set_ready(self, pod: JsonObject) -> None:
        pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
        self.api._write(pod)

    def _report(self, body: JsonObject) -> bool:
        pods = self.pods(body["metadata"]["name"])
        ready = sum(1 for pod in pods if _is_ready(pod))
        status = {
            "replicas": len(pods),
            "updatedReplicas": sum(1 for pod in pods if pod["spec"]["revision"] == _revision(body)),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "observedGeneration": body["metadata"]["generation"],
        }
        if body.get("status") == status:
            return False
        body["status"] = status
        self.api._write(body)
        return True

    def pods(self, deployment: str) -> list[JsonObject]:
        """Pods of a Deployment."""
        body = self.api.objects.get((DEPLOYMENT.kind, deployment))
        uid = body["metadata"]["uid"] if body is not None else ""
        return [
            pod
            for (kind, _), pod in self.api.objects.items()
            if kind == POD.kind and pod["metadata"]["ownerReferences"][0]["uid"] == uid
        ]

    # What pods tell

    def count(self, *, canary: tuple[int, int] = (0, 0), stable: tuple[int, int] = (0, 0), **more: Any) -> None:
        """Every gateway pod tells requests and errors of both sides; more: p95 of each in seconds, waiting, running."""
        for pod in self.pods(GATEWAY):
            is_trial = bool(pod["metadata"]["annotations"].get("alidade.dev/canary"))
            sides = GatewayBackends(
                stable=BackendCounts(requests=stable[0], errors=stable[1], seconds_p95=more.get("stable_p95")),
                canary=BackendCounts(requests=canary[0], errors=canary[1], seconds_p95=more.get("canary_p95"))
                if is_trial
                else None,
            )
            document = GatewayDocument(
                started_at=self.now,
                waiting=more.get("waiting", 0),
                running=more.get("running", 0),
                last_request_at=more.get("last_request_at"),
                backends=sides,
            )
            self.operator._serving.documents[pod["metadata"]["uid"]] = document
        self.line.add(KEY)

    def load(self, waiting: int = 0, running: int = 0) -> None:
        """Every replica tells its load."""
        for pod in self.pods(STABLE):
            self.operator._serving.documents[pod["metadata"]["uid"]] = ReplicaLoad(waiting, running)
        self.line.add(KEY)

    # What can be read

    @property
    def state(self) -> JsonObject:
        """The status."""
        status: JsonObject = self.api.objects[MODEL_SERVE.kind, NAME].get("status", {})
        return status

    @property
    def truths(self) -> dict[str, tuple[str, str]]:
        """Status and reason of every condition."""
        return {one["type"]: (one["status"], one["reason"]) for one in self.state["conditions"]}

    def told_of(self, kind: str) -> str:
        """The message of a condition."""
        return next(str(one["message"]) for one in self.state["conditions"] if one["type"] == kind)

    def there(self, kind: Kind) -> list[str]:
        """Names of what there is of a kind."""
        return self.names(kind)

    def body(self, kind: Kind, name: str = NAME) -> JsonObject:
        """An object."""
        return self.api.objects[kind.kind, name]

    def replicas(self, name: str = STABLE) -> int:
        """Replicas that a Deployment is to have."""
        return int(self.body(DEPLOYMENT, name)["spec"]["replicas"])

    def models(self, name: str = STABLE) -> set[str]:
        """Models that the ready pods of a Deployment serve."""
        return {pod["spec"]["model"] for pod in self.pods(name) if _is_ready(pod)}

    def front(self) -> str:
        """The component that clients are led to."""
        return str(self.body(SERVICE)["spec"]["selector"]["app.kubernetes.io/component"])

    def gateway_env(self) -> dict[str, str]:
        """What the gateway is told."""
        (container,) = self.body(DEPLOYMENT, GATEWAY)["spec"]["template"]["spec"]["containers"]
        return {
            one["name"].removeprefix("ALIDADE_GATEWAY_"): one["value"] for one in container["env"] if "value" in one
        }

    def reasons(self) -> list[str]:
        """Reasons of all events, in order."""
        return [one["reason"] for one in self.api.events]


def _is_ready(pod: JsonObject) -> bool:
    return any(one["type"] == "Ready" for one in pod["status"].get("conditions", []))


def _revision(body: JsonObject) -> str:
    return json.dumps(body["spec"]["template"], sort_keys=True)
