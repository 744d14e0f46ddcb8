"""Alerts fire when they should and only then; what they read exists, and each has a page to turn to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import yaml

from tests.charts.promql import exists, metrics_of
from tests.charts.rendering import ROOT, Json, render, the

promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is not installed; on Debian `python tools/prometheus.py .tools/bin` fetches it",
)

ON: Json = {"monitoring": {"enabled": True}}


def groups(values: Json = ON) -> list[Json]:
    found: list[Json] = the(render(values), "PrometheusRule")["spec"]["groups"]
    return found


def rules(values: Json = ON) -> list[Json]:
    return [rule for group in groups(values) for rule in group["rules"]]


def alerts(values: Json = ON) -> list[Json]:
    return [rule for rule in rules(values) if "alert" in rule]


def written(folder: Path, values: Json = ON) -> Path:
    """The rules as a file that Prometheus reads."""
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": groups(values)}))
    return path


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120, check=False)


THRESHOLDS = {
    "stalledAfterSeconds": 600,
    "checkpointAgeSeconds": 900,
    "queuedAfterSeconds": 60,
    "lossSpikeRatio": 1.5,
    "servingObjective": 0.999,
    "firstTokenSeconds": 0.5,
    "requestsWaiting": 7.5,
}


@promtool
@pytest.mark.parametrize("thresholds", [{}, THRESHOLDS])
def test_promtool_reads_the_rules(thresholds: Json, tmp_path: Path) -> None:
    values = {"monitoring": {"enabled": True, "rules": {"thresholds": thresholds}}}
    done = run("check", "rules", str(written(tmp_path, values)))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_threshold_is_put_in() -> None:
    text = json.dumps(groups({"monitoring": {"enabled": True, "rules": {"thresholds": THRESHOLDS}}}))
    assert re.findall(r"<[a-zA-Z]+>", text) == []
    for value in THRESHOLDS.values():
        assert re.search(rf"(?<![\d.]){re.escape(str(value))}(?![\d.])", text), f"{value} has no effect"


def test_rules_read_metrics_that_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    read = {name for rule in rules() for name in metrics_of(rule["expr"])}
    assert {name for name in read - recorded if not exists(name)} == set()
    assert len(read) > 30, "the names are found at all"


def test_what_is_no_metric_is_found_out() -> None:
    assert metrics_of('sum by (a) (rate(x_total{b="c"}[5m])) > 2 * y offset 1d or z:w{__name__=~"u|v"}') == {
        "x_total",
        "y",
        "z:w",
        "u",
        "v",
    }
    assert not exists("alidade_job_speed")
    assert not exists("alidade_job_loss_bucket"), "it is no histogram"
    assert not exists("tgi_request_duration"), "a histogram is read by its parts"


def test_every_alert_says_what_is_wrong_and_where_to_read_on() -> None:
    page = (ROOT / "docs" / "how-to" / "monitor.md").read_text()
    anchors = {line[4:].strip().lower() for line in page.splitlines() if line.startswith("### ")}
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning", "info")
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        place, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert place == "docs/how-to/monitor.md"
        assert anchor in anchors, f"docs/how-to/monitor.md has no headline {alert['alert']}"
    assert {anchor for anchor in anchors if anchor.startswith("alidade")} == {
        alert["alert"].lower() for alert in alerts()
    }


def test_alerts_can_be_labelled_linked_and_left_out() -> None:
    settings = {"labels": {"team": "ml"}, "runbookUrl": "https://wiki.example.com", "disabled": ["AlidadeGateFailed"]}
    chosen = alerts({"monitoring": {"enabled": True, "rules": settings}})
    assert len(chosen) == len(alerts()) - 1
    assert all(alert["labels"]["team"] == "ml" for alert in chosen)
    assert {alert["labels"]["severity"] for alert in chosen} == {"critical", "warning", "info"}
    assert chosen[0]["annotations"]["runbook_url"] == "https://wiki.example.com#alidadeoperatordown"


RUN = 'namespace="team-a",name="kbqa",kind="AlignmentRun"'
JOB = 'namespace="team-a",name="sft",kind="FineTuneJob"'
SERVE = 'namespace="team-a",name="chat",component="server"'
SERVED = 'namespace="team-a",name="chat",kind="ModelServe"'


def problem(of: str, condition: str, reason: str, values: str = "1x60") -> dict[str, str]:
    return {f'alidade_resource_problem{{{of},condition="{condition}",reason="{reason}",pod="a"}}': values}


def requests(ok: str, failed: str) -> dict[str, str]:
    return {
        f'modelserve_requests_total{{{SERVE},outcome="ok"}}': ok,
        f'modelserve_requests_total{{{SERVE},outcome="generation"}}': failed,
    }


def queue_waits(slow: str) -> dict[str, str]:
    name = "alidade_operator_queue_wait_seconds_bucket"
    return {f'{name}{{le="10"}}': "0x60", f'{name}{{le="30"}}': slow, f'{name}{{le="+Inf"}}': slow}


def first_tokens(slow: str) -> dict[str, str]:
    name = f"modelserve_time_to_first_token_seconds_bucket{{{SERVE}"
    return {f'{name},le="10"}}': "0x60", f'{name},le="30"}}': slow, f'{name},le="+Inf"}}': slow}


LEADER = 'alidade_operator_leader{namespace="alidade-system",pod='
STEP = f"alidade_job_step{{{JOB}}}"


@dataclass(frozen=True)
class Case:
    """Series, minute by minute, and the labels of the alerts of a name that fire at a time; none fire without."""

    alert: str
    at: str
    series: dict[str, str]
    firing: list[str] = field(default_factory=list)


CASES = [
    Case("AlidadeOperatorDown", "6m", {f'{LEADER}"a"}}': "0x10"}, ['severity="critical"']),
    Case("AlidadeOperatorDown", "6m", {f'{LEADER}"a"}}': "0x10", f'{LEADER}"b"}}': "1x10"}),
    Case(
        "AlidadeOperatorDown",
        "10m",
        {f'{LEADER}"a"}}': "1x4 0x10", f'{LEADER}"b"}}': "0x6 1x10"},  # a takeover is no outage
    ),
    Case("AlidadeTwoLeaders", "3m", {f'{LEADER}"a"}}': "1x9", f'{LEADER}"b"}}': "1x9"}, ['severity="critical"']),
    Case("AlidadeTwoLeaders", "3m", {f'{LEADER}"a"}}': "1x9", f'{LEADER}"b"}}': "0x9"}),
    Case(
        "AlidadeReconcilesFail",
        "30m",
        {'alidade_operator_reconciles_total{kind="FineTuneJob",outcome="error"}': "0+1x60"},
        ['kind="FineTuneJob",severity="warning"'],
    ),
    Case(
        "AlidadeReconcilesFail",
        "30m",
        {'alidade_operator_reconciles_total{kind="FineTuneJob",outcome="changed"}': "0+1x60"},
    ),
    Case(
        "AlidadeApiCallsFail",
        "20m",
        {
            'alidade_operator_api_calls_total{code="200"}': "0+5x60",
            'alidade_operator_api_calls_total{code="503"}': "0+1x60",
        },
        ['severity="warning"'],
    ),
    Case(
        "AlidadeApiCallsFail",
        "20m",
        {
            'alidade_operator_api_calls_total{code="200"}': "0+50x60",
            'alidade_operator_api_calls_total{code="404"}': "0+50x60",  # an answer like any other
            'alidade_operator_api_calls_total{code="503"}': "0+1x60",
        },
    ),
    Case(
        "AlidadeApiCallsForbidden",
        "25m",
        {'alidade_operator_api_calls_total{verb="GET",resource="pods",code="403"}': "0+1x60"},
        ['resource="pods",severity="warning"'],
    ),
    Case(
        "AlidadeApiCallsForbidden",
        "25m",
        {'alidade_operator_api_calls_total{verb="POST",resource="pods",code="403"}': "0+1x60"},  # a quota
    ),
    Case("AlidadeQueueBehind", "20m", queue_waits("0+9x60"), ['severity="warning"']),
    Case("AlidadeQueueBehind", "20m", queue_waits("0x60")),
    Case("AlidadeJobStalled", "40m", {STEP: "7x60"}, [f'{JOB},severity="warning"']),
    Case("AlidadeJobStalled", "20m", {STEP: "7x60"}),
    Case("AlidadeJobStalled", "40m", {STEP: "0+1x60"}),
    Case(
        "AlidadeJobStalled",  # sampling takes its time
        "40m",
        {f"alidade_job_step{{{RUN}}}": "7x60", f"alidade_job_iteration{{{RUN}}}": "1x20 2x40"},
    ),
    Case(
        "AlidadeLossNotFinite",
        "1m",
        {f"alidade_trainer_loss{{{JOB}}}": "2.1 NaN NaN"},
        [f'{JOB},severity="warning"'],
    ),
    Case("AlidadeLossNotFinite", "1m", problem(JOB, "Failed", "LossNotFinite"), [f'{JOB},severity="warning"']),
    Case("AlidadeLossNotFinite", "1m", {f"alidade_trainer_loss{{{JOB}}}": "2.1x5"}),
    Case("AlidadeLossSpike", "40m", {f"alidade_job_loss{{{JOB}}}": "2x30 9x30"}, [f'{JOB},severity="warning"']),
    Case("AlidadeLossSpike", "40m", {f"alidade_job_loss{{{JOB}}}": "9x10 2x50"}),
    Case(
        "AlidadeCheckpointTooOld", "130m", {f"alidade_trainer_step{{{JOB}}}": "0+1x200"}, [f'{JOB},severity="warning"']
    ),
    Case("AlidadeCheckpointTooOld", "60m", {f"alidade_trainer_step{{{JOB}}}": "0+1x200"}),
    Case(
        "AlidadeCheckpointTooOld",
        "150m",
        {
            f"alidade_trainer_step{{{JOB}}}": "0+1x200",
            f"alidade_trainer_checkpoint_timestamp_seconds{{{JOB}}}": "600x200",
        },
        [f'{JOB},severity="warning"'],
    ),
    Case(
        "AlidadeCheckpointTooOld",
        "150m",
        {
            f"alidade_trainer_step{{{JOB}}}": "0+1x200",
            f"alidade_trainer_checkpoint_timestamp_seconds{{{JOB}}}": "0+60x200",
        },
    ),
    Case("AlidadeKlCeiling", "1m", problem(RUN, "Aligned", "KlCeiling"), [f'{RUN},severity="warning"']),
    Case("AlidadeKlCeiling", "1m", problem(RUN, "Aligned", "RewardOverOptimized")),
    Case(
        "AlidadeRewardOverOptimized",
        "1m",
        problem(RUN, "Aligned", "RewardOverOptimized"),
        [f'{RUN},severity="warning"'],
    ),
    Case(
        "AlidadeAnswersCollapsed",
        "1m",
        problem(RUN, "Aligned", "LengthCollapsed"),
        [f'{RUN},reason="LengthCollapsed",severity="warning"'],
    ),
    Case(
        "AlidadeGateFailed",
        "1m",
        problem(RUN, "GatePassed", "MetricOutOfBounds"),
        [f'{RUN},reason="MetricOutOfBounds",severity="info"'],
    ),
    Case(
        "AlidadeResourceFailed",
        "1m",
        problem(JOB, "Failed", "BackoffLimitExceeded") | problem(RUN, "Failed", "StageFailed"),
        [
            f'{JOB},reason="BackoffLimitExceeded",severity="warning"',
            f'{RUN},reason="StageFailed",severity="warning"',
        ],
    ),
    Case("AlidadeResourceFailed", "1m", problem(SERVED, "Failed", "CanaryWorse")),  # which has an alert of its own
    Case(
        "AlidadeResourceRefused",
        "16m",
        problem(JOB, "Fits", "ExceedsMemory"),
        [f'{JOB},reason="ExceedsMemory",severity="info"'],
    ),
    Case("AlidadeResourceRefused", "10m", problem(JOB, "Fits", "ExceedsMemory")),
    Case(
        "AlidadeQueuedLong",
        "400m",
        {f"alidade_resource_queued_seconds{{{JOB}}}": "0+60x500"},
        [f'{JOB},severity="info"'],
    ),
    Case("AlidadeQueuedLong", "300m", {f"alidade_resource_queued_seconds{{{JOB}}}": "0+60x500"}),
    Case(
        "AlidadeServingDown", "16m", problem(SERVED, "Available", "NoReplicaReady"), [f'{SERVED},severity="critical"']
    ),
    Case("AlidadeServingDown", "10m", problem(SERVED, "Available", "NoReplicaReady")),
    Case("AlidadeServingErrorBudgetBurn", "12m", requests("0+1x500", "0+1x500"), [f'{SERVE},severity="critical"']),
    Case("AlidadeServingErrorBudgetBurn", "60m", requests("0+90x500", "0+10x500"), [f'{SERVE},severity="warning"']),
    Case("AlidadeServingErrorBudgetBurn", "60m", requests("0+995x500", "0+5x500")),
    Case("AlidadeFirstTokenSlow", "25m", first_tokens("0+9x60"), [f'{SERVE},severity="warning"']),
    Case("AlidadeFirstTokenSlow", "25m", first_tokens("0x60")),
    Case(
        "AlidadeRequestsWaiting",
        "15m",
        {f"modelserve_requests_waiting{{{SERVE}}}": "60x60"},
        [f'{SERVE},severity="warning"'],
    ),
    Case(
        "AlidadeRequestsWaiting",
        "15m",
        {f'vllm:num_requests_waiting{{{SERVE},engine="0"}}': "60x60"},
        [f'{SERVE},severity="warning"'],
    ),
    Case("AlidadeRequestsWaiting", "15m", {f"modelserve_requests_waiting{{{SERVE}}}": "6x60"}),
    Case("AlidadeCanaryWorse", "1m", problem(SERVED, "Progressing", "CanaryWorse"), [f'{SERVED},severity="info"']),
]


def passed(folder: Path, tests: list[Json], *, interval: str = "1m") -> None:
    """Has promtool run unit tests of the rules, evaluated at an interval."""
    path = folder / "tests.yaml"
    every = [{"interval": interval} | test for test in tests]
    unit_tests = {"rule_files": [str(written(folder))], "evaluation_interval": interval, "tests": every}
    path.write_text(yaml.safe_dump(unit_tests))
    done = run("test", "rules", str(path))
    assert done.returncode == 0, done.stdout + done.stderr


TOLD_FOR_A_DAY = {
    "AlidadeKlCeiling",
    "AlidadeRewardOverOptimized",
    "AlidadeAnswersCollapsed",
    "AlidadeGateFailed",
    "AlidadeResourceFailed",
    "AlidadeCanaryWorse",
}


def unit_test(case: Case) -> Json:
    firing = [f'ALERTS{{alertname="{case.alert}",alertstate="firing",{labels}}}' for labels in case.firing]
    return {
        "name": f"{case.alert} at {case.at}",
        "input_series": [{"series": series, "values": values} for series, values in case.series.items()],
        "promql_expr_test": [
            {
                "expr": f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}',
                "eval_time": case.at,
                "exp_samples": [{"labels": labels, "value": 1} for labels in firing],
            }
        ],
    }


@promtool
@pytest.mark.slow
def test_alerts_fire_when_they_should_and_only_then(tmp_path: Path) -> None:
    passed(tmp_path, [unit_test(case) for case in CASES])


@promtool
def test_what_has_happened_is_told_of_for_a_day(tmp_path: Path) -> None:
    """The resource stays as it is until somebody removes it."""
    once = [case for case in CASES if case.alert in TOLD_FOR_A_DAY and case.firing]
    assert {case.alert for case in once} == TOLD_FOR_A_DAY
    passed(tmp_path, [unit_test(replace(case, at="23h")) for case in once], interval="30m")
    passed(tmp_path, [unit_test(replace(case, at="25h", firing=[])) for case in once], interval="30m")


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    names = {alert["alert"] for alert in alerts()}
    assert {case.alert for case in CASES if case.firing} == names
    assert {case.alert for case in CASES if not case.firing} | TOLD_FOR_A_DAY == names


@promtool
def test_an_alert_reads_as_a_sentence(tmp_path: Path) -> None:
    labels = {"namespace": "team-a", "name": "sft", "kind": "FineTuneJob", "severity": "info"}
    annotations = {
        "summary": "FineTuneJob team-a/sft has been in its queue for 6h 40m 0s.",
        "description": "The queue has no quota left for it, or never will have enough.",
        "runbook_url": "docs/how-to/monitor.md#alidadequeuedlong",
    }
    passed(
        tmp_path,
        [
            {
                "input_series": [
                    {"series": f"alidade_resource_queued_seconds{{{JOB}}}", "values": "0+60x500"},
                ],
                "alert_rule_test": [
                    {
                        "eval_time": "400m",
                        "alertname": "AlidadeQueuedLong",
                        "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
                    }
                ],
            }
        ],
    )


VOCABULARY: list[tuple[dict[str, str], str, float]] = [
    ({f"modelserve_requests_running{{{SERVE},pod=\"a\"}}": "3x30",
      f"tgi_batch_current_size{{{SERVE},pod=\"a\"}}": "3x30"},
     "modelserve:requests_running:sum", 3),
    ({f"tgi_batch_current_size{{{SERVE},pod=\"a\"}}": "3x30", f"tgi_batch_current_size{{{SERVE},pod=\"b\"}}": "4x30"},
     "modelserve:requests_running:sum", 7),
    ({f"vllm:num_requests_running{{{SERVE}}}": "5x30"}, "modelserve:requests_running:sum", 5),
    ({f"vllm:generation_tokens_total{{{SERVE}}}": "0+120x30"}, "modelserve:generated_tokens:rate5m", 2),
    ({f"tgi_request_generated_tokens_sum{{{SERVE}}}": "0+120x30"}, "modelserve:generated_tokens:rate5m", 2),
    ({f"tgi_request_failure{{{SERVE},err=\"overloaded\"}}": "0+60x30"},
     'modelserve:requests:rate5m{outcome="overloaded"}', 1),
    ({f"tgi_request_success{{{SERVE}}}": "0+60x30"}, 'modelserve:requests:rate5m{outcome="ok"}', 1),
    ({f"vllm:request_success_total{{{SERVE},finished_reason=\"abort\"}}": "0+60x30"},
     'modelserve:requests:rate5m{outcome="cancelled"}', 1),
    ({f"modelserve_gateway_requests_total{{{SERVE},code=\"200\",backend=\"stable\"}}": "0+60x30",
      f"modelserve_gateway_requests_total{{{SERVE},code=\"502\",backend=\"canary\"}}": "0+20x30",
      f"modelserve_gateway_requests_total{{{SERVE},code=\"499\",backend=\"canary\"}}": "0+70x30"},
     "modelserve:errors:ratio_rate5m", 0.25),
    ({f"tgi_request_count{{{SERVE}}}": "0+60x30"}, "modelserve:errors:ratio_rate5m", 0),
]  # fmt: skip


@promtool
def test_every_engine_speaks_one_vocabulary(tmp_path: Path) -> None:
    tests = [
        {
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f"sum without (outcome) ({recorded})",
                    "eval_time": "20m",
                    "exp_samples": [{"labels": f"{{{SERVE}}}", "value": value}],
                }
            ],
        }
        for series, recorded, value in VOCABULARY
    ]
    passed(tmp_path, tests)
