"""Images hold what their program needs and no more. They are not built here: no container engine is assumed."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
IMAGES = sorted(path.parent.name for path in (ROOT / "images").glob("*/Dockerfile"))


def project(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return content


def dockerfile(image: str) -> str:
    return (ROOT / "images" / image / "Dockerfile").read_text()


def local_closure(folder: str) -> set[str]:
    """The folder and the folders of our own packages that it depends on."""
    entries = (entry.partition("[")[0] for entry in project(folder)["dependencies"])
    own = [entry.removeprefix("alidade-") for entry in entries if entry.startswith("alidade-")]
    return {folder}.union(*(local_closure(name) for name in own))


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_copies_its_package_and_those_it_depends_on(image: str) -> None:
    copied = {source for source in re.findall(r"^COPY (\S+) \S+$", dockerfile(image), re.MULTILINE)}
    assert copied - {"constraints.txt"} == local_closure(image)
    assert all((ROOT / source).exists() for source in copied)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_starts_a_program_that_its_package_installs(image: str) -> None:
    (program,) = re.findall(r'^ENTRYPOINT \["([^"]+)"\]$', dockerfile(image), re.MULTILINE)
    assert program in project(image)["scripts"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_user_without_rights(image: str) -> None:
    (user,) = re.findall(r"^USER (\d+):\d+$", dockerfile(image), re.MULTILINE)
    assert int(user) >= 1000


@pytest.mark.parametrize("image", IMAGES)
def test_everything_an_image_copies_reaches_the_builder(image: str) -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(re.findall(r"^COPY (\S+) ", dockerfile(image), re.MULTILINE)) <= kept
