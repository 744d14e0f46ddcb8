"""What stands on the pages about GPU clusters can be used."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from alidade_crds.blocks import Compute
from alidade_operator.config import OperatorConfig, read_config
from alidade_operator.resources.observation import queue_view

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
NAMES = ("gpu-node-pools.md", "kueue.md", "spot.md")


def blocks(name: str) -> list[str]:
    """The YAML on a page."""
    return re.findall(r"^```yaml\n(.*?)^```", (PAGES / name).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_is_one(name: str, tmp_path: Path) -> None:
    fields = {"nodePools", "proxy"}
    found = [text for text in blocks(name) if fields & set(re.findall(r"^(\w+):", text, re.MULTILINE))]
    assert found or name == "kueue.md"
    for text in found:
        file = tmp_path / "config.yaml"
        file.write_text(text, encoding="utf-8")
        assert isinstance(read_config(file), OperatorConfig)


@pytest.mark.parametrize("name", NAMES)
def test_every_compute_is_one(name: str) -> None:
    specs = [yaml.safe_load(text) for text in blocks(name) if text.startswith("spec:")]
    assert specs or name == "spot.md"
    for spec in specs:
        Compute.model_validate(spec["spec"]["compute"])


def test_the_init_container_of_the_training_operator_is_restricted() -> None:
    (text,) = [text for text in blocks("gpu-node-pools.md") if "init-pytorch" in text]
    (container,) = yaml.safe_load(text.replace("{{.InitContainerImage}}", "alpine"))
    assert container["name"] == "init-pytorch"
    context = container["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["runAsNonRoot"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


def test_the_page_about_queues_explains_what_the_operator_says_itself() -> None:
    page = (PAGES / "kueue.md").read_text(encoding="utf-8")
    reserved = {"status": {"conditions": [{"type": "QuotaReserved", "status": "True"}]}}
    for reason in (queue_view([]).reason, queue_view([reserved]).reason, "KueueMissing"):
        assert f"`{reason}`" in page
