"""Rules of conditions, events, log lines and times."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from alidade_crds.alignmentrun import AlignmentRunStatus, StageStatus
from alidade_crds.metric_names import JobMetric, OperatorMetric, ResourceMetric, ResultMetric, RunMetric
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import JobStatus, Progress
from alidade_operator import metrics
from alidade_operator.api import FINE_TUNE_JOB, ApiError
from alidade_operator.conditions import Conditions
from alidade_operator.controller import end_with
from alidade_operator.events import event_body
from alidade_operator.logs import JsonFormatter
from alidade_operator.reconcile.plan import Notice
from alidade_operator.reconcile.progress import duration
from alidade_operator.reconcile.usage import total_cost
from tests.operator.builders import NOW

RESOURCE = {"metadata": {"name": "demo", "namespace": "team-a", "uid": "u", "resourceVersion": "7"}}


def test_a_condition_keeps_its_date_until_its_status_flips() -> None:
    first = Conditions([], generation=1, now=NOW)
    first.set(ConditionType.LAUNCHED, "True", Reason.JOB_CREATED, "a")
    second = Conditions(first.list(), generation=2, now=NOW + timedelta(hours=1))
    second.set(ConditionType.LAUNCHED, "True", Reason.RUNNING, "b")
    [condition] = second.list()
    assert (condition.last_transition_time, condition.reason, condition.observed_generation) == (NOW, "Running", 2)
    second.set(ConditionType.LAUNCHED, "False", Reason.RETRYING, "c")
    assert second.list()[0].last_transition_time == NOW + timedelta(hours=1)


def test_the_same_notice_at_the_same_time_is_the_same_event() -> None:
    notice = Notice("Normal", "Running", "It runs.")
    first = event_body(FINE_TUNE_JOB, RESOURCE, notice, NOW)
    assert first == event_body(FINE_TUNE_JOB, RESOURCE, notice, NOW)
    later = event_body(FINE_TUNE_JOB, RESOURCE, notice, NOW + timedelta(seconds=1))
    assert later["metadata"]["name"] != first["metadata"]["name"]


def test_an_event_can_be_shown_by_kubectl_describe() -> None:
    body = event_body(FINE_TUNE_JOB, RESOURCE, Notice("Warning", "Failed", "x" * 5000), NOW)
    assert body["involvedObject"] == {
        "apiVersion": "alidade.dev/v1alpha1",
        "kind": "FineTuneJob",
        "name": "demo",
        "namespace": "team-a",
        "uid": "u",
        "resourceVersion": "7",
    }
    assert body["metadata"]["namespace"] == "team-a"
    assert len(body["message"].encode()) <= 1024
    assert (body["count"], body["firstTimestamp"]) == (1, "2026-11-21T12:00:00Z")


def test_a_log_line_is_json_with_its_fields_and_its_exception() -> None:
    record = logging.makeLogRecord({"msg": "launch", "action": "launch", "why": "größer", "levelname": "INFO"})
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["action"], line["why"], line["level"]) == ("launch", "launch", "größer", "info")
    assert "\n" not in JsonFormatter().format(record)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0, "0s"), (59, "59s"), (61, "1m"), (3780, "1h3m"), (180_000, "2d2h"), (float("inf"), None)],
)
def test_times_are_short(seconds: float | None, text: str | None) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("error", "fact"),
    [
        (ApiError(404, "NotFound", ""), "not_found"),
        (ApiError(409, "AlreadyExists", ""), "already_exists"),
        (ApiError(409, "Conflict", ""), "conflict"),
        (
            ApiError(403, "Forbidden", "unable to create new content in namespace x because it is being terminated"),
            "namespace_terminating",
        ),
    ],
)
def test_refusals_are_told_apart(error: ApiError, fact: str) -> None:
    facts = ("not_found", "already_exists", "conflict", "namespace_terminating")
    assert [name for name in facts if getattr(error, name)] == [fact]


def test_every_metric_name_is_exported_and_every_exported_one_has_a_name() -> None:
    names = set()
    for family in REGISTRY.collect():
        names |= {f"{family.name}_total" if family.type == "counter" else family.name}
    ours = {name for name in names if name.startswith("alidade_")}
    told = (*OperatorMetric, *JobMetric, *RunMetric, *ResourceMetric, *ResultMetric)
    assert ours == {str(metric) for metric in told}


async def test_a_task_that_should_run_for_ever_takes_the_process_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise RuntimeError("a mistake of ours")

    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    try:
        task = asyncio.create_task(fail(), name="alidade example")
        task.add_done_callback(end_with)
        await asyncio.wait_for(stopped.wait(), 60)
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
    assert "a mistake of ours" in caplog.text


def test_a_date_that_a_plan_takes_back_and_states_again_stays() -> None:
    first = Conditions([], generation=1, now=NOW)
    first.set(ConditionType.EVALUATED, "True", Reason.COMPLETED, "a")
    second = Conditions(first.list(), generation=2, now=NOW + timedelta(hours=1))
    second.set(ConditionType.EVALUATED, "False", Reason.WAITING, "b")
    second.set(ConditionType.EVALUATED, "True", Reason.COMPLETED, "a")
    assert second.list()[0].last_transition_time == NOW


def test_the_metrics_of_a_runs_steps_are_shown_by_step_and_go_with_it() -> None:
    gauges = metrics.JobGauges()
    steps = [StageStatus(name="1-raft", kind="Alignment", phase="Running", metrics={"reward": 0.5, "kl": 1.0})]
    sft = StageStatus(name="sft", kind="FineTuneJob", phase="Succeeded", metrics={"train_loss": 2.0})
    progress = Progress(step=3, total_steps=9, epoch=0, iteration=2, total_iterations=8, updated_at=NOW)
    gauges.show("AlignmentRun", "n", "run", AlignmentRunStatus(stages=[sft, *steps], progress=progress))
    labels = {"namespace": "n", "name": "run", "step": "1-raft", "metric": "reward"}
    assert REGISTRY.get_sample_value(RunMetric.ALIGNMENT, labels) == 0.5
    assert REGISTRY.get_sample_value(RunMetric.ALIGNMENT, labels | {"step": "sft", "metric": "train_loss"}) is None
    job = {"namespace": "n", "name": "run", "kind": "AlignmentRun"}
    assert REGISTRY.get_sample_value(JobMetric.ITERATION, job) == 2
    gauges.hide("AlignmentRun", "n", "run")
    assert REGISTRY.get_sample_value(RunMetric.ALIGNMENT, labels) is None
    assert REGISTRY.get_sample_value(JobMetric.ITERATION, job) is None


@pytest.mark.parametrize(
    ("costs", "total"),
    [
        ([], None),
        (["12.50 USD"], "12.50 USD"),
        (["1.25 USD", "2.50 USD"], "3.75 USD"),
        (["1.00 USD", "2.00 EUR", "1.00 USD"], "2.00 USD + 2.00 EUR"),
    ],
)
def test_costs_add_up_by_currency(costs: list[str], total: str | None) -> None:
    assert total_cost(costs) == total


def test_the_gauges_of_a_job_go_with_it() -> None:
    gauges = metrics.JobGauges()
    progress = Progress(step=3, total_steps=9, epoch=0.5, loss=1.5, updated_at=NOW)
    gauges.show("FineTuneJob", "n", "gone", JobStatus(attempts=1, progress=progress))
    labels = {"namespace": "n", "name": "gone", "kind": "FineTuneJob"}
    assert REGISTRY.get_sample_value(JobMetric.STEP, labels) == 3
    assert REGISTRY.get_sample_value(JobMetric.EVAL_LOSS, labels) is None
    gauges.hide("FineTuneJob", "n", "gone")
    assert REGISTRY.get_sample_value(JobMetric.STEP, labels) is None
    gauges.hide("FineTuneJob", "n", "gone")
