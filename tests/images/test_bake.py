"""docker-bake.hcl builds every image, under the names that the operator asks for."""

import importlib.util
from typing import Any

import pytest

from alidade_operator.config import OperatorConfig
from tests.images.dockerfiles import IMAGES, ROOT, read

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hcl2") is None, reason="the parser of HCL is not installed (package python-hcl2)"
)


def unquoted(value: Any) -> Any:
    """What was parsed, without the quotes that newer versions of the parser keep around strings and names."""
    if isinstance(value, dict):
        return {unquoted(key): unquoted(item) for key, item in value.items() if not str(key).startswith("__")}
    if isinstance(value, list):
        return [unquoted(item) for item in value]
    return value.strip('"') if isinstance(value, str) else value


@pytest.fixture(scope="module")
def bake() -> dict[str, dict[str, Any]]:
    """Blocks by kind and name."""
    import hcl2

    parsed = unquoted(hcl2.loads((ROOT / "docker-bake.hcl").read_text()))
    return {kind: {name: body for block in blocks for name, body in block.items()} for kind, blocks in parsed.items()}


@pytest.fixture(scope="module")
def targets(bake: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Targets that make an image, what they inherit merged in."""
    common = bake["target"]["_common"]
    return {
        name: {**body, "args": {**common["args"], **body.get("args", {})}}
        for name, body in bake["target"].items()
        if not name.startswith("_")
    }


def test_one_command_builds_every_image(bake: dict[str, Any], targets: dict[str, Any]) -> None:
    assert sorted(bake["group"]["default"]["targets"]) == sorted(targets)
    assert {target["dockerfile"] for target in targets.values()} == {f"images/{image}/Dockerfile" for image in IMAGES}
    assert set(bake["group"]["cpu"]["targets"]) <= set(targets)


def test_every_argument_is_one_that_the_dockerfile_declares(targets: dict[str, Any]) -> None:
    for target in targets.values():
        image = target["dockerfile"].split("/")[1]
        inherited = {"BASE", "BASE_DIGEST"} if image == "quantizer" else set()
        assert set(target["args"]) - read(image).declared() <= inherited, target["dockerfile"]


def test_defaults_are_those_of_the_dockerfiles(bake: dict[str, Any]) -> None:
    variables = {name: body["default"] for name, body in bake["variable"].items()}
    for image in IMAGES:
        arguments = read(image).arguments
        assert all(arguments[name] == variables[name] for name in ("BASE", "CUDA") if name in arguments)
        assert f"ARG VERSION={variables['VERSION']}\n" in read(image).text


def test_images_have_the_names_that_the_operator_asks_for(bake: dict[str, Any], targets: dict[str, Any]) -> None:
    registry, version = (bake["variable"][name]["default"] for name in ("REGISTRY", "VERSION"))
    tags = {
        tag.replace("${REGISTRY}", registry).replace("${VERSION}", version)
        for target in targets.values()
        for tag in target["tags"]
    }
    config = OperatorConfig()
    asked = {config.trainer_image, config.eval_image, config.serving_image, config.quantization_image}
    assert asked <= tags
