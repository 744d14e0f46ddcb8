"""Completion proposes commands, kinds and names that are there, to shells and to kubectl."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from alidade_cli import completion
from alidade_cli.main import alidade
from alidade_crds.crd import manifests
from tests.charts.conftest import Cluster
from tests.operator.conftest import api_server_process
from tests.operator.test_admission import BASE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API server with two FineTuneJobs, one of them in another namespace."""
    folder = tmp_path_factory.mktemp("apiserver")
    process = api_server_process(folder)
    process.start()
    try:
        process.wait_for("serving https://")
        cluster = Cluster(folder / "kubeconfig")
        for manifest in manifests():
            cluster.kubectl("create", "--filename", "-", stdin=json.dumps(manifest))
        cluster.kubectl("wait", "--for=condition=Established", "crd/finetunejobs.alidade.dev", "--timeout=30s")
        cluster.make_namespace("team-a")
        for name, namespace in (("kbqa-sft", "default"), ("other", "team-a")):
            metadata = {"name": name, "namespace": namespace}
            job = {"apiVersion": "alidade.dev/v1alpha1", "kind": "FineTuneJob", "metadata": metadata, "spec": BASE}
            cluster.kubectl("create", "--filename", "-", stdin=json.dumps(job))
        yield cluster
    finally:
        process.stop()


def proposed(*words: str) -> list[str]:
    *before, incomplete = words
    found = ShellComplete(alidade, {}, "alidade", "_X").get_completions(before, incomplete)
    return [item.value for item in found]


def test_commands_and_kinds_need_no_cluster() -> None:
    assert proposed("wa") == ["wait"]
    assert proposed("wait", "") == ["ftj/", "rm/", "ar/", "eval/", "ms/"]
    assert proposed("wait", "f") == ["ftj/"]
    assert proposed("wait", "pod/") == []


def test_names_are_those_of_the_namespace(server: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    assert proposed("wait", "ftj/") == ["ftj/kbqa-sft"]
    assert proposed("wait", "-n", "team-a", "finetunejob/o") == ["finetunejob/other"]
    assert proposed("wait", "ftj/x") == []


def test_a_cluster_that_does_not_answer_is_no_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert proposed("wait", "ftj/") == []


def test_kubectl_gets_lines_and_a_directive(
    server: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-alidade", "report", "ftj/"])
    completion.for_kubectl()
    assert capsys.readouterr().out == "ftj/kbqa-sft\n:4\n"
    monkeypatch.setattr(sys, "argv", ["kubectl_complete-alidade", "wait", "f"])
    completion.for_kubectl()
    assert capsys.readouterr().out == "ftj/\tFineTuneJob\n:4\n"


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_what_is_printed_is_a_script_of_that_shell(shell: str) -> None:
    said = CliRunner().invoke(alidade, ["completion", shell])
    assert said.exit_code == 0
    assert "_ALIDADE_COMPLETE" in said.output
    if shutil.which(shell) is not None:
        done = subprocess.run([shell, "-n"], input=said.output, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
