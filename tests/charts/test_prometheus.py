"""A real Prometheus scrapes what the code exports, evaluates the rules, and has an answer for every panel."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from alidade_crds.alignmentrun import AlignmentRunStatus, StageStatus
from alidade_crds.evaluation import EvaluationResult, EvaluationStatus
from alidade_crds.status import Progress as ToldProgress
from alidade_gateway.metrics import Metrics as GatewayMetrics
from alidade_operator import metrics as operator_metrics
from alidade_operator import resourcegauges
from alidade_serving.metrics import Metrics as ServingMetrics
from alidade_trainer.progress import GpuMeter, Progress, StepMetrics
from alidade_trainer.progress_server import ProgressServer
from tests.charts.rendering import Json, of_kind, render, the
from tests.charts.test_dashboards import NAMES, dashboards, expressions
from tests.operator.builders import NOW
from tests.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("prometheus") is None,
        reason="prometheus is not installed; on Debian `python tools/prometheus.py .tools/bin` fetches it",
    ),
]

ON: Json = {"monitoring": {"enabled": True}}
RUN = {"namespace": "team-a", "name": "kbqa", "kind": "AlignmentRun"}
SERVE = {"namespace": "team-a", "name": "chat", "kind": "ModelServe"}


def operator_text() -> bytes:
    """What an operator tells that holds the lease, with a run under way, one in a queue and one in trouble."""
    since = (NOW - timedelta(minutes=3)).isoformat().replace("+00:00", "Z")

    def resource(name: str, kind: str, reason: str, **status: Any) -> Json:
        held = {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": since}
        return {
            "kind": "AlignmentRun",
            "metadata": {"name": name, "namespace": "team-a"},
            "status": {"conditions": [held], "gpuHours": 2.5 + time.monotonic() / 1e6, "cost": "9.75 USD"} | status,
        }

    queued, failed = ("later", "Suspended", "SuspendedByQueue"), ("broken", "Failed", "StageFailed")
    running = resource("kbqa", "Launched", "Running")
    resourcegauges.refresh([running, resource(*queued), resource(*failed)], NOW)
    operator_metrics.LEADER.set(1)
    operator_metrics.QUEUE_DEPTH.set(0)
    operator_metrics.QUEUE_WAIT.observe(0.01)
    operator_metrics.RESOURCES.labels("AlignmentRun", "Running").set(1)
    operator_metrics.RECONCILES.labels("AlignmentRun", "changed").inc()
    operator_metrics.RECONCILE_DURATION.labels("AlignmentRun").observe(0.02)
    for code in ("200", "404"):
        operator_metrics.API_CALLS.labels("GET", "pods", code).inc()
    operator_metrics.WATCH_EVENTS.labels("pods").inc()
    operator_metrics.RESYNC_REPAIRS.labels("pods").inc()
    operator_metrics.MISSING_KINDS.labels("trainjobs").set(1)
    for outcome in ("allowed", "denied"):
        operator_metrics.ADMISSIONS.labels("FineTuneJob", outcome).inc()
    operator_metrics.ADMISSION_DURATION.labels("FineTuneJob").observe(0.004)
    operator_metrics.PROGRESS_READS.labels("read").inc()
    operator_metrics.SERVING_READS.labels("read").inc()
    progress = ToldProgress(
        step=3, total_steps=9, epoch=0.3, loss=2.0, eval_loss=2.1, learning_rate=1e-5, tokens_per_second=10,
        iteration=1, total_iterations=6, updated_at=NOW,
    )  # fmt: skip
    names = (
        "reward", "acceptedReward", "penalisedReward", "kl", "klCoefficient", "acceptance", "eosRate", "responseLength",
        "entropy", "explainedVariance",
    )  # fmt: skip
    stage = StageStatus(name="1-raft", kind="Alignment", inputs="a", phase="Running", metrics=dict.fromkeys(names, 1.0))
    status = AlignmentRunStatus(attempts=1, progress=progress, stages=[stage])
    GAUGES.show("AlignmentRun", "team-a", "kbqa", status)
    result = EvaluationResult(suite="arc", metric="accuracy", model="base", value=0.5, low=0.4, high=0.6, n=9)
    RESULTS.show("team-a", "kbqa", EvaluationStatus(results=[result]))
    return generate_latest()


GAUGES, RESULTS = operator_metrics.JobGauges(), operator_metrics.ResultGauges()


def server_text() -> Callable[[], bytes]:
    """An embedded server that answers well nine times of ten."""
    metrics = ServingMetrics("chat")

    def text() -> bytes:
        for outcome in (*["ok"] * 9, "generation"):
            metrics.count.inc()
            metrics.outcome(outcome)
        for histogram in (metrics.duration, metrics.mean_time_per_token, metrics.first_token, metrics.per_token):
            histogram.observe(0.2)
        for counter in (metrics.prompt, metrics.reused, metrics.generated, metrics.drafted, metrics.accepted):
            counter.inc(5)
        metrics.ready.set(1)
        metrics.running.set(2)
        metrics.waiting.set(1)
        return metrics.text()

    return text


def gateway_text() -> Callable[[], bytes]:
    """A gateway with a canary that breaks one answer of two."""
    metrics = GatewayMetrics("chat")

    def text() -> bytes:
        for backend, code in (("stable", 200), ("stable", 200), ("canary", 200), ("canary", 502)):
            metrics.answered(backend, code)
            metrics.first_byte(backend, 0.1)
            metrics.whole(backend, 0.4)
        metrics.tried_in_vain("canary", "broken")
        metrics.held.observe(0.3)
        metrics.votes.inc()
        metrics.running.set(1)
        metrics.waiting.set(0)
        return metrics.text()

    return text


EVALUATION = b"alidade_evaluation_samples 5\nalidade_evaluation_total_samples 10\n"


@contextmanager
def exporter(text: Callable[[], bytes]) -> Iterator[str]:
    """The address at which a text is scraped."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = text()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def training() -> Iterator[str]:
    """A real progress server of a training job."""
    progress = Progress()
    server = ProgressServer(progress, host="127.0.0.1", port=0)
    progress.plan(total_steps=100, resumed_from_step=None, gpu_meter=GpuMeter(1e9, 312, 8))
    progress.record_evaluation(2.0, {"qa": 1.8, "web": 2.6})
    progress.record_checkpoint(1)
    stop = threading.Event()

    def steps() -> None:
        step = 0
        while not stop.wait(0.3):
            step += 1
            metrics = StepMetrics(step, 0.1, 2.0, 1e-5, 1.0, tokens=1000, seconds=0.3, losses={"qa": 1.9, "web": 2.4})
            progress.record_step(metrics, 12.0)
            server.observe_step(metrics)

    thread = threading.Thread(target=steps, daemon=True)
    thread.start()
    try:
        yield server.url.removeprefix("http://")
    finally:
        stop.set()
        thread.join()
        server.close()


def scrape(job: str, address: str, labels: Json, *, honor_labels: bool = False) -> Json:
    targets = [{"targets": [address], "labels": labels}]
    return {"job_name": job, "honor_labels": honor_labels, "static_configs": targets}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus with the rendered rules, which scrapes every second.

    Targets carry the labels that the rendered monitors give them.
    """
    folder = tmp_path_factory.mktemp("prometheus")
    objects = render(ON)
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": the(objects, "PrometheusRule")["spec"]["groups"]}))
    (endpoint,) = the(objects, "ServiceMonitor")["spec"]["endpoints"]
    with (
        exporter(operator_text) as operator,
        exporter(server_text()) as server,
        exporter(gateway_text()) as gateway,
        exporter(lambda: EVALUATION) as evaluation,
        training() as trainer,
    ):
        own = {"namespace": "alidade-system", "pod": "alidade-operator-0"}
        jobs = [
            scrape("operator", operator, own, honor_labels=endpoint["honorLabels"]),
            scrape("trainer", trainer, RUN | {"pod": "kbqa-1-master-0", "component": "trainer"}),
            scrape("evaluation", evaluation, RUN | {"pod": "kbqa-2-0", "component": "evaluation"}),
            scrape("server", server, SERVE | {"pod": "chat-a", "component": "server"}),
            scrape("gateway", gateway, SERVE | {"pod": "chat-gateway-a", "component": "gateway"}),
        ]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(folder / "rules.yaml")],
            "scrape_configs": jobs,
        }
        (folder / "prometheus.yml").write_text(json.dumps(config))
        port = free_port()
        command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
        with subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]) as process:
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                process.kill()
    # These gauges are the process's own: other tests look at them too.
    resourcegauges.refresh([], NOW)
    operator_metrics.MISSING_KINDS.clear()
    GAUGES.hide("AlignmentRun", "team-a", "kbqa")
    RESULTS.hide("team-a", "kbqa")


def ask(address: str, path: str, **query: str) -> Json | None:
    """The data of an answer; None while Prometheus starts. A query that it refuses is an error of ours."""
    try:
        with urllib.request.urlopen(f"{address}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            found: Json = json.load(answer)["data"]
            return found
    except urllib.error.HTTPError as error:
        if error.code == 503:  # it has not started yet
            return None
        raise AssertionError(f"{query}: {error.read().decode()}") from error
    except OSError:
        return None


def series(address: str, expr: str) -> list[Json]:
    answer = ask(address, "query", query=expr)
    found: list[Json] = answer["result"] if answer is not None else []
    return found


def eventually(check: Callable[[], Any], what: Callable[[], str] = lambda: "") -> Any:
    """The first answer that is true; fails after a minute with what there is instead."""
    until = time.monotonic() + 60
    while not (found := check()):
        assert time.monotonic() < until, f"not in time: {what()}"
        time.sleep(0.3)
    return found


def test_every_rule_is_evaluated_without_a_complaint(prometheus: str) -> None:
    def evaluated() -> list[Json]:
        answer = ask(prometheus, "rules")
        rules = [rule for group in (answer or {"groups": []})["groups"] for rule in group["rules"]]
        return rules if rules and all(rule["health"] != "unknown" for rule in rules) else []

    rules = eventually(evaluated)
    rendered = [rule for group in the(render(ON), "PrometheusRule")["spec"]["groups"] for rule in group["rules"]]
    assert len(rules) == len(rendered)
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}


def test_what_has_failed_fires_and_what_runs_does_not(prometheus: str) -> None:
    def firing() -> set[tuple[str, str]]:
        return {
            (one["metric"]["alertname"], one["metric"].get("name", ""))
            for one in series(prometheus, 'ALERTS{alertstate="firing"}')
        }

    eventually(lambda: ("AlidadeResourceFailed", "broken") in firing())
    assert firing() == {("AlidadeResourceFailed", "broken")}


def test_a_resources_namespace_is_not_the_operators(prometheus: str) -> None:
    """honorLabels: without it, the operator's own namespace would take its place."""
    found = eventually(lambda: series(prometheus, "alidade_resource_gpu_hours"))
    assert {one["metric"]["namespace"] for one in found} == {"team-a"}


def test_the_kind_of_memory_is_kept_beside_the_kind_of_the_resource(prometheus: str) -> None:
    found = eventually(lambda: series(prometheus, "alidade_trainer_memory_bytes"))
    assert {(one["metric"]["kind"], one["metric"]["exported_kind"]) for one in found} == {("AlignmentRun", "resident")}


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_has_data(prometheus: str, name: str) -> None:
    """Every expression is asked with the choices at the top as they may be; only GPUs are not here to be asked."""
    asked = {
        expr.replace("$__rate_interval", "1m")
        .replace('="$namespace"', '="team-a"')
        .replace("$namespace", ".*")
        .replace("$name", ".*")
        for expr in expressions(dashboards()[name])
    }
    missing = {expr for expr in asked if "DCGM_" not in expr}

    def all_have() -> bool:
        nonlocal missing
        missing = {expr for expr in missing if not series(prometheus, expr)}
        return not missing

    eventually(all_have, lambda: "\n".join(sorted(missing)))


def test_the_monitors_give_targets_the_labels_that_rules_read() -> None:
    for monitor in of_kind(render(ON), "PodMonitor"):
        (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
        assert [one["targetLabel"] for one in endpoint["relabelings"]] == ["name", "kind", "component"]
