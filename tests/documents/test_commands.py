"""Every command of the documents could run, and is run, here or by another test, unless its page says what it needs."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_fixtures import RunningCluster
from tests.documents.pages import ROOT, Block, Command, all_commands, blocks, commands, named_commands, pages
from tests.documents.programs import objections

NAMESPACE = "documents"

# What runs these commands, and words of it by which one can tell.
ELSEWHERE = {
    r"alidade (up|down|status)": ("tests/local/test_cluster.py", "local_cluster.up"),
    r"alidade wait (ar|ftj|eval)/": ("tests/e2e/test_alignment.py", 'alidade("wait", "ar/whole"'),
    r"alidade wait ms/": ("tests/e2e/test_asking.py", '"wait", "ms/asked"'),
    r"alidade logs (ar|ftj)/": ("tests/e2e/test_alignment.py", 'alidade("logs", "ar/whole"'),
    r"alidade logs ms/": ("tests/e2e/test_asking.py", '"logs", "ms/asked"'),
    r"alidade report (ar|ftj|rm|eval)/": ("tests/e2e/test_alignment.py", 'alidade("report", "ar/whole"'),
    r"alidade report ms/": ("tests/e2e/test_asking.py", '"report", "ms/asked"'),
    r"alidade chat (ar|ftj)/": ("tests/e2e/test_alignment.py", 'alidade("chat", "ar/whole"'),
    r"(printf .* \| )?alidade chat kbqa": ("tests/e2e/test_asking.py", '"chat", "asked"'),
    r"alidade compare ": ("tests/cli/test_compare.py", '["compare", *arguments]'),
    r"alidade doctor": ("tests/cli/test_doctor.py", '["doctor", *options]'),
    r"alidade bench serve kbqa": ("tests/cli/test_bench_serve.py", "--rates"),
    r"alidade-serve ": ("tests/serving/running.py", "alidade_serving"),
    r"alidade-gateway ": ("tests/gateway/running.py", "alidade_gateway"),
    r"curl .*/generate": ("tests/serving/test_tgi_api.py", "/generate"),
    r"(sh|python) examples/clients/": ("tests/serving/test_example_clients.py", "examples/clients"),
    r"python examples/nlpcc/study_data.py": ("tests/examples/test_nlpcc_study.py", "study_data"),
    r"python examples/nlpcc/nlpcc.py": ("tests/examples/test_nlpcc.py", "nlpcc.main"),
    r"helm install ": ("tests/charts/test_local_cluster.py", 'helm("install", "--create-namespace"'),
    r"helm .*test alidade": ("tests/charts/test_local_cluster.py", '"helm", "test", "alidade"'),
    r"helm upgrade ": ("tests/charts/test_install.py", 'helm("upgrade"'),
    r"helm rollback ": ("tests/charts/test_install.py", '"helm", "rollback"'),
    r"helm uninstall ": ("tests/charts/test_install.py", '"helm", "uninstall"'),
    r"kubectl .*rollout status": ("tests/charts/test_local_cluster.py", '"rollout", "status"'),
    r"kubectl port-forward": ("tests/local/test_port_forward.py", '"port-forward"'),
    r"kubectl proxy": ("tests/local/apiserver/test_proxy.py", "proxy"),
}
# The shell's own, and make's targets, which take minutes: that they are there is all that is looked at.
_NOT_RUN = r"(export|eval|cp|xdg-open|make) "


def where(command: Command) -> str:
    """What is done about a command: the reader's needs, a test, `here`, or nothing."""
    if command.block.needs:
        return command.block.needs
    if re.match(_NOT_RUN, command.text):
        return "looked at"
    file = next((file for pattern, (file, _) in ELSEWHERE.items() if re.match(pattern, command.text)), "")
    return file or ("here" if re.match(r"(\w+=\S*\$\()?kubectl ", command.text) else "")


def test_every_command_could_run() -> None:
    listed = all_commands()
    syntax = subprocess.run(
        ["bash", "-n"], input="\n".join(one.text for one in listed), capture_output=True, text=True, check=False
    )
    assert not syntax.stderr
    assert [f"{command}: {objection}" for command in listed for objection in objections(command)] == []


def test_commands_in_sentences_are_there() -> None:
    listed = [command for page in pages() for command in named_commands(page)]
    assert len(listed) > 50
    found = [f"{command}: {objection}" for command in listed for objection in objections(command)]
    # A sentence may name a command without all that it takes; the plugin is no verb of kubectl's own.
    assert [one for one in found if "Missing argument" not in one and "kubectl alidade:" not in one] == []


def test_every_command_is_run_or_says_what_it_needs() -> None:
    listed = all_commands()
    assert len(listed) > 150
    assert [str(command) for command in listed if not where(command)] == []
    unused = [pattern for pattern in ELSEWHERE if not any(re.match(pattern, command.text) for command in listed)]
    assert unused == []


def test_what_runs_them_is_there() -> None:
    named = sorted(set(ELSEWHERE.values()))
    assert [one for one in named if one[1] not in (ROOT / one[0]).read_text(encoding="utf-8")] == []


@dataclass(frozen=True)
class Desk:
    """Where a reader sits: a folder with the repository's files, kubectl and a cluster."""

    folder: Path
    kubeconfig: Path

    def start(self, text: str) -> subprocess.Popen[str]:
        """Starts a command line as a shell does."""
        path = f"{ROOT / '.tools/bin'}:{os.environ['PATH']}"
        return subprocess.Popen(
            ["bash", "-c", text],
            cwd=self.folder,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, text: str) -> subprocess.CompletedProcess[str]:
        """Waits for the end of a command line."""
        process = self.start(text)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(text, process.returncode, out, err)

    def watch(self, text: str) -> str:
        """What is wrong with a watch, which does not end by itself, or nothing."""
        with self.start(f"exec {text}") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline()
            process.kill()
            return "" if "NAME" in line else f"it prints {line!r}: {process.stderr.read()}"

    def set_status(self, target: str, status: dict[str, Any]) -> None:
        """Writes into a status as the operator does, which has seen every change."""
        patch = json.dumps({"status": {"observedGeneration": 999} | status})
        done = self.run(f"kubectl patch {target} --subresource=status --type=merge -p '{patch}'")
        assert done.returncode == 0, done.stderr

    def save(self, page: str) -> None:
        """Saves the files that a page shows."""
        for block in blocks(page):
            if block.title:
                (self.folder / block.title).write_text(block.text, encoding="utf-8")


def condition(kind: str, status: str = "True", message: str = "said by the operator") -> dict[str, str]:
    return {
        "type": kind, "status": status, "reason": "Valid", "message": message,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }  # fmt: skip


# What the commands read that the operator has written by then.
STATUSES: dict[str, dict[str, Any]] = {
    "ar/kbqa": {
        "stages": [
            {"name": "sft", "kind": "FineTuneJob", "ref": "kbqa-sft-1", "phase": "Succeeded", "reused": True},
            {"name": "correctness", "kind": "RewardModel", "ref": "kbqa-correctness-1", "phase": "Succeeded"},
            {"name": "evaluation", "kind": "Evaluation", "ref": "kbqa-eval-1", "phase": "Succeeded"},
        ],
        "conditions": [condition("GatePassed", message="reward.mean is 2.1")],
    },
    "ar/kbqa-ppo": {
        "stages": [{"name": "sft", "kind": "FineTuneJob", "ref": "kbqa-sft-1", "phase": "Succeeded", "reused": True}]
    },
    "ftj/assistant-sft": {
        "attempts": 4, "interruptions": 3, "gpuHours": 25.6, "cost": "99.84 USD",
        "lastFailure": {"reason": "Interrupted", "message": "taken away", "attempt": 3, "at": "2026-01-01T00:00:00Z"},
        "conditions": [condition("Suspended"), condition("Fits", message="needs about 24 GiB")],
    },
    "eval/kbqa": {
        "results": [{"suite": "generation", "metric": "f1", "model": "sft", "value": 1, "low": 0, "high": 1, "n": 9}]
    },
    "ms/kbqa": {"quantization": {"method": "gguf", "type": "q4_k_m", "sizeBytes": 800}},
}  # fmt: skip


@pytest.fixture(scope="module")
def desk(cluster: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    for name in ("charts", "docs", "examples", "tests"):
        (folder / name).symlink_to(ROOT / name)
    content = yaml.safe_load(cluster.kubeconfig.read_text())
    content["contexts"][0]["context"]["namespace"] = NAMESPACE
    (folder / "kubeconfig").write_text(yaml.safe_dump(content))
    there = Desk(folder, folder / "kubeconfig")
    for name in (NAMESPACE, "team-a", "alidade-system"):
        there.run(f"kubectl create namespace {name}")
    for page in ("docs/how-to/serve.md", "docs/how-to/evaluate.md"):
        there.save(page)
    staged = there.run(
        "kubectl apply --server-side -k examples/kbqa && kubectl apply --server-side "
        "-f examples/kbqa/finetune.yaml -f examples/kbqa/align-ppo.yaml -f examples/gpu/finetune.yaml "
        "-f kbqa.yaml -f evaluation.yaml && kubectl create service clusterip kbqa --tcp=80"
    )
    assert staged.returncode == 0, staged.stderr
    for target, status in STATUSES.items():
        there.set_status(target, status)
    yield there
    there.run(f"kubectl delete namespace {NAMESPACE} --wait=false")


def shown(block: Block, command: Command) -> str:
    """The first line that a page shows below a command, if it is the API server's refusal."""
    after = block.text.partition(command.text.split("'")[0])[2].partition("\n")[2]
    first = after.partition("\n")[0]
    return first if re.match(r"Error from server|The \w+ \"", first) else ""


def complaint(desk: Desk, command: Command) -> str:
    """What is wrong with what a command does, or nothing."""
    text = command.text
    if text.startswith("kubectl wait"):
        kind, target = re.search(r"condition=(\w+)(?:=(\w+))?", text), re.search(r" ([a-z]+/[\w-]+)", text)
        assert kind is not None, text
        assert target is not None, text
        desk.set_status(target[1], {"conditions": [condition(kind[1], kind[2] or "True")]})
    if "--watch" in text:
        return desk.watch(text)
    done = desk.run(text)
    refusal = shown(command.block, command)
    if refusal:
        return "" if done.returncode and refusal in done.stderr else f"it does not say {refusal!r}: {done.stderr}"
    if done.returncode:
        return done.stderr or done.stdout
    return (
        "it prints nothing"
        if "jsonpath" in text and not text.startswith("address=") and not done.stdout.strip()
        else ""
    )


def test_commands_of_kubectl_work(desk: Desk) -> None:
    wrong, seen = [], set[str]()
    # Tutorials are followed as they are, at the end, since they delete what they have made.
    for page in sorted(pages(), key=lambda page: page.startswith("docs/tutorial")):
        desk.save(page)
        for command in (one for block in blocks(page) if block.language == "console" for one in commands(block)):
            if where(command) != "here" or (command.text in seen and not page.startswith("docs/tutorial")):
                continue
            seen.add(command.text)
            if said := complaint(desk, command):
                wrong.append(f"{command}: {said}")
    assert wrong == []
