"""What stands on the pages about GPU clusters can be used."""

from __future__ import annotations

from pathlib import Path

import yaml

from alidade_operator.resources.observation import queue_view
from tests.documents.pages import blocks

PAGES = Path(__file__).resolve().parents[2] / "docs" / "how-to"


def test_the_init_container_of_the_training_operator_is_restricted() -> None:
    (text,) = [block.text for block in blocks("docs/how-to/gpu-node-pools.md") if "name: init-pytorch" in block.text]
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
