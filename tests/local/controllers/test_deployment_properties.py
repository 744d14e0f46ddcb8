"""What holds of Deployments and ReplicaSets whatever happens: random walks of users, pods, watches and clocks.

The rules are Kubernetes' page on Deployments ("Rolling Update Deployment", "Recreate Deployment", "Max Unavailable",
"Max Surge", "Pausing and Resuming a rollout of a Deployment", "Clean up Policy") and on ReplicaSets.
"""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from alidade_local.controllers.deployment import HASH_LABEL, deployment_planner, template_hash
from alidade_local.controllers.pods import FINISHED_PHASES, is_active, phase_of
from alidade_local.controllers.replicaset import available_at, replica_set_planner
from alidade_local.objects import Object, controller_reference, is_deleting, labels_of, uid_of
from alidade_local.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from tests.local.controllers.playing import NAMESPACE, STEPS, WALK, Walk, chosen, is_running, merged

NAME = "d"
ROLLING: list[dict[str, Any]] = [
    {"maxSurge": "25%", "maxUnavailable": "25%"},
    {"maxSurge": 1, "maxUnavailable": 0},
    {"maxSurge": 0, "maxUnavailable": "25%"},
    {"maxSurge": "100%", "maxUnavailable": "50%"},
]
RECREATE = {"type": "Recreate", "rollingUpdate": None}
STRATEGIES = [RECREATE, RECREATE, *({"type": "RollingUpdate", "rollingUpdate": rolling} for rolling in ROLLING)]


class Deployments(Walk):
    """One Deployment, or one after another of the same name."""

    planners = {
        DEPLOYMENTS: ([REPLICA_SETS], deployment_planner),
        REPLICA_SETS: ([PODS], replica_set_planner),
    }

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        """Pods that the ReplicaSets may ask for together."""
        self.least: int | None = None
        """Pods that stay available, as long as none fails by itself."""
        self.recreates = False
        """Whether it has been of the kind Recreate, and not paused, since all was at rest."""

    # The user

    @initialize(replicas=st.integers(0, 4), strategy=st.sampled_from(STRATEGIES), ready_s=st.sampled_from([0, 5]))
    def create(self, replicas: int, strategy: dict[str, Any], ready_s: int) -> None:
        """A Deployment, as the API server completes it."""
        template = {
            "metadata": {"labels": {"app": "x"}},
            "spec": {"restartPolicy": "Always", "containers": [{"name": "c", "image": "a"}]},
        }
        self.spec = {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "x"}},
            "template": template,
            "strategy": strategy,
            "minReadySeconds": ready_s,
            "revisionHistoryLimit": 1,
        }
        self._apply()

    def _apply(self) -> None:
        self.server.create_object(DEPLOYMENTS, {"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": self.spec})
        self._allow()

    def _allow(self) -> None:
        """What a spec allows counts from the moment it is written; what the one before allowed, until it is at rest."""
        deployment = self.parent(DEPLOYMENTS, NAME)
        assert deployment is not None
        most, least = bounds(deployment)
        self.most = max(self.most, most)
        self.least = None if self.least is None else min(self.least, least)
        spec = deployment["spec"]
        # A roll-out that is paused waits for nothing: its ReplicaSets are scaled in proportion, whoever is available.
        self.least = None if spec.get("paused") else self.least
        self.recreates &= spec["strategy"]["type"] == "Recreate" and not spec.get("paused")

    def _edit(self, change: dict[str, Any]) -> None:
        deployment = self.parent(DEPLOYMENTS, NAME)
        if deployment is not None:
            self.server.write(DEPLOYMENTS, merged(deployment, {"spec": change}))
            self._allow()

    @rule(image=st.sampled_from("abc"))
    def roll(self, image: str) -> None:
        """A new template, or back to an old one."""
        self._edit({"template": {"spec": {"containers": [{"name": "c", "image": image}]}}})

    @rule(image=st.sampled_from("abc"), replicas=st.none() | st.integers(1, 5))
    def roll_from_rest(self, image: str, replicas: int | None) -> None:
        """When nothing else is going on, so that the bounds are close; perhaps with another number at once."""
        self.come_to_rest()
        if replicas is not None:
            self.scale(replicas)
        self.roll(image)

    @rule(steps=STEPS, replicas=st.integers(1, 5))
    def pause_in_the_middle(self, steps: list[int], replicas: int) -> None:
        """And scale what there is then."""
        self.roll_from_rest("b", None)
        self.stroll(steps)
        self.pause(True)
        self.scale(replicas)
        self.control()

    @rule(replicas=st.integers(0, 5))
    def scale(self, replicas: int) -> None:
        self._edit({"replicas": replicas})

    @rule(strategy=st.sampled_from(STRATEGIES))
    def choose(self, strategy: dict[str, Any]) -> None:
        self._edit({"strategy": strategy})

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        self._edit({"paused": paused})

    @rule(foreground=st.booleans(), again=st.booleans())
    def delete(self, foreground: bool, again: bool) -> None:
        """It goes, and perhaps another comes in its place."""
        deployment = self.parent(DEPLOYMENTS, NAME)
        if deployment is not None:
            self.server.delete_object(DEPLOYMENTS, deployment, foreground=foreground)
            self.least, self.recreates = None, False
        if again and self.parent(DEPLOYMENTS, NAME) is None:
            self._apply()

    # Pods

    @rule(which=st.integers(0, 9), how=st.sampled_from(["probe", "evict", "delete"]))
    def fail(self, which: int, how: str) -> None:
        """A pod is not ready any more, is evicted, or somebody deletes it."""
        pod = chosen(self.pods(is_running), which)
        if pod is None:
            return
        self.least = None
        if how == "probe":
            self.kubelet.fail_probe(pod)
        elif how == "evict":
            self.kubelet.end(pod, None)
        else:
            self.server.delete_object(PODS, pod)

    @rule(which=st.integers(0, 9))
    def remove(self, which: int) -> None:
        """Somebody deletes a ReplicaSet."""
        replica_set = chosen(self.server.all(REPLICA_SETS), which)
        if replica_set is not None:
            self.server.delete_object(REPLICA_SETS, replica_set)
            self.least, self.recreates = None, False

    # What is to come of it

    def come_to_rest(self) -> None:
        """All pods are of the present template, as many as are asked for; old ReplicaSets are empty and few."""
        self.settle()
        deployment = self.parent(DEPLOYMENTS, NAME)
        if deployment is None:
            assert (self.server.all(REPLICA_SETS), self.pods()) == ([], [])
            self.most = 0
            return
        spec, status = deployment["spec"], deployment["status"]
        sets = self.server.all(REPLICA_SETS)
        if spec.get("paused"):
            assert sum(one["spec"]["replicas"] for one in sets) == len(self.pods())
            return
        present = [one for one in sets if labels_of(one)[HASH_LABEL] == template_hash(deployment)]
        assert [one["spec"]["replicas"] for one in present] == [spec["replicas"]]
        assert len(self.pods()) == spec["replicas"] == status.get("availableReplicas", 0)
        assert all(pod["spec"]["containers"] == spec["template"]["spec"]["containers"] for pod in self.pods())
        assert len(sets) <= 1 + spec["revisionHistoryLimit"]
        conditions = {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}
        assert conditions == {
            "Available": ("True", "MinimumReplicasAvailable"),
            "Progressing": ("True", "NewReplicaSetAvailable"),
        }
        assert status["observedGeneration"] == deployment["metadata"]["generation"]
        self.most, self.least = bounds(deployment)
        self.recreates = spec["strategy"]["type"] == "Recreate"

    # What always holds

    def check(self) -> None:
        self.there_are_never_too_many()
        self.enough_stay_available()

    def there_are_never_too_many(self) -> None:
        """The ReplicaSets never ask for more than `maxSurge` allows."""
        live = [one for one in self.server.all(REPLICA_SETS) if not is_deleting(one)]
        assert sum(one["spec"]["replicas"] for one in live) <= self.most

    def enough_stay_available(self) -> None:
        """No fewer than `maxUnavailable` allows."""
        deployment = self.parent(DEPLOYMENTS, NAME)
        if deployment is not None and self.least is not None:
            ready_s = deployment["spec"]["minReadySeconds"]
            since = [available_at(pod, ready_s) for pod in self.pods(is_active)]
            assert sum(moment is not None and moment <= self.server.now for moment in since) >= self.least

    def work(self, which: int) -> bool:
        """What is made belongs to whoever makes it; with Recreate no pod begins before all others have ended."""
        before = {kind: len(self.server.log[kind]) for kind in (REPLICA_SETS, PODS)}
        present = {uid_of(body) for kind in before for body in self.server.all(kind)}
        worked = super().work(which)
        for child, parent in ((REPLICA_SETS, DEPLOYMENTS), (PODS, REPLICA_SETS)):
            for _, body in self.server.log[child][before[child] :]:
                if uid_of(body) not in present:
                    reference = body["metadata"]["ownerReferences"][0]
                    owner = self.informers.of(parent).get((NAMESPACE, reference["name"]))  # type: ignore[arg-type]
                    assert owner is not None
                    assert body["metadata"]["ownerReferences"] == [
                        controller_reference(owner, parent.api_version, parent.kind)
                    ]
                    if child is PODS and self.recreates:
                        assert {_revision(pod) for pod in self.pods(_lives)} == {_revision(body)}
        return worked


def bounds(deployment: Object) -> tuple[int, int]:
    """The most pods that may be asked for, and the fewest that stay available."""
    wanted, strategy = deployment["spec"]["replicas"], deployment["spec"]["strategy"]
    if strategy["type"] == "Recreate":
        return wanted, 0

    def pods(value: int | str, rounded: Any) -> int:
        return int(rounded(wanted * int(value.rstrip("%")) / 100)) if isinstance(value, str) else value

    rolling = strategy["rollingUpdate"]
    surge = pods(rolling["maxSurge"], math.ceil)
    unavailable = pods(rolling["maxUnavailable"], math.floor)
    # Fenceposts: both may round to nothing, and then one may be unavailable.
    return wanted + surge, wanted - (unavailable or (0 if surge else 1))


def _lives(pod: Object) -> bool:
    return phase_of(pod) not in FINISHED_PHASES


def _revision(pod: Object) -> str:
    return labels_of(pod)[HASH_LABEL]


Deployments.TestCase.settings = WALK
TestDeployments = Deployments.TestCase
