"""What `alidade wait`, `logs` and `report` say of a ModelServe."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alidade_cli import main as command_line
from alidade_cli.kube import Cluster, Resource
from alidade_cli.main import alidade
from alidade_crds.crd import Kind
from alidade_crds.modelserve import CanaryReport, ModelServeStatus, QuantizationReport

QUANTIZED = QuantizationReport(
    method="gguf",
    type="q4_k_m",
    size_bytes=1_000_000,
    size_bytes_before=4_000_000,
    perplexity_before=10.0,
    perplexity_after=10.5,
)
CANARY = CanaryReport(
    model="pvc://w/b", percent=10, since=datetime(2026, 1, 1, tzinfo=UTC), requests=40, errors=2, stable_requests=360,
    stable_errors=1, seconds_p95=0.5, stable_seconds_p95=0.25,
)  # fmt: skip
SERVED = ModelServeStatus(
    phase="Serving",
    observed_generation=3,
    url="http://kbqa.default.svc",
    model="pvc://w/a",
    engine="embedded",
    replicas=2,
    ready_replicas=1,
    selector="app=kbqa",
    quantization=QUANTIZED,
    canary=CANARY,
)


def resource(status: ModelServeStatus, **conditions: str | tuple[str, str]) -> Resource:
    """A ModelServe of generation 3; a condition is its status, or status and message."""
    told = {name: one if isinstance(one, tuple) else (one, "") for name, one in conditions.items()}
    listed = [{"type": name, "status": value, "message": message} for name, (value, message) in told.items()]
    found = status.model_dump(mode="json", by_alias=True, exclude_none=True) | {"conditions": listed}
    return {"metadata": {"name": "kbqa", "generation": 3}, "spec": {}, "status": found}


def settled(**conditions: str | tuple[str, str]) -> Resource:
    return resource(SERVED, **{"Accepted": "True", "Quantized": "True", "Progressing": "False", **conditions})


class Served(Cluster):
    """A cluster with one ModelServe, and pods by their selector."""

    states: list[Resource]
    pods_by_selector: dict[str, list[Any]]

    def read(self, kind: Kind, name: str) -> Resource:
        assert (kind.kind, name) == ("ModelServe", "kbqa")
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def pods(self, selector: str) -> list[Any]:
        return self.pods_by_selector.get(selector, [])

    def log_lines(self, pod: str, container: str, *, follow: bool) -> Iterator[str]:
        yield f"{pod} {container} {follow}"


def run(
    monkeypatch: pytest.MonkeyPatch, states: list[Resource], *arguments: str, pods: dict[str, list[Any]] | None = None
) -> Result:
    cluster = Served(Path("kubeconfig"), "default")
    object.__setattr__(cluster, "states", states)
    object.__setattr__(cluster, "pods_by_selector", pods or {})
    monkeypatch.setattr(command_line, "_connect", lambda _: cluster)
    return CliRunner().invoke(alidade, list(arguments))


def pod(name: str, minute: int) -> Any:
    metadata = SimpleNamespace(name=name, creation_timestamp=datetime(2026, 1, 1, 0, minute, tzinfo=UTC))
    return SimpleNamespace(metadata=metadata, spec=SimpleNamespace(containers=[SimpleNamespace(name="server")]))


def test_waiting_ends_with_what_is_served_and_what_quantization_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, [settled()], "wait", "ms/kbqa")
    assert done.exit_code == 0
    facts = [line.split(maxsplit=1) for line in done.stdout.splitlines() if line.startswith(("ad", "re", "si", "pe"))]
    assert facts == [
        ["address", "http://kbqa.default.svc"],
        ["replicas", "1 of 2 ready"],
        ["size", "1,000,000 bytes, 25% of 4,000,000"],
        ["perplexity", "10 before, 10.5 after (+5.00%)"],
    ]
    assert "2 of 40 requests; beside it 1 of 360" in done.stdout


@pytest.mark.parametrize(
    "earlier",
    [
        resource(SERVED.model_copy(update={"observed_generation": 2}), Accepted="True", Progressing="False"),
        settled(Progressing="True"),
        settled(Quantized="False"),
        # Of the spec before: what has failed is no longer asked for.
        resource(SERVED.model_copy(update={"observed_generation": 2}), Failed=("True", "old")),
    ],
)
def test_waiting_goes_on_until_every_replica_serves_the_newest_spec(
    monkeypatch: pytest.MonkeyPatch, earlier: Resource
) -> None:
    states = [earlier, settled()]
    done = run(monkeypatch, states, "wait", "ms/kbqa")
    assert done.exit_code == 0
    assert len(states) == 1


def test_waiting_ends_with_the_failure_of_the_newest_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, [settled(Failed=("True", "Perplexity rose."))], "wait", "ms/kbqa")
    assert done.exit_code == 1
    assert "ModelServe kbqa failed: Perplexity rose." in done.stderr


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (
            resource(SERVED, Accepted=("Unknown", "no such run"), Quantized="Unknown"),
            "Accepted is Unknown: no such run",
        ),
        (settled(Progressing="True", Available=("False", "loading")), "Available is False: loading"),
        (settled(Progressing="True", Available="True"), "it is Serving"),
    ],
)
def test_waiting_too_long_ends_with_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, state: Resource, why: str
) -> None:
    done = run(monkeypatch, [state], "wait", "ms/kbqa", "--timeout", "0")
    assert done.exit_code == 1
    assert f"has not finished after 0 s; {why}" in done.stderr


def test_the_log_is_that_of_the_newest_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    pods = {"app=kbqa": [pod("kbqa-1", 1), pod("kbqa-3", 3), pod("kbqa-2", 2)]}
    done = run(monkeypatch, [settled()], "logs", "ms/kbqa", pods=pods)
    assert done.stdout == "kbqa-3 server False\n"
    assert done.stderr == "kbqa-3, the newest of 3 replicas:\n"


def test_the_log_is_the_quantizations_while_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    state = settled()
    state["status"] |= {"phase": "Quantizing", "quantizationJob": {"jobRef": {"kind": "Job", "name": "kbqa-q-1"}}}
    selector = "batch.kubernetes.io/job-name=kbqa-q-1,batch.kubernetes.io/job-completion-index=0"
    pods = {"app=kbqa": [pod("kbqa-1", 1)], selector: [pod("kbqa-q-1-0", 1)]}
    assert run(monkeypatch, [state], "logs", "ms/kbqa", "-f", pods=pods).stdout == "kbqa-q-1-0 server True\n"


def test_without_replicas_there_is_no_log_and_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    done = run(monkeypatch, [settled(Available=("False", "spec.replicas is 0."))], "logs", "ms/kbqa")
    assert done.exit_code == 1
    assert "ModelServe kbqa has no replicas; Available is False: spec.replicas is 0." in done.stderr


def test_the_report_is_a_page_that_says_what_others_said_as_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "page.html"
    done = run(
        monkeypatch, [settled(Failed=("True", "<script>alert(1)</script>"))], "report", "ms/kbqa", "--save", str(file)
    )
    assert (done.exit_code, done.stdout) == (0, f"{file}\n")
    page = file.read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<td>perplexity</td><td>10 before, 10.5 after (+5.00%)</td>" in page


def test_without_a_file_the_report_is_named_after_what_is_served(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, [settled()], "report", "ms/kbqa").stdout == "kbqa.html\n"
    assert (tmp_path / "kbqa.html").is_file()
    told = json.loads(run(monkeypatch, [settled()] * 2, "report", "ms/kbqa", "-o", "json").stdout)
    assert told == {"report": "kbqa.html", "result": settled()["status"]}
