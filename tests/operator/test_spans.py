"""Spans follow from what statuses say; a plan's statuses, one after the other, make the whole trace once."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.alignmentrun import AlignmentRunStatus, StageStatus
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import ChildRef, JobStatus
from alidade_operator.api import JsonObject
from alidade_operator.conditions import Conditions
from alidade_operator.config import ConfigError, OperatorConfig, read_config
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.spans import Change, Span, run_of, spans_of
from alidade_operator.tracing import Exporter, traces_url
from tests.operator.builders import NOW, after, ended_pod, failure, job, observed, plan, pod, success, training_job
from tests.operator.collector import collector

RUN_UID = "0b7b0e0e-run"
MADE = "2026-11-21T11:59:00Z"


def at(minutes: float) -> datetime:
    """So many minutes after the start."""
    return NOW + timedelta(minutes=minutes)


def body_of(resource: TrainingJob, **spec: Any) -> JsonObject:
    """The resource as the API has it."""
    metadata = {"name": resource.name, "namespace": resource.namespace, "uid": resource.uid, "creationTimestamp": MADE}
    return {"kind": resource.kind.kind, "metadata": metadata, "spec": spec, "status": resource.status.to_dict()}


class Story:
    """A job whose plans are carried out, and the spans that they come to."""

    def __init__(self, **blocks: Any) -> None:
        self.job = job(**blocks)
        self.spec = blocks
        self.spans: list[Span] = []

    def see(self, minutes: float, *, config: OperatorConfig | None = None, **seen: Any) -> None:
        """What a reconcile does that sees this; a second one, or another replica's, changes nothing any more."""
        for _ in range(2):
            made = plan(self.job, observed(**seen), now=at(minutes), **({"config": config} if config else {}))
            if made.status is not None:
                assert isinstance(made.status, JobStatus)
                change = Change(body_of(self.job, **self.spec), made.status, at(minutes), "local")
                self.spans += spans_of(change)
            self.job = after(self.job, made)

    def told(self) -> list[tuple[str, str, float, float, str]]:
        """Name, parent's name, minutes of start and end, and outcome of every span."""
        names = {span.id: span.name for span in self.spans}
        assert len(names) == len(self.spans), "no span is told twice"
        assert len({span.trace for span in self.spans}) == 1
        return [
            (
                span.name,
                names.get(span.parent, ""),
                *((time - NOW).total_seconds() / 60 for time in (span.start, span.end)),
                str(span.attributes.get("alidade.outcome", "")),
            )
            for span in self.spans
        ]


def test_a_failed_attempt_and_the_next_are_parts_of_one_trace() -> None:
    story = Story(compute={"gpusPerWorker": 4, "nodePool": "a100-80gb"}, backoffLimit=1)
    story.see(0)
    running = {"jobs": (training_job(active_since=at(0)),), "pods": (pod(started_at=at(2)),)}
    story.see(2, **running)
    lost = failure("WorkerLost", retryable=True, message="Rank 1 died.")
    ended = {
        "jobs": (training_job(state="failed", active_since=at(0), ended_at=at(5)),),
        "pods": (ended_pod(exit_code=75, result=lost, finished_at=at(5)),),
    }
    story.see(5, **ended)
    story.see(7, **ended)
    done = {
        "jobs": (training_job(2, state="succeeded", active_since=at(7), ended_at=at(20)),),
        "pods": (ended_pod(2, result=success(), finished_at=at(20)),),
    }
    story.see(20, **done)
    assert story.told() == [
        ("attempt", "FineTuneJob", 0, 5, "failed"),
        ("pods starting", "attempt", 0, 2, ""),
        ("attempt", "FineTuneJob", 7, 20, "succeeded"),
        ("FineTuneJob", "", 0, 20, "succeeded"),
    ]
    first, whole = story.spans[0], story.spans[-1]
    assert (first.error, first.attributes["alidade.reason"]) == ("Rank 1 died.", "WorkerLost")
    assert (first.attributes["alidade.attempt"], first.attributes["alidade.job"]) == (1, "demo-1")
    assert (whole.attributes["alidade.node_pool"], whole.attributes["alidade.gpus"], whole.error) == (
        "a100-80gb",
        4,
        "",
    )


def test_time_in_a_queue_is_part_of_the_attempt_that_waits() -> None:
    story = Story(compute={"queue": "team"})
    story.see(0)
    story.see(1, jobs=(training_job(state="suspended", active_since=None),))
    story.see(30, jobs=(training_job(active_since=at(30)),), pods=(pod(started_at=at(31)),))
    story.see(40, jobs=(training_job(state="succeeded", ended_at=at(40)),), pods=(ended_pod(result=success()),))
    assert story.told() == [
        ("queue", "attempt", 0, 30, ""),
        ("attempt", "FineTuneJob", 0, 40, "succeeded"),
        ("pods starting", "attempt", 30, 31, ""),
        ("FineTuneJob", "", 0, 40, "succeeded"),
    ]
    assert story.spans[0].attributes["alidade.queue"] == "team"


def test_a_suspension_ends_an_attempt_and_the_same_attempt_begins_anew() -> None:
    story = Story()
    story.see(0)
    running = {"jobs": (training_job(active_since=at(0)),)}
    story.see(1, **running)
    story.job = replace(story.job, spec=job(suspend=True).spec)
    story.see(2, **running)
    story.job = replace(story.job, spec=job().spec)
    story.see(10)
    story.see(15, jobs=(training_job(state="succeeded", ended_at=at(15)),), pods=(ended_pod(result=success()),))
    assert story.told() == [
        ("attempt", "FineTuneJob", 0, 2, "stopped"),
        ("suspended", "FineTuneJob", 2, 10, ""),
        ("attempt", "FineTuneJob", 10, 15, "succeeded"),
        ("FineTuneJob", "", 0, 15, "succeeded"),
    ]


def test_a_job_that_fails_for_good_says_why() -> None:
    story = Story(backoffLimit=0)
    story.see(0)
    ended = (ended_pod(exit_code=70, result=failure(), finished_at=at(3)),)
    story.see(3, jobs=(training_job(state="failed", ended_at=at(3)),), pods=ended)
    assert [(span.name, span.error) for span in story.spans] == [
        ("attempt", "Line 2 is broken."),
        ("FineTuneJob", "Line 2 is broken."),
    ]


def _run(*stages: StageStatus, ended: bool, **truths: tuple[float, Reason]) -> AlignmentRunStatus:
    """A run's status; truths: the conditions that hold, since so many minutes and why."""
    conditions = Conditions([], generation=1, now=NOW)
    for kind in (ConditionType.SUCCEEDED, ConditionType.FAILED):
        conditions.set(kind, "False", Reason.NOT_FINISHED, "")
    listed = conditions.list()
    for name, (minutes, reason) in truths.items():
        later = Conditions(listed, generation=1, now=at(minutes))
        later.set(next(kind for kind in ConditionType if kind == name), "True", reason, "")
        listed = later.list()
    return AlignmentRunStatus(
        conditions=listed, stages=list(stages), attempts=1, job_ref=ChildRef(kind="PyTorchJob", name="demo-1"),
        observed_generation=1, finished_at=at(60) if ended else None,
    )  # fmt: skip


def test_a_run_tells_its_steps_its_gate_and_its_rollout_when_it_ends() -> None:
    raft = StageStatus(name="1-raft", kind="Alignment", phase="Succeeded", started_at=at(10))
    ppo = StageStatus(name="2-ppo", kind="Alignment", phase="Succeeded", started_at=at(20), finished_at=at(40))
    rest = (
        StageStatus(name="sft", kind="FineTuneJob", phase="Succeeded", started_at=at(1), finished_at=at(9)),
        StageStatus(name="gate", kind="Gate", phase="Passed"),
        StageStatus(name="serve", kind="ModelServe", phase="Serving"),
    )
    done = {
        "Launched": (9, Reason.COMPLETED),
        "Aligned": (40, Reason.COMPLETED),
        "Evaluated": (50, Reason.COMPLETED),
        "GatePassed": (51, Reason.COMPLETED),
        "Served": (60, Reason.COMPLETED),
    }
    before = _run(raft, ppo, *rest, ended=False, **done)
    whole = _run(raft, ppo, *rest, ended=True, **done, Succeeded=(60, Reason.COMPLETED))
    metadata = {"name": "demo", "namespace": "team-a", "uid": RUN_UID, "creationTimestamp": MADE}
    body = {"kind": "AlignmentRun", "metadata": metadata, "status": before.to_dict()}
    root, *stages = spans_of(Change(body, whole, at(60), "local"))
    assert (root.name, root.parent, root.start, root.end) == ("AlignmentRun", 0, NOW, at(60))
    assert [(span.name, span.start, span.end, span.parent == root.id) for span in stages] == [
        ("1-raft", at(10), at(20), True),
        ("2-ppo", at(20), at(40), True),
        ("gate", at(50), at(51), True),
        ("serve", at(51), at(60), True),
    ]
    assert spans_of(Change(body | {"status": whole.to_dict()}, whole, at(61), "local")) == []
    # The job of a stage belongs to the run's trace, below the run.
    story = Story()
    owner = {"kind": "AlignmentRun", "name": "demo", "uid": RUN_UID, "controller": True}
    child = body_of(story.job)
    child["metadata"] |= {"ownerReferences": [owner], "labels": {"app.kubernetes.io/component": "sft"}}
    ended = _run(ended=True, Succeeded=(9, Reason.COMPLETED))
    (job_span,) = spans_of(Change(child, JobStatus(conditions=ended.conditions), at(9), "local", run_of(child, body)))
    assert (job_span.trace, job_span.parent, job_span.attributes["alidade.stage"]) == (root.trace, root.id, "sft")
    assert run_of(child, body | {"metadata": metadata | {"uid": "another"}}) is None


def test_a_collector_gets_spans_with_the_identifiers_that_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.cluster.name=a")
    root = Span(2**127 + 5, 7, 0, "FineTuneJob", NOW, at(1), {"alidade.name": "demo", "alidade.gpus": 4})
    child = Span(root.trace, 9, 7, "attempt", NOW, at(1), {"alidade.name": "demo"}, error="Rank 1 died.")
    with collector() as there:
        exporter = Exporter(OperatorConfig.model_validate({"tracing": {"endpoint": there.endpoint}}).tracing)  # type: ignore[arg-type]
        for span in (child, root):
            exporter.take(span)
        exporter.close()
    got, whole = there.of("demo")
    assert there.paths == {"/v1/traces"}
    assert (got.trace, got.id, got.parent) == (f"{root.trace:032x}", f"{9:016x}", f"{7:016x}")
    assert (got.error, got.service, got.end_s - got.start_s) == ("Rank 1 died.", "alidade", 60)
    assert (whole.trace, whole.parent, whole.attributes["alidade.gpus"]) == (got.trace, "", 4)


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://otel:4318", "http://otel:4318/v1/traces"),
        ("https://otel/", "https://otel/v1/traces"),
        ("https://otel/tempo/v1/traces", "https://otel/tempo/v1/traces"),
    ],
)
def test_an_endpoint_without_a_path_is_a_receivers(endpoint: str, url: str) -> None:
    assert traces_url(endpoint) == url


def test_tracing_without_its_packages_is_refused_with_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text("tracing: {endpoint: http://otel:4318}")
    assert read_config(path).tracing is not None
    monkeypatch.setattr("alidade_operator.config.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"alidade-operator\[tracing\]"):
        read_config(path)
