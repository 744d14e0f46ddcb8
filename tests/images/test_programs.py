"""The images' programs, installed from wheels into an empty environment, run as in a pod.

As the image's user, on a root that is read-only, with no more packages than the image declares and nothing of the
source tree: what a container would have, without a container engine.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.running import free_port
from tests.images.containers import ENVIRONMENT, INSTALLED, SITE, Container, link_dependencies, missing
from tests.images.dockerfiles import ROOT, read

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing()), pytest.mark.slow]

IMAGES = ["eval", "operator", "serving", "trainer"]
PACKAGES = ["crds", "engine", *IMAGES]
PROGRAMS = [
    ("operator", "alidade-operator"),
    ("trainer", "alidade-trainer"),
    ("eval", "alidade-eval"),
    ("serving", "alidade-serve"),
    ("serving", "alidade-gateway"),
]
LONGEST_S = 120
Made = Callable[[str], Container]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our packages as wheels, built from copies that hold nothing else."""
    folder = tmp_path_factory.mktemp("wheels")
    source = tmp_path_factory.mktemp("source")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, *(source / package for package in PACKAGES)], check=True)
    return folder


@pytest.fixture(scope="module")
def container(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An image's environment, made once."""
    made: dict[str, Container] = {}

    def make(image: str) -> Container:
        if image not in made:
            made[image] = installed(image, wheels, tmp_path_factory.mktemp(image))
        return made[image]

    return make


def installed(image: str, wheels: Path, folder: Path) -> Container:
    """The image's package in an environment whose other packages are what it declares; pip reaches no index."""
    parsed = read(image)
    (folder / "environment").mkdir()
    (folder / "root").mkdir()
    container = Container(folder / "environment", folder / "root", parsed.user, parsed.environment)
    python = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"

    def inside(*command: str) -> None:
        volumes = {"/wheels": wheels, "/pip/pip": INSTALLED / "pip"}
        variables = {"PYTHONPATH": "/pip", "PIP_CONFIG_FILE": "/dev/null"}
        ran = subprocess.run(
            container.command(*command, volumes=volumes, variables=variables, user=(0, 0), install=True),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr

    inside(python, "-m", "venv", "--without-pip", ENVIRONMENT)
    link_dependencies(f"alidade-{image}", container.environment / SITE)
    install = ["-m", "pip", "install", "--quiet", "--no-index", "--find-links", "/wheels", "--root-user-action=ignore"]
    inside(f"{ENVIRONMENT}/bin/python", *install, f"alidade-{image}")
    return container


def run(container: Container, *program: str, **around: Any) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end."""
    command = container.command(*program, **around)
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_S)


def owned(folder: Path, container: Container) -> Path:
    """A folder that the container's user may write to."""
    folder.mkdir()
    os.chown(folder, *container.user)
    return folder


@pytest.mark.parametrize("package", PACKAGES)
def test_a_wheel_has_every_file_of_its_package(package: str, wheels: Path) -> None:
    (wheel,) = wheels.glob(f"alidade_{package}-*.whl")
    modules = [folder for folder in (ROOT / package).glob("alidade_*") if folder.is_dir()]
    files = {
        path.relative_to(ROOT / package).as_posix()
        for module in modules
        for path in module.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files
    assert packed == files


@pytest.mark.parametrize(("image", "program"), PROGRAMS)
def test_a_program_starts(image: str, program: str, container: Made) -> None:
    ran = run(container(image), program, "--help")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(f"usage: {program}")


@pytest.mark.parametrize("image", IMAGES)
def test_the_imitation_is_one(image: str, container: Made) -> None:
    """Nobody's rights, a root that cannot be written to, and modules from wheels only."""
    package = f"alidade_{image}"
    ran = run(
        container(image),
        "python",
        "-c",
        f"import os, {package}; print(os.getuid(), os.getgid(), {package}.__file__)\n"
        "for folder in ('/', '/opt/alidade', '/usr', '/etc', '/var/tmp', os.environ['HOME']):\n"
        "    try: open(folder + '/written', 'w'); print('wrote to', folder)\n"
        "    except OSError: pass\n",
    )
    user, group = read(image).user
    home = read(image).environment["HOME"]
    assert ran.stdout.split("\n") == [
        f"{user} {group} {ENVIRONMENT}/{SITE}/{package}/__init__.py",
        f"wrote to {home}",
        "",
    ]


def test_an_operator_without_a_cluster_says_what_it_needs(container: Made) -> None:
    ran = run(container("operator"), "alidade-operator")
    assert ran.returncode == 1
    assert ran.stderr.startswith("alidade-operator: ")
    assert "Traceback" not in ran.stderr


@pytest.fixture(scope="module")
def volumes(container: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of claims, with a model that the trainer's image has made."""
    trainer = container("trainer")
    folder = owned(tmp_path_factory.mktemp("claims") / "volumes", trainer)
    for claim in ("job", "data", "out"):
        owned(folder / claim, trainer)
    records = [{"input": f"What is {a} and {b}?", "output": str(a + b)} for a in range(4) for b in range(4)]
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    job = {
        "owner": {"kind": "FineTuneJob", "namespace": "team", "name": "tiny", "uid": "0123"},
        "stage": "sft",
        "model": {"init": {"hiddenSize": 32, "layers": 2, "heads": 2, "vocabSize": 300, "contextLength": 128}},
        "dataset": {"uri": "pvc://data/train.jsonl", "maxLength": 96, "packing": False},
        "training": {"maxSteps": 2, "globalBatchSize": 4, "microBatchSize": 4, "precision": "fp32"},
        "deepspeed": {"zeroStage": 2},
        "output": "pvc://out/sft",
    }
    ran = run_job(trainer, "alidade-trainer", job, folder)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


def run_job(
    container: Container, program: str, document: dict[str, Any], volumes: Path
) -> subprocess.CompletedProcess[str]:
    """Runs a job with the variables that the operator gives its pods."""
    (volumes / "job" / "job.json").write_text(json.dumps(document))
    variables = {
        "ALIDADE_JOB": "/volumes/job/job.json",
        "ALIDADE_VOLUMES": "/volumes",
        "ALIDADE_SCRATCH": "/scratch",
        "ALIDADE_TERMINATION_LOG": "/volumes/job/termination-log",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    return run(container, program, "run", volumes={"/volumes": volumes}, variables=variables)


def test_the_trainer_trains(volumes: Path) -> None:
    result = json.loads((volumes / "job" / "termination-log").read_text())
    assert result["outcome"] == "succeeded"
    assert (volumes / "out" / "sft" / "model" / "model.safetensors").exists()


def test_the_evaluation_measures(container: Made, volumes: Path) -> None:
    document = {
        "owner": {"kind": "Evaluation", "namespace": "team", "name": "tiny", "uid": "0123"},
        "models": [{"name": "tiny", "model": {"uri": "pvc://out/sft/model"}}],
        "baseline": "tiny",
        "suites": [{"type": "generation", "dataset": "pvc://data/train.jsonl", "maxNewTokens": 4}],
        "output": "pvc://out/evaluation",
    }
    ran = run_job(container("eval"), "alidade-eval", document, volumes)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert (volumes / "out" / "evaluation" / "report.html").exists()


def test_the_server_answers_through_the_gateway_and_both_end_when_told(container: Made, volumes: Path) -> None:
    serving = container("serving")
    port, gate = free_port(), free_port()
    listen = ("--host", "127.0.0.1", "--drain-delay-s", "0", "--port")
    model = ("--model", "/volumes/out/sft/model", "--threads", "1", "--slots", "1")
    short = ("--max-input-tokens", "32", "--max-total-tokens", "64")
    replica = serving.command("alidade-serve", *model, *short, *listen, str(port), volumes={"/volumes": volumes})
    stable = ("--name", "tiny", "--stable", f"http://127.0.0.1:{port}")
    gateway = serving.command("alidade-gateway", *stable, *listen, str(gate))
    with subprocess.Popen(replica) as server, subprocess.Popen(gateway) as front:
        try:
            await_ready(port, server)
            await_ready(gate, front)
            answer = asked(f"http://127.0.0.1:{gate}/generate")
            assert isinstance(answer["generated_text"], str)
        finally:
            for process in (front, server):
                process.send_signal(signal.SIGTERM)
    assert (server.returncode, front.returncode) == (0, 0)


def await_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    """Waits until the process says that it is ready; fails when it ends before."""
    until = time.monotonic() + LONGEST_S
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=LONGEST_S).close()
        except OSError:
            assert process.poll() is None, f"ended with exit code {process.returncode}"
            assert time.monotonic() < until, f"not ready after {LONGEST_S} s"
            time.sleep(0.1)
        else:
            return


def asked(url: str) -> dict[str, Any]:
    """The answer to a short prompt."""
    body = json.dumps({"inputs": "What is 1 and 2?", "parameters": {"max_new_tokens": 4}}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LONGEST_S) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
