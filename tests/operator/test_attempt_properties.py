"""What holds of the attempts of a resource whatever happens: a FineTuneJob's PyTorchJobs, and an Evaluation's Jobs.

The Evaluation measures the model of the FineTuneJob. Random walks of a user, the controllers of the jobs, kubelets,
watches, clocks and a failing API around the real controller.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from alidade_crds.contract import ResultDocument
from alidade_operator.api import EVALUATION, FINE_TUNE_JOB, JOB, POD, PYTORCH_JOB, JsonObject, Kind
from tests.operator.builders import INIT, evaluated, failure, success
from tests.operator.memory import true
from tests.operator.walk import Walk

NAMES = {FINE_TUNE_JOB: "tune", EVALUATION: "eval"}
SPECS: dict[Kind, JsonObject] = {
    FINE_TUNE_JOB: {"method": "pretrain", "model": INIT, "dataset": {"uri": "pvc://data/train.json"}},
    EVALUATION: {
        "models": [
            {"name": "base", "model": {"uri": "pvc://data/base"}},
            {"name": "tuned", "model": {"from": {"kind": "FineTuneJob", "name": "tune"}}},
        ],
        "suites": [{"type": "generation", "dataset": "pvc://data/questions.json"}],
    },
}
CHANGES: list[JsonObject] = [{}, {"suspend": True}, {"backoffLimit": 0}, {"activeDeadlineSeconds": 1000}]
ENDS = {"succeeds": (0, None), "is lost": (75, failure("WorkerLost", retryable=True)), "fails": (1, failure())}
WORKLOADS = (PYTORCH_JOB, JOB)


class Attempts(Walk):
    """Two resources, and everybody else."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[str, tuple[int, int, frozenset[str]]] = {}

    @initialize()
    def begin(self) -> None:
        """Both are applied."""
        for kind in NAMES:
            self.apply(kind, {})

    # Everybody else

    @rule(kind=st.sampled_from(list(NAMES)), change=st.sampled_from(CHANGES))
    def apply(self, kind: Kind, change: JsonObject) -> None:
        """The user applies a resource, or changes what of it may be changed."""
        spec, known = SPECS[kind] | change, self.cluster.api.objects.get((kind.kind, NAMES[kind]))
        if known is None:
            self.cluster.put(kind, NAMES[kind], spec=spec)
        elif known["spec"] != spec:
            known["spec"] = spec
            known["metadata"]["generation"] += 1
            self.cluster.api._write(known)

    @rule(kind=st.sampled_from([FINE_TUNE_JOB, EVALUATION, PYTORCH_JOB, JOB, POD]), which=st.integers(0, 9))
    def remove(self, kind: Kind, which: int) -> None:
        """Somebody deletes one of them, with what it owns."""
        names = self.cluster.names(kind)
        if names:
            name = names[which % len(names)]
            self.known.pop(name, None)
            self.cluster.api.remove(self.cluster.api.objects[kind.kind, name])

    @rule(which=st.integers(0, 9))
    def start(self, which: int) -> None:
        """A job's controller and the kubelet start its pod."""
        waiting = [(kind, name) for kind, name in self.live() if not self.pod(kind, name)]
        if waiting:
            self.run_pod(*waiting[which % len(waiting)])

    @rule(which=st.integers(0, 9), end=st.sampled_from(sorted(ENDS)))
    def end(self, which: int, end: str) -> None:
        """A job's process ends."""
        running = [(kind, name) for kind, name in self.live() if self.pod(kind, name)]
        if running:
            kind, name = running[which % len(running)]
            exit_code, result = ENDS[end]
            self.end_pod(kind, name, exit_code, result or (evaluated() if kind is JOB else success()))

    @rule(which=st.integers(0, 9))
    def lose(self, which: int) -> None:
        """A node goes with the pod on it: the job's controller finds it gone."""
        running = [(kind, name) for kind, name in self.live() if self.pod(kind, name)]
        if running:
            kind, name = running[which % len(running)]
            self.cluster.api.remove(self.cluster.api.objects[POD.kind, f"{name}-master-0"])
            self.cluster.write_status(kind, name, conditions=[true("Failed")], failed=1)

    # Both controllers of jobs

    def live(self) -> list[tuple[Kind, str]]:
        """Jobs that have not ended."""
        ended = {"Succeeded", "Complete", "Failed"}
        found = [(kind, name) for kind in WORKLOADS for name in self.cluster.names(kind)]
        return [one for one in found if not ended & self.truths(*one)]

    def truths(self, kind: Kind, name: str) -> set[str]:
        """Types of the conditions that hold."""
        status = self.cluster.api.objects[kind.kind, name].get("status", {})
        return {one["type"] for one in status.get("conditions", []) if one["status"] == "True"}

    def pod(self, kind: Kind, name: str) -> JsonObject | None:
        """The pod of a job; both are named alike here."""
        del kind
        return self.cluster.api.objects.get((POD.kind, f"{name}-master-0"))

    def run_pod(self, kind: Kind, name: str) -> None:
        """The pod of a job is made and runs."""
        if kind is PYTORCH_JOB:
            self.cluster.run_pod(name)
            return
        body = self.cluster.api.objects[kind.kind, name]
        labels = body["spec"]["template"]["metadata"]["labels"] | {
            "batch.kubernetes.io/job-name": name,
            "batch.kubernetes.io/job-completion-index": "0",
        }
        owner = {"kind": kind.kind, "name": name, "uid": body["metadata"]["uid"], "controller": True}
        state = {"running": {"startedAt": self.cluster.now.isoformat()}}
        status = {
            "phase": "Running",
            "podIP": "10.0.0.8",
            "containerStatuses": [{"name": "evaluation", "state": state}],
        }
        self.cluster.put(
            POD, f"{name}-master-0", metadata={"labels": labels, "ownerReferences": [owner]}, status=status
        )
        self.cluster.write_status(kind, name, ready=1, startTime=self.cluster.now.isoformat())

    def end_pod(self, kind: Kind, name: str, exit_code: int, result: ResultDocument) -> None:
        """The process of a pod ends with a result, and the job with it."""
        if kind is PYTORCH_JOB:
            self.cluster.end_pod(name, result, exit_code=exit_code)
            return
        now, pod = self.cluster.now.isoformat(), f"{name}-master-0"
        ended = {"exitCode": exit_code, "message": result.to_termination_message(), "startedAt": now, "finishedAt": now}
        states = [{"name": "evaluation", "state": {"terminated": ended}}]
        self.cluster.write_status(POD, pod, phase="Failed" if exit_code else "Succeeded", containerStatuses=states)
        self.cluster.write_status(kind, name, conditions=[true("Failed" if exit_code else "Complete")], ready=0)

    # What always holds

    @invariant()
    def one_attempt_at_a_time(self) -> None:
        """No resource has two attempts under way, nor two processes."""
        owners = [
            self.cluster.api.objects[kind.kind, name]["metadata"]["ownerReferences"][0]["uid"]
            for kind, name in self.live()
        ]
        assert len(owners) == len(set(owners)), owners

    @invariant()
    def ends_stay(self) -> None:
        """Never both succeeded and failed; an end stays while the spec does, and attempts are never taken back."""
        for kind, name in NAMES.items():
            body = self.cluster.api.objects.get((kind.kind, name))
            if body is None:
                continue
            status = body.get("status", {})
            ends = frozenset(self.truths(kind, name) & {"Succeeded", "Failed"})
            assert len(ends) < 2
            generation, attempts = status.get("observedGeneration", 0), status.get("attempts", 0)
            before = self.known.get(name, (0, 0, frozenset()))
            if generation == before[0]:
                assert before[2] <= ends, f"{name} was {before[2]}, and is {ends}"
            assert generation >= before[0]
            assert attempts >= before[1]
            self.known[name] = (generation, attempts, ends)

    def teardown(self) -> None:
        """Left alone, with processes that succeed, each comes to an end, and to rest."""
        self.cluster.api.troubles = []
        for kind in NAMES:
            self.apply(kind, {"backoffLimit": 20})
        for _ in range(300):
            self.deliver(1000)
            if self.line.ready():
                self.work(0)
            elif not self._play() and not self.skip():
                break
            self.one_attempt_at_a_time()
            self.ends_stay()
        tune, measured = (self.truths(kind, name) & {"Succeeded", "Failed"} for kind, name in NAMES.items())
        status = self.cluster.api.objects[EVALUATION.kind, "eval"]["status"]
        assert tune
        # One that names a job that has failed waits for it to be mended.
        assert measured or ("Failed" in tune and "ReferenceFailed" in str(status["conditions"])), status
        written = len(self.cluster.api.log)
        self.operator.enqueue_all()
        while self.line.ready():
            self.work(0)
        assert len(self.cluster.api.log) == written, "a second look changes nothing"

    def _play(self) -> bool:
        """Whether there was something to do for controllers of jobs."""
        live = self.live()
        for kind, name in live:
            if not self.pod(kind, name):
                self.run_pod(kind, name)
            self.end_pod(kind, name, 0, evaluated() if kind is JOB else success())
        return bool(live)


TestAttempts: Any = Attempts.TestCase
TestAttempts.settings = settings(
    max_examples=40, stateful_step_count=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
