"""A local API server without controllers, helm that speaks to it, and the operator under the account of a release."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.charts.rendering import CHART, NAMESPACE, Json, helm_path, program_path
from tests.operator.conftest import Process, api_server_process, python_path
from tests.operator.played import PYTORCH_JOB_KIND


@dataclass(frozen=True)
class Cluster:
    """An API server; whoever has its kubeconfig may do everything."""

    kubeconfig: Path

    def run(self, program: str, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What helm or kubectl prints; AssertionError with its words when it fails and `check`."""
        path = helm_path() if program == "helm" else program_path(program)
        done = subprocess.run(
            [path, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=180,
            env=os.environ | {"KUBECONFIG": str(self.kubeconfig)},
            check=False,
        )
        assert not check or done.returncode == 0, f"{program} {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def helm(self, verb: str, *arguments: str, values: Json | None = None, chart: Path = CHART) -> str:
        """helm install or upgrade of the release `alidade`."""
        given = [] if values is None else ["--values", "-"]
        command = [verb, "alidade", str(chart), "--namespace", NAMESPACE, *arguments, *given]
        return self.run("helm", *command, stdin=None if values is None else json.dumps(values))

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        """What kubectl prints."""
        return self.run("kubectl", *arguments, stdin=stdin, check=check)

    def read(self, *arguments: str) -> Json:
        """An object, or a list, as kubectl gets it."""
        found: Json = json.loads(self.kubectl("get", *arguments, "--output", "json"))
        return found

    def make_namespace(self, name: str) -> None:
        """Makes a namespace, if it is not there."""
        self.kubectl("create", "namespace", name, check=False)

    def account_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig that carries a token of the operator's account and nothing else."""
        token = self.kubectl("create", "token", "alidade-operator", "--namespace", NAMESPACE).strip()
        content = yaml.safe_load(self.kubeconfig.read_text())
        content["users"][0]["user"] = {"token": token}
        path.write_text(yaml.safe_dump(content))
        return path

    def operator(self, folder: Path) -> Process:
        """The operator as the release has it: its account, and its configuration from the ConfigMap."""
        config = folder / "operator.yaml"
        rendered = self.read("configmap", "alidade-operator", "--namespace", NAMESPACE)
        config.write_text(rendered["data"]["operator.yaml"])
        environment = {
            "PYTHONPATH": python_path(),
            "KUBECONFIG": str(self.account_kubeconfig(folder / "kubeconfig")),
            "ALIDADE_CONFIG": str(config),
        }
        return Process([sys.executable, "-m", "alidade_operator.main"], folder / "operator.log", environment)


@pytest.fixture
def bare_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """An API server that knows PyTorchJobs and nothing of ours, with the release's namespace."""
    folder = tmp_path / "apiserver"
    folder.mkdir()
    server = api_server_process(folder)
    server.start()
    try:
        server.wait_for("serving https://")
        cluster = Cluster(folder / "kubeconfig")
        cluster.kubectl("create", "--filename", str(PYTORCH_JOB_KIND))
        cluster.make_namespace(NAMESPACE)
        yield cluster
    finally:
        server.stop()
