"""Every program, run as its rendered pod says, writes nowhere but where that pod lets it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.contract import ResultDocument
from alidade_operator.api import EVALUATION, FINE_TUNE_JOB, MODEL_SERVE, Kind
from alidade_operator.config import OperatorConfig
from tests.golden.rendering import rendered

SCRIPT = Path(__file__).with_name("as_a_pod.sh")
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 240
SERVING_S = 60
POD_IP = "127.63.0.1"
"""No other test's."""
TOOLS = ("unshare", "setpriv", "chroot", "mount")
MODEL = "pvc://alidade-workspace/tiny/model"
RECORDS = [{"input": f"{one}+{two}=", "output": str(one + two)} for one in range(8) for two in range(8)]

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or any(shutil.which(tool) is None for tool in TOOLS)
    or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="needs root and mount namespaces of its own",
)


class Pods:
    """A namespace's volumes, and pods that are run one after the other."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = OperatorConfig(workspace_claim="alidade-workspace")
        self.workspace = folder / "alidade-workspace"
        self.data = folder / "sums"
        for made in (self.workspace, self.data):
            made.mkdir()
        document = json.dumps({"type": "text2text", "instances": RECORDS})
        (self.data / "train.json").write_text(document, encoding="utf-8")
        self._count = 0

    def start(self, body: dict[str, Any], config_map: dict[str, Any] | None, **environment: str) -> Pod:
        """Starts the container of a PyTorchJob, Job or Deployment."""
        self._count += 1
        folder = self._folder / f"pod-{self._count}"
        folder.mkdir()
        return Pod(folder, template(body), self._volume(folder, config_map), environment)

    def _volume(self, folder: Path, config_map: dict[str, Any] | None) -> Callable[[dict[str, Any]], Path]:
        def source(volume: dict[str, Any]) -> Path:
            if "persistentVolumeClaim" in volume:
                return self.workspace
            made = folder / str(volume["name"])
            if volume.get("configMap", {}).get("name") == "sums":
                return self.data
            made.mkdir(exist_ok=True)
            if "configMap" in volume:
                assert config_map is not None
                for name, text in config_map["data"].items():
                    (made / name).write_text(text, encoding="utf-8")
            return made

        return source

    def children(self, kind: Kind, name: str, spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """What the operator makes of a resource at first, by kind."""
        body = {"kind": kind.kind, "metadata": {"name": name}, "spec": spec}
        return {child["kind"]: child for child in rendered(body, self._config)}


def template(body: dict[str, Any]) -> dict[str, Any]:
    """The pod's spec in a workload."""
    spec = body["spec"]
    found: dict[str, Any] = spec.get("template") or spec["pytorchReplicaSpecs"]["Master"]["template"]
    pod: dict[str, Any] = found["spec"]
    return pod


class Pod:
    """A running container."""

    def __init__(
        self, folder: Path, spec: dict[str, Any], volume: Callable[[dict[str, Any]], Path], environment: dict[str, str]
    ) -> None:
        container = spec["containers"][0]
        sources = {item["name"]: volume(item) for item in spec["volumes"]}
        mounts = [
            f"{sources[item['name']]} {item['mountPath']} {'ro' if item.get('readOnly') else 'rw'}"
            for item in container["volumeMounts"]
        ]
        self.last_words = folder / "termination-log"
        self.last_words.touch()
        (folder / "root").mkdir()
        mounts += [f"{self.last_words} /dev/termination-log rw", f"{ROOT} {ROOT} ro"]
        (folder / "mounts").write_text("\n".join(mounts) + "\n", encoding="utf-8")
        told = {item["name"]: item.get("value", POD_IP) for item in container["env"]}
        command = [part.replace("$(POD_IP)", POD_IP) for part in container["command"]]
        told = {name: value.replace("$(POD_IP)", POD_IP) for name, value in told.items()}
        self.process = subprocess.Popen(
            ["unshare", "-m", "bash", str(SCRIPT), str(folder / "root"), str(folder / "mounts"), *command],
            # No variable of this process's own that says where to write.
            env={
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                "OMP_NUM_THREADS": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
            }
            | told
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def end(self) -> tuple[int, str]:
        """Exit code and output once it has ended by itself."""
        output, _ = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, output

    def stop(self) -> tuple[int, str]:
        """The same after a SIGTERM, as Kubernetes sends it."""
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def answers(self, url: str) -> bool:
        """Whether it answers in time; fails with its output when it ends first."""
        deadline = time.monotonic() + SERVING_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(url, timeout=2) as response:
                    return bool(response.status == 200)
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.1)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        raise AssertionError(f"{url} did not answer:\n{self.process.communicate()[0]}")

    def kill(self) -> None:
        """Ends it, if it has not."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Pods:
    """One namespace for all tests: the model of the first is what the others are about."""
    return Pods(tmp_path_factory.mktemp("pods"))


@pytest.fixture
def running() -> Iterator[list[Pod]]:
    """Pods that are ended with the test."""
    started: list[Pod] = []
    yield started
    for pod in started:
        pod.kill()


@pytest.fixture(scope="module")
def trained(pods: Pods) -> ResultDocument:
    """A very small model, made by two processes under DeepSpeed in a pod."""
    spec = {
        "method": "sft",
        "model": {"init": {"hiddenSize": 64, "layers": 1, "heads": 2, "vocabSize": 300, "contextLength": 64}},
        "dataset": {"uri": "configmap://sums/train.json", "maxLength": 32},
        "training": {"maxSteps": 2, "globalBatchSize": 8, "microBatchSize": 2, "precision": "fp32"},
        "compute": {"processesPerWorker": 2},
        "checkpoint": {"everySteps": 1},
        "output": {"uri": "pvc://alidade-workspace/tiny"},
    }
    made = pods.children(FINE_TUNE_JOB, "tiny", spec)
    environment = {"PET_NNODES": "1", "PET_NPROC_PER_NODE": "2", "PET_NODE_RANK": "0"}
    pod = pods.start(made["PyTorchJob"], made["ConfigMap"], **environment)
    try:
        code, output = pod.end()
    finally:
        pod.kill()
    assert code == 0, output
    return ResultDocument.model_validate_json(pod.last_words.read_text(encoding="utf-8"))


def test_the_root_of_such_a_pod_cannot_be_written(pods: Pods, running: list[Pod]) -> None:
    container = {
        "command": ["sh", "-c", "! touch /tmp/x /usr/x /etc/x /x && touch /scratch/x"],
        "env": [],
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    spec = {"containers": [container], "volumes": [{"name": "scratch", "emptyDir": {}}]}
    body = {"spec": {"template": {"spec": spec}}}
    running.append(pods.start(body, None))
    code, output = running[0].end()
    assert code == 0, output
    assert output.count("Read-only file system") == 4


def test_training(trained: ResultDocument) -> None:
    assert trained.outcome == "succeeded"
    assert trained.model is not None
    assert trained.model.uri == MODEL


def test_evaluation(pods: Pods, trained: ResultDocument, running: list[Pod]) -> None:
    assert trained.model is not None
    spec = {
        "models": [{"name": "tiny", "model": {"uri": MODEL}}],
        "suites": [
            {"type": "generation", "dataset": "configmap://sums/train.json", "limit": 4, "maxNewTokens": 4},
            {"type": "perplexity", "dataset": "configmap://sums/train.json", "limit": 4},
        ],
        "output": {"uri": "pvc://alidade-workspace/report"},
    }
    made = pods.children(EVALUATION, "tiny", spec)
    running.append(pods.start(made["Job"], made["ConfigMap"], JOB_COMPLETION_INDEX="0"))
    code, output = running[0].end()
    assert code == 0, output
    assert (pods.workspace / "report" / "report.html").exists()


def test_quantization_and_the_embedded_server(pods: Pods, trained: ResultDocument, running: list[Pod]) -> None:
    assert trained.model is not None
    spec = {"model": {"uri": MODEL}, "engine": "embedded", "limits": {"maxInputTokens": 32, "maxTotalTokens": 64}}
    quantized = pods.children(MODEL_SERVE, "tiny", spec | {"quantization": {"method": "int8"}})
    running.append(pods.start(quantized["Job"], quantized["ConfigMap"], JOB_COMPLETION_INDEX="0"))
    code, output = running[0].end()
    assert code == 0, output
    assert list(pods.workspace.rglob("*.gguf"))
    server = pods.start(pods.children(MODEL_SERVE, "tiny", spec)["Deployment"], None)
    running.append(server)
    assert server.answers(f"http://{POD_IP}:8080/health")
    code, output = server.stop()
    assert code == 0, output


def test_the_gateway(pods: Pods, running: list[Pod]) -> None:
    spec = {"model": {"uri": MODEL}, "engine": "embedded", "gateway": {}}
    gateway = pods.children(MODEL_SERVE, "tiny", spec)["Deployment"]
    assert gateway["metadata"]["name"] == "tiny-gateway"
    running.append(pods.start(gateway, None))
    assert running[0].answers(f"http://{POD_IP}:8080/livez")
    code, output = running[0].stop()
    assert code == 0, output
