"""What holds of ModelServes whatever happens: what is served keeps serving until its successor answers.

Random walks of users, watches, Deployments, gateways, clocks and a failing API around the real controller.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from alidade_operator.api import DEPLOYMENT, MODEL_SERVE, SERVICE
from tests.operator.memory import TROUBLES
from tests.operator.served import BROKEN, CANARY, GATEWAY, NAME, STABLE, A, B, Served

MODELS = [A, B, BROKEN, {"uri": "pvc://lost/model"}, {"uri": "file:///a"}]
ROLLOUTS: list[dict[str, Any]] = [
    {},
    {"canaryPercent": 30, "analysis": {"minRequests": 5, "seconds": 10}},
    {"canaryPercent": 50, "previous": "keep"},
]
SCALES: list[dict[str, Any]] = [
    {},
    {"replicas": 2},
    {"autoscaling": {"min": 0, "max": 2, "scaleDownAfterSeconds": 20}},
    {"autoscaling": {"min": 1, "max": 3, "scaleDownAfterSeconds": 20}},
    {"autoscaling": {"min": 1, "max": 3, "provider": "hpa"}},
]
KINDS = [DEPLOYMENT.kind, SERVICE.kind, "NetworkPolicy"]


class ModelServes(RuleBasedStateMachine):
    """One ModelServe. Nothing is demanded before its first model has answered."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster = Served()
        self.cluster.serve()
        self.was_served = False
        self.was_idle = False

    @rule(
        model=st.sampled_from(MODELS),
        rollout=st.sampled_from(ROLLOUTS),
        scale=st.sampled_from(SCALES),
        gateway=st.sampled_from([{}, {"gateway": {}}, {"gateway": {"replicas": 2}}]),
    )
    def apply(self, model: Any, rollout: Any, scale: Any, gateway: Any) -> None:
        """A user wants something else."""
        self.cluster.serve(model=model, rollout=rollout, **scale, **gateway)

    @rule(most=st.integers(1, 8))
    def deliver(self, most: int) -> None:
        """The watches tell some of what has happened."""
        self.cluster.deliver(most)

    @rule()
    def work(self) -> None:
        """The operator does what is due."""
        self.cluster.work()

    @rule(refused=st.sampled_from([[], [], *([kind] for kind in KINDS)]))
    def refuse(self, refused: list[str]) -> None:
        """A quota lets nobody make objects of a kind, or does so again."""
        self.cluster.api.refused = set(refused)

    @rule(troubles=TROUBLES)
    def trouble(self, troubles: list[str]) -> None:
        """The API server fails some of the operator's next calls, before or after it has carried them out."""
        self.cluster.api.troubles = troubles

    @rule()
    def restart(self) -> None:
        """The operator is another one."""
        self.cluster.start_operator()

    @rule(name=st.sampled_from([STABLE, CANARY, GATEWAY]), steps=st.integers(1, 4))
    def control(self, name: str, steps: int) -> None:
        """A Deployment takes some steps."""
        for _ in range(steps):
            self.cluster.control_one(name)

    @rule(requests=st.integers(0, 60), errors=st.integers(0, 60), waiting=st.integers(0, 3))
    def count(self, requests: int, errors: int, waiting: int) -> None:
        """Gateways and replicas tell what they have seen."""
        canary = (requests, min(errors, requests))
        self.cluster.count(canary=canary, stable=(60, 0), waiting=waiting)
        self.cluster.load(waiting=waiting)

    @rule(seconds=st.integers(1, 40))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.cluster.clock(seconds=seconds)

    @rule(rounds=st.integers(1, 30))
    def go_on(self, rounds: int) -> None:
        """For a while everything goes as it should."""
        for _ in range(rounds):
            self.cluster.deliver()
            if not self.cluster.work():
                self.cluster.control()

    @rule()
    def end(self) -> None:
        """Left alone, it comes to rest, in a phase that says what there is."""
        self.cluster.api.refused = set()
        self.cluster.api.troubles = []
        for _ in range(3):  # what was refused is tried again after a while
            self.cluster.clock(seconds=11)
            for _ in range(60):
                self.cluster.deliver()
                if not self.cluster.work() and not self.cluster.control():
                    break
        phase = self.cluster.state["phase"]
        spec = self.cluster.api.objects[MODEL_SERVE.kind, NAME]["spec"]
        model = spec["model"]
        # A model that never answers is asked for nothing, either: with min 0 its replicas go.
        unasked = ("Idle",) if (spec.get("autoscaling") or {}).get("min") == 0 else ()
        assert phase in {
            A["uri"]: ("Serving", "Canary", "Idle", "Failed"),
            B["uri"]: ("Serving", "Canary", "Idle", "Failed"),
            BROKEN["uri"]: ("Starting", "Updating", "Canary", *unasked),
        }.get(model["uri"], ("Waiting",)), self.cluster.state
        if phase == "Serving":
            assert self.cluster.models() == {model["uri"]}

    @invariant()
    def keeps_serving(self) -> None:
        """Clients are led to a replica that answers, or, where there may be none, to a gateway that holds them."""
        cluster = self.cluster
        stable = cluster.models()
        self.was_served |= bool(stable)
        if not self.was_served:
            return
        body = cluster.body(DEPLOYMENT)
        self.was_idle = not stable and (self.was_idle or body["spec"]["replicas"] == 0)
        if (SERVICE.kind, NAME) not in cluster.api.objects:
            assert not cluster.state.get("url"), "a Service that was there has gone"
            return
        gateways = cluster.models(GATEWAY)
        if self.was_idle:
            assert cluster.front() == "gateway"
            assert gateways
            return
        assert stable, "no replica is left"
        assert cluster.front() == "server" or gateways, "clients are led to a gateway that is not there"

    @invariant()
    def asks_only_what_is_there(self) -> None:
        """A canary stays while a gateway sends requests to it; only one that was worse goes before."""
        cluster = self.cluster
        asked = [pod for pod in cluster.pods(GATEWAY) if pod["metadata"]["annotations"]["alidade.dev/canary"]]
        if asked and "returned" not in cluster.state:
            assert (DEPLOYMENT.kind, CANARY) in cluster.api.objects


ModelServes.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
TestModelServes = ModelServes.TestCase
