"""What holds of runs whatever happens: random walks of users, trainers, watches and clocks."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from alidade_crds.contract import ResultDocument
from alidade_operator.api import (
    ALIGNMENT_RUN,
    CLAIM,
    EVALUATION,
    FINE_TUNE_JOB,
    MODEL_SERVE,
    PYTORCH_JOB,
    REWARD_MODEL,
    JsonObject,
)
from alidade_operator.cache import Key
from tests.operator.builders import failure, success
from tests.operator.memory import NAMESPACE, SFT, true
from tests.operator.test_alignmentrun import EVALUATE, PROGRAM, SAFETY
from tests.operator.walk import Walk

RUNS = ("demo", "other")
VARIANTS: list[dict[str, Any]] = [
    {},
    {"suspend": True},
    {"prompts": {"uri": "pvc://data/other.json"}},
    {"sft": {"template": {**SFT["template"], "training": {"epochs": 1}}}},
    {"rewardModels": [SAFETY]},
    {"rewardModels": [PROGRAM], "align": [{"raft": {}}, {"ppo": {}}]},
    {"compute": {"nodePool": "nowhere"}},
    {"sft": {"template": {**SFT["template"], "dataset": {"uri": "pvc://nowhere/sft.json"}}}, "suspend": True},
    {"sft": {"template": {**SFT["template"], "dataset": {"uri": "pvc://nowhere/sft.json"}}}},
    {"evaluation": EVALUATE, "gate": [{"metric": "perplexity", "atMost": {"value": 20}}], "serve": {"template": {}}},
    {"activeDeadlineSeconds": 1000, "backoffLimit": 0},
]  # fmt: skip
OUTCOMES: list[tuple[int, ResultDocument]] = [
    (0, success()),
    (75, failure("WorkerLost", retryable=True)),
    (1, failure()),
]
REMOVABLE = (FINE_TUNE_JOB, REWARD_MODEL, PYTORCH_JOB, EVALUATION)


class Runs(Walk):
    """Two runs, and everybody else."""

    def __init__(self) -> None:
        super().__init__()
        self.settled: dict[str, tuple[int, dict[str, JsonObject]]] = {}

    @rule(rounds=st.integers(1, 20), aligns=st.booleans())
    def go_on(self, rounds: int, aligns: bool) -> None:
        """For a while everything goes as it should; aligns: alignments too."""
        for _ in range(rounds):
            self.deliver(1000)
            if self.line.ready():
                self.work(0)
            else:
                self._play(aligns=aligns)
            self.nothing_is_broken()

    # Everybody else

    @rule(name=st.sampled_from(RUNS), blocks=st.sampled_from(VARIANTS))
    def apply(self, name: str, blocks: dict[str, Any]) -> None:
        """A user applies a run, or changes it."""
        self.cluster.apply(name, **blocks)

    @rule()
    def claim(self) -> None:
        """The claim that some specs name appears, or goes."""
        if "nowhere" in self.cluster.names(CLAIM):
            self.cluster.api.remove(self.cluster.api.objects["PersistentVolumeClaim", "nowhere"])
        else:
            self.cluster.put(CLAIM, "nowhere")

    @rule(which=st.integers(0, 9))
    def start_pods(self, which: int) -> None:
        """The training operator and the kubelet start a job."""
        waiting = [name for name in self._jobs() if not self._pods(name)]
        if waiting:
            self.cluster.run_pod(waiting[which % len(waiting)])

    @rule(which=st.integers(0, 9), outcome=st.sampled_from(OUTCOMES))
    def end_pods(self, which: int, outcome: tuple[int, ResultDocument]) -> None:
        """A training process ends."""
        running = [name for name in self._jobs() if self._pods(name)]
        if running:
            self._end(running[which % len(running)], *outcome)

    def _end(self, job: str, exit_code: int, result: ResultDocument) -> None:
        if result.model is not None:
            base = job.rpartition("-")[0]
            result = result.model_copy(update={"model": result.model.model_copy(update={"digest": f"sha256:{base}"})})
        self.cluster.end_pod(job, result, exit_code=exit_code)

    @precondition(lambda self: self.cluster.names(EVALUATION))
    @rule(ends=st.sampled_from(["Succeeded", "Failed"]), perplexity=st.sampled_from([10, 30]))
    def evaluate(self, ends: str, perplexity: float) -> None:
        """The evaluations that are under way come to an end."""
        for name in self.cluster.names(EVALUATION):
            conditions = self.cluster.api.objects["Evaluation", name].get("status", {}).get("conditions", [])
            if not any(one["type"] in ("Succeeded", "Failed") for one in conditions):
                result = {"suite": "p", "metric": "perplexity", "model": "aligned", "value": perplexity, "n": 1}
                kept = {"conditions": [*conditions, true(ends)], "results": [result]}
                self.cluster.write_status(EVALUATION, name, **kept)

    @precondition(lambda self: self.cluster.names(MODEL_SERVE))
    @rule()
    def serve(self) -> None:
        """Every ModelServe answers with what it was told."""
        for name in self.cluster.names(MODEL_SERVE):
            body = self.cluster.api.objects["ModelServe", name]
            known = [one for one in body.get("status", {}).get("conditions", []) if one["type"] != "Available"]
            told = {"conditions": [*known, true("Available")], "observedGeneration": body["metadata"]["generation"]}
            if {**body.get("status", {}), **told} != body.get("status"):
                self.cluster.write_status(MODEL_SERVE, name, **told)

    @rule(kind=st.sampled_from(REMOVABLE), which=st.integers(0, 9))
    def remove(self, kind: Any, which: int) -> None:
        """Somebody deletes what a run has made."""
        names = self.cluster.names(kind)
        if names:
            self.cluster.api.remove(self.cluster.api.objects[kind.kind, names[which % len(names)]])

    # What always holds

    def _jobs(self) -> list[str]:
        """PyTorchJobs that have not ended."""
        ended = {"Succeeded", "Failed"}
        return [
            name
            for name in self.cluster.names(PYTORCH_JOB)
            if not ended & {one["type"] for one in self._conditions("PyTorchJob", name)}
        ]

    def _pods(self, job: str) -> bool:
        return ("Pod", f"{job}-master-0") in self.cluster.api.objects

    def _conditions(self, kind: str, name: str) -> list[JsonObject]:
        conditions: list[JsonObject] = self.cluster.api.objects[kind, name].get("status", {}).get("conditions", [])
        return conditions

    def _never_two_live_jobs_for_one_resource(self) -> None:
        """Neither attempts of one job nor alignments of an old and a new spec."""
        live = [self.cluster.api.objects["PyTorchJob", name]["metadata"]["labels"] for name in self._jobs()]
        owners = [(labels["alidade.dev/kind"], labels["app.kubernetes.io/instance"]) for labels in live]
        assert len(owners) == len(set(owners)), owners

    def _never_two_live_resources_for_the_same_inputs(self) -> None:
        """Of one run or of several."""
        inputs = []
        for kind in (FINE_TUNE_JOB, REWARD_MODEL):
            for name in self.cluster.names(kind):
                true_ones = {one["type"] for one in self._conditions(kind.kind, name) if one["status"] == "True"}
                if not true_ones & {"Succeeded", "Failed"}:
                    labels = self.cluster.api.objects[kind.kind, name]["metadata"]["labels"]
                    inputs.append((kind.kind, labels["alidade.dev/inputs"]))
        assert len(inputs) == len(set(inputs)), inputs

    def _never_both_succeeded_and_failed(self) -> None:
        """And each condition once."""
        for name in self.cluster.names(ALIGNMENT_RUN):
            truths = [(one["type"], one["status"]) for one in self._conditions("AlignmentRun", name)]
            assert len({kind for kind, _ in truths}) == len(truths)
            assert not {("Succeeded", "True"), ("Failed", "True")} <= set(truths)

    def _stages_never_go_back_while_the_spec_stays(self) -> None:
        """What a stage has come to stays, with the model and the inputs that it had.

        Until a spec is accepted, the status tells of the stages of the one before, which go on till then.
        """
        for name in self.cluster.names(ALIGNMENT_RUN):
            status = self.cluster.status(name)
            generation = status.get("observedGeneration", 0)
            models = {
                stage["name"]: {field: stage.get(field) for field in ("model", "inputs", "ref")}
                for stage in status.get("stages", [])
                if "model" in stage
            }
            known_generation, known = self.settled.get(name, (0, {}))
            if generation == known_generation:
                assert {stage: models.get(stage) for stage in known} == known
            if generation == known_generation or self._has_begun(name):
                self.settled[name] = (generation, models)

    def _has_begun(self, name: str) -> bool:
        """Whether the spec that a status speaks of was accepted."""
        truths = {one["type"]: one["status"] for one in self._conditions("AlignmentRun", name)}
        accepted = truths.get("Accepted") == "True" and truths.get("Fits") != "False"
        return accepted or truths.get("SFTReady") == "True"

    def _what_is_launched_is_accepted(self) -> None:
        """A status that says both that a job runs and that its spec is refused helps nobody."""
        for name in self.cluster.names(ALIGNMENT_RUN):
            truths = {one["type"]: one["status"] for one in self._conditions("AlignmentRun", name)}
            assert truths.get("Launched") != "True" or truths["Accepted"] == "True", truths

    def _a_stage_is_that_of_the_spec(self) -> None:
        """What a run calls ready was made from what its spec says now."""
        for name in self.cluster.names(ALIGNMENT_RUN):
            run = self.cluster.api.objects["AlignmentRun", name]
            status = self.cluster.status(name)
            if status.get("observedGeneration") != run["metadata"]["generation"]:
                continue
            ready = {one["type"] for one in status["conditions"] if one["status"] == "True"}
            stages = [one for one in status.get("stages", []) if one["name"] == "sft" and "SFTReady" in ready]
            for stage in stages:
                made = self.cluster.api.objects.get(("FineTuneJob", stage["ref"]))
                if made is not None:
                    assert made["spec"]["dataset"]["uri"] == run["spec"]["sft"]["template"]["dataset"]["uri"]

    # What comes of it all

    def teardown(self) -> None:
        """Once the users want what can be had, and trainers succeed, every run does, told of it by the line alone."""
        self.cluster.api.troubles = []
        # What had failed by then is known; a failure that is heard of later counts for the new spec.
        self._catch_up()
        runs = self.cluster.names(ALIGNMENT_RUN)
        for number, name in enumerate(runs):
            self.cluster.apply(name, backoffLimit=20 + number)
        for _ in range(400):
            self.deliver(1000)
            if self.line.ready():
                self.work(0)
            elif not self._play() and not self.skip():
                break
            self.nothing_is_broken()
        for name in runs:
            truths = self.cluster.truths(name)
            assert (truths["Succeeded"], truths["Failed"]) == ("True", "False"), self.cluster.status(name)
            self.cluster.tell_all()
            assert self.cluster.settle(name) == [], "a second look changes nothing"
        assert not self._jobs()

    @invariant()
    def nothing_is_broken(self) -> None:
        """The rules above."""
        self._never_two_live_jobs_for_one_resource()
        self._never_two_live_resources_for_the_same_inputs()
        self._never_both_succeeded_and_failed()
        self._stages_never_go_back_while_the_spec_stays()
        self._a_stage_is_that_of_the_spec()
        self._what_is_launched_is_accepted()

    def _catch_up(self) -> None:
        for _ in range(100):
            self.deliver(1000)
            if not self.line.ready():
                self._every_spec_was_taken_up()
                return
            self.work(0)
            self.nothing_is_broken()
        raise AssertionError(f"never quiet: {self.line.due}")

    def _every_spec_was_taken_up(self) -> None:
        """When all has been told and all work is done, whoever is not in line has been looked at as it is now."""
        for kind in (ALIGNMENT_RUN, FINE_TUNE_JOB, REWARD_MODEL):
            for name in self.cluster.names(kind):
                if Key(kind.kind, NAMESPACE, name) not in self.line.due:
                    body = self.cluster.api.objects[kind.kind, name]
                    assert body["status"]["observedGeneration"] == body["metadata"]["generation"], name

    def _play(self, *, aligns: bool = True) -> bool:
        """Whether there was something to do for a trainer; aligns: alignments are brought to their end too."""
        before = len(self.cluster.api.log)
        for job in self._jobs():
            if not self._pods(job):
                self.cluster.run_pod(job)
            if aligns or "-align-" not in job:
                self._end(job, 0, success())
        return len(self.cluster.api.log) > before


TestRuns = Runs.TestCase
TestRuns.settings = settings(
    max_examples=50,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# Walks that have been found to go wrong


NOWHERE = {"template": {**SFT["template"], "dataset": {"uri": "pvc://nowhere/sft.json"}}}


def started(name: str = "demo") -> Runs:
    """A run that has been applied, with an operator that knows of it."""
    walk = Runs()
    walk.apply(name=name, blocks={})
    walk.start_operator()
    return walk


def test_stages_of_an_older_spec_are_told_of_until_the_new_one_is_accepted() -> None:
    walk = started()
    walk.go_on(rounds=14, aligns=True)
    before = walk.cluster.status("demo")["stages"]
    walk.apply(name="demo", blocks={"sft": NOWHERE, "suspend": True})
    walk.go_on(rounds=3, aligns=False)
    status = walk.cluster.status("demo")
    assert (status["observedGeneration"], status["stages"]) == (2, before)
    assert walk.cluster.truths("demo")["Accepted"] == "False"
    walk.claim()
    walk.go_on(rounds=12, aligns=True)
    assert not any("model" in stage for stage in walk.cluster.status("demo")["stages"])
    walk.teardown()


def test_a_failure_while_the_newest_spec_is_refused_does_not_end_the_next_one() -> None:
    walk = started("other")
    walk.go_on(rounds=15, aligns=False)
    walk.end_pods(which=0, outcome=OUTCOMES[2])
    walk.apply(name="other", blocks={"compute": {"nodePool": "nowhere"}})
    walk.teardown()


def test_a_change_that_comes_back_with_our_own_write_is_taken_up() -> None:
    """The cache has it from the answer to a write of the status by the time that the watch tells of it."""
    walk = started()
    walk.apply(name="demo", blocks={"suspend": True})
    walk.work(which=0)
    assert walk.cluster.status("demo")["observedGeneration"] == 1
    walk.deliver(most=1000)
    assert Key("AlignmentRun", NAMESPACE, "demo") in walk.line.ready()


def test_a_stage_whose_making_was_not_answered_is_not_made_by_another_run_too() -> None:
    walk = Runs()
    for name in RUNS:
        walk.apply(name=name, blocks={})
    walk.start_operator()
    # The first run's SFT is made; neither the answer nor the watch tells the operator.
    walk.trouble(["unanswered"])
    for _ in RUNS:
        walk.work(which=0)
    assert len(walk.cluster.names(FINE_TUNE_JOB)) == 1
    walk.teardown()
