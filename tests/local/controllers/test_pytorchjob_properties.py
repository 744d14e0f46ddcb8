"""What holds of PyTorchJobs whatever happens: random walks of users, pods, watches and clocks.

The rules are those of training-operator 1.9: its documentation of PyTorchJobs (replica types, restart policies,
runPolicy) and of job conditions.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from alidade_local.controllers.pods import is_active, phase_of
from alidade_local.controllers.pytorchjob import pytorchjob_planner
from alidade_local.controllers.pytorchjob_pods import replica_name, replica_specs, replicas_of
from alidade_local.objects import (
    Object,
    controller_reference,
    is_condition_true,
    is_deleting,
    name_of,
    uid_of,
)
from alidade_local.resources import PODS, PYTORCH_JOBS, SERVICES
from tests.local.controllers.playing import NAMESPACE, WALK, Walk, is_running, merged

NAME = "j"
FINAL = ("Succeeded", "Failed")
RESTART_POLICIES = ["Never", "ExitCode", "OnFailure"]
POLICIES: list[dict[str, Any]] = [
    {},
    {"cleanPodPolicy": "Running"},
    {"cleanPodPolicy": "All"},
    {"backoffLimit": 2},
    {"backoffLimit": 0},
    {"activeDeadlineSeconds": 20},
    {"ttlSecondsAfterFinished": 100},
]


class PyTorchJobs(Walk):
    """One PyTorchJob, or one after another of the same name."""

    planners = {PYTORCH_JOBS: ([PODS, SERVICES], pytorchjob_planner(lambda job: 20001))}

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0
        self.before: dict[str, Object] = {}
        self.made = 0
        self.causes: set[int | str | None] = set()
        """What has happened to pods of the present job: exit codes, None for an eviction."""

    # The user

    @initialize(
        master=st.booleans(),
        workers=st.integers(1, 2),
        restart_policy=st.sampled_from(RESTART_POLICIES),
        run_policy=st.sampled_from(POLICIES),
    )
    def create(self, master: bool, workers: int, restart_policy: str, run_policy: dict[str, Any]) -> None:
        """A user applies it."""
        template = {"spec": {"containers": [{"name": "pytorch", "image": "i"}]}}
        replica = {"restartPolicy": restart_policy, "template": template}
        replicas = {"Worker": {"replicas": workers, **replica}}
        if master:
            replicas["Master"] = {"replicas": 1, **replica}
        spec = {"pytorchReplicaSpecs": replicas, "runPolicy": {"suspend": False, **run_policy}}
        self.server.create_object(PYTORCH_JOBS, {"metadata": {"name": NAME, "namespace": NAMESPACE}, "spec": spec})
        self.causes = set()

    @precondition(lambda self: self.goes_on())
    @rule(values=st.sampled_from([[True], [False], [True, False]]))
    def suspend(self, values: list[bool]) -> None:
        """And perhaps resume it before its pods have ended."""
        self.go_on(6)
        for value in values:
            self._edit({"runPolicy": {"suspend": value}})
            self.control()

    def _edit(self, change: dict[str, Any]) -> None:
        job = self.parent(PYTORCH_JOBS, NAME)
        if job is not None:
            self.server.write(PYTORCH_JOBS, merged(job, {"spec": change}))

    @precondition(lambda self: self.goes_on())
    @rule(workers=st.integers(1, 3))
    def scale(self, workers: int) -> None:
        """The scale subresource is the number of workers."""
        self.settle()
        self._edit({"pytorchReplicaSpecs": {"Worker": {"replicas": workers}}})
        self.causes.add("scaled")  # a pod that is deleted while it runs counts as failed, as in the original
        self.come_to_rest()

    @rule(foreground=st.booleans())
    def delete(self, foreground: bool) -> None:
        job = self.parent(PYTORCH_JOBS, NAME)
        if job is not None:
            self.server.delete_object(PYTORCH_JOBS, job, foreground=foreground)

    @precondition(lambda self: not self.goes_on())
    @rule(
        master=st.booleans(),
        workers=st.integers(1, 2),
        restart_policy=st.sampled_from(RESTART_POLICIES),
        run_policy=st.sampled_from(POLICIES),
    )
    def follow(self, master: bool, workers: int, restart_policy: str, run_policy: dict[str, Any]) -> None:
        """Another job comes in its place, of whose pods some may still be there."""
        self.delete(foreground=False)
        if self.parent(PYTORCH_JOBS, NAME) is None:
            self.create(master, workers, restart_policy, run_policy)

    def goes_on(self) -> bool:
        """Whether there is a job that has not ended."""
        job = self.parent(PYTORCH_JOBS, NAME)
        return job is not None and not is_deleting(job) and not any(is_condition_true(job, kind) for kind in FINAL)

    # Pods

    def hit(self, pod: Object, how: int) -> None:
        """It ends in one way or another, its containers start anew in place, or somebody deletes it or its Service."""
        if how % 5 == 0:
            self.server.delete_object(PODS, pod)
            self.causes.add("deleted")
        elif how == 1 and (service := self.server.objects.get((SERVICES, name_of(pod)))) is not None:
            self.server.delete_object(SERVICES, service)
        elif how == 6 and pod["spec"]["restartPolicy"] == "OnFailure" and is_running(pod) and not is_deleting(pod):
            self.kubelet.restart(pod)
        elif is_running(pod):
            code = (0, 1, 137, None)[how % 4]
            self.kubelet.end(pod, code)
            self.causes.add(code)

    # What is to come of it

    def come_to_rest(self) -> None:
        """One pod and one Service a replica; none while it is suspended; after the end what cleanPodPolicy leaves."""
        self.settle()
        job = self.parent(PYTORCH_JOBS, NAME)
        pods, services = ({name_of(body) for body in self.server.all(kind)} for kind in (PODS, SERVICES))
        if job is None:
            assert (pods, services) == (set(), set())
            return
        ends = [kind for kind in FINAL if is_condition_true(job, kind)]
        policy = job["spec"]["runPolicy"]
        if ends:
            if policy.get("cleanPodPolicy") == "All":
                assert (pods, services) == (set(), set())
            if policy.get("cleanPodPolicy") == "Running":
                assert not self.pods(is_active)
            return
        assert is_condition_true(job, "Suspended") == policy["suspend"]
        wanted = set() if policy["suspend"] else {name for name in _replicas(job)}
        assert pods == wanted == services
        # What has ended and is not made anew would have ended the job, or is a worker beside a master that runs.
        for pod in self.pods(lambda pod: phase_of(pod) == "Failed"):
            raise AssertionError(f"{name_of(pod)} has failed, and nothing comes of it")

    @precondition(lambda self: self.goes_on())
    @rule(codes=st.sampled_from([[0, 1], [1, 0], [1], [137], [0, 137]]))
    def end(self, codes: list[int]) -> None:
        """All pods end at once, in one way or another."""
        self.settle()
        for pod, code in zip(self.pods(is_running), itertools.cycle(codes), strict=False):
            self.kubelet.end(pod, code)
            self.causes.add(code)
        self.control()

    @precondition(lambda self: self.goes_on())
    @rule()
    def succeed(self) -> None:
        """A job that may run succeeds once its processes do."""
        for _ in range(3):
            self.settle()
            for pod in self.pods(is_active):
                self.kubelet.end(pod, 0)
        self.settle()
        job = self.parent(PYTORCH_JOBS, NAME)
        if job is not None and not job["spec"]["runPolicy"]["suspend"]:
            assert is_condition_true(job, "Succeeded") or is_condition_true(job, "Failed")

    # What always holds

    def check(self) -> None:
        self.statuses_say_one_thing()
        self.only_what_may_fail_a_job_does()

    def statuses_say_one_thing(self) -> None:
        """Never both ends, never running and restarting; what has ended stays so; a failure has a cause."""
        log = self.server.log[PYTORCH_JOBS]
        for _, job in log[self.seen :]:
            before = self.before.get(uid_of(job))
            truths = [one["type"] for one in job["status"].get("conditions") or [] if one["status"] == "True"]
            types = [one["type"] for one in job["status"].get("conditions") or []]
            assert len(types) == len(set(types))
            assert not {"Succeeded", "Failed"} <= set(truths)
            assert not {"Running", "Restarting"} <= set(types)
            assert not ("Running" in truths and set(FINAL) & set(truths))
            if before is not None:
                ended = [kind for kind in FINAL if is_condition_true(before, kind)]
                assert all(kind in truths for kind in ended)
                if ended:
                    assert job["status"].get("completionTime") == before["status"]["completionTime"]
            for counts in (job["status"].get("replicaStatuses") or {}).values():
                assert all(value >= 0 for name, value in counts.items() if name != "selector")
            if set(FINAL) & set(truths):
                assert job["status"]["completionTime"]
            self.before[uid_of(job)] = job
        self.seen = len(log)

    def work(self, which: int) -> bool:
        """Whoever makes objects makes those of a replica, the job's own, and none for what is over or suspended."""
        before = {kind: len(self.server.log[kind]) for kind in (PODS, SERVICES)}
        present = {uid_of(body) for kind in before for body in self.server.all(kind)}
        job = next(iter(self.informers.of(PYTORCH_JOBS).all()), None)
        worked = super().work(which)
        for kind, count in before.items():
            for _, body in self.server.log[kind][count:]:
                if uid_of(body) in present:
                    continue
                assert job is not None
                assert body["metadata"]["ownerReferences"] == [
                    controller_reference(job, "kubeflow.org/v1", "PyTorchJob")
                ]
                assert name_of(body) in _replicas(job)
                assert not any(is_condition_true(job, kind) for kind in FINAL)
                assert not job["spec"]["runPolicy"]["suspend"]
        return worked

    def only_what_may_fail_a_job_does(self) -> None:
        """With ExitCode a job fails by an exit code below 128; an eviction or a signal makes the pod anew."""
        job = self.parent(PYTORCH_JOBS, NAME)
        if job is None or not is_condition_true(job, "Failed"):
            return
        policies = {spec["restartPolicy"] for spec in job["spec"]["pytorchReplicaSpecs"].values()}
        run = job["spec"]["runPolicy"]
        if "backoffLimit" not in run and "activeDeadlineSeconds" not in run:
            assert policies != {"OnFailure"}
            if policies == {"ExitCode"}:
                assert 1 in self.causes
            assert self.causes - {0}


def _replicas(job: Object) -> list[str]:
    """Names of the pods that a job asks for."""
    return [
        replica_name(job, replica_type, index)
        for replica_type, spec in replica_specs(job).items()
        for index in range(replicas_of(spec))
    ]


PyTorchJobs.TestCase.settings = WALK
TestPyTorchJobs = PyTorchJobs.TestCase
