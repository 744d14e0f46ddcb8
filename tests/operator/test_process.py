"""The process: what it imports, how it starts and ends, and that `kopf run` works too."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import pytest

from alidade_operator import kopf_glue
from alidade_operator.api import Api
from alidade_operator.config import OperatorConfig
from tests.operator.conftest import ROOT, Process, api_server_process, operator_process, python_path
from tests.operator.played import PYTORCH_JOB_KIND, Played, connection, install_kinds, own_kinds

PACKAGE = ROOT / "operator" / "alidade_operator"


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python program with only our packages and an environment."""
    return subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": python_path(), "KUBECONFIG": "", "HOME": "/nonexistent", **environment},
    )


def test_only_one_module_imports_kopf() -> None:
    importing = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "kopf" for name in names):
                importing.add(path.name)
    assert importing == {"kopf_glue.py"}


def test_official_clients_and_torch_stay_out_of_the_process() -> None:
    """Also where they are installed, as in a development environment: kopf would import them and double the memory."""
    code = (
        "import sys, alidade_operator.main; print(sorted({'kubernetes', 'torch', 'transformers'} & set(sys.modules)))"
    )
    assert run("-c", code).stdout.strip() == "[]"


def test_importing_does_no_work() -> None:
    done = run("-c", "import alidade_operator.main", ALIDADE_CONFIG="/nonexistent.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_a_cluster_it_says_what_to_do() -> None:
    done = run("-m", "alidade_operator.main")
    assert done.returncode == 1
    assert done.stderr == (
        "alidade-operator: There is no cluster to serve: set KUBECONFIG, or run in a pod with a service account.\n"
    )


def test_a_wrong_configuration_ends_it_with_a_sentence(tmp_path: Path) -> None:
    config = tmp_path / "operator.yaml"
    config.write_text("workers: 0")
    done = run("-m", "alidade_operator.main", ALIDADE_CONFIG=str(config))
    assert done.returncode == 1
    assert done.stderr.startswith(f"alidade-operator: {config}: workers: Input should be greater than or equal to 1")
    assert "Traceback" not in done.stderr


def test_it_ends_cleanly_on_sigterm(operator: Process, api_server: Path, tmp_path: Path) -> None:
    process = operator_process(tmp_path, api_server)
    process.start()
    process.wait_for("listed every kind")
    process.stop()
    assert process.process is not None
    assert process.process.returncode == 0
    assert "Traceback" not in process.text()


def test_kopf_can_run_it(api_server: Path, tmp_path: Path) -> None:
    process = operator_process(tmp_path, api_server)
    kopf = shutil.which("kopf", path=str(Path(sys.executable).parent)) or pytest.fail("kopf's command is not installed")
    process.command = [kopf, "run", "-A", "-m", "alidade_operator.main"]
    process.start()
    process.wait_for("listed every kind")
    process.stop()


async def test_a_kopf_that_gives_up_and_does_not_end_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for watches of a closed session then, with the health server and the controller gone already."""
    ended: list[int] = []

    async def give_up(memo: Any, **_: Any) -> None:
        memo.stopped.set()
        await asyncio.Event().wait()

    def end(code: int) -> NoReturn:
        ended.append(code)
        raise SystemExit(code)

    monkeypatch.setattr(kopf_glue.kopf, "operator", give_up)
    monkeypatch.setattr(kopf_glue, "_END_S", 0.01)
    monkeypatch.setattr(kopf_glue.os, "_exit", end)
    with pytest.raises(SystemExit):
        await kopf_glue.serve(OperatorConfig())
    assert ended == [1]


async def test_a_failure_of_kopf_is_the_failure_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(**_: Any) -> None:
        raise RuntimeError("Error in the watch-stream")

    monkeypatch.setattr(kopf_glue.kopf, "operator", fail)
    monkeypatch.setattr(kopf_glue, "_END_S", 0.01)
    with pytest.raises(RuntimeError, match="watch-stream"):
        await kopf_glue.serve(OperatorConfig())


async def exported(process: Process) -> str:
    """What the operator's /metrics says."""
    lines = map(json.loads, process.text().splitlines())
    port = next(line["port"] for line in lines if line.get("message") == "serving metrics and health")
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
        return await answer.text()


async def test_jobs_go_on_when_the_training_operator_is_installed(tmp_path: Path) -> None:
    server = api_server_process(tmp_path)
    server.start()
    await asyncio.to_thread(server.wait_for, "serving https://")
    kubeconfig = tmp_path / "kubeconfig"
    process = operator_process(tmp_path, kubeconfig)
    api = Api(lambda: connection(kubeconfig), connections=4)
    played = Played(api, "late")
    try:
        await install_kinds(api, own_kinds())
        process.start()
        await asyncio.to_thread(process.wait_for, "listed every kind")
        await played.create_namespace()
        await played.apply("patient")
        status = await played.phase("patient", "Waiting")
        assert "TrainingOperatorMissing" in str(status["conditions"])
        assert 'alidade_operator_missing_kinds{kind="PyTorchJob"} 1.0' in await exported(process)
        await install_kinds(api, [PYTORCH_JOB_KIND])
        await played.launched("patient")
        assert 'kind="PyTorchJob"} 1.0' not in await exported(process)
    finally:
        await api.close()
        process.stop()
        server.stop()
