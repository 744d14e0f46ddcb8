"""What pages list or compute is what the code has."""

from __future__ import annotations

import ast
import importlib
import re
from typing import Any

import yaml

from alidade_crds.jobs import FineTuneJobSpec
from alidade_crds.reasons import FailureReason, Reason
from alidade_operator.config import NodePool
from alidade_operator.fits import GIB, estimate, setup_of
from alidade_operator.modelsizes import parse_parameters, standard_shape
from alidade_operator.reconcile.fit import fit_verdict
from alidade_operator.reconcile.usage import cost
from tests.documents.pages import ROOT, blocks, pages
from tools.licences import pinned


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / "docs" / page).read_text(encoding="utf-8")


def test_troubleshooting_has_one_entry_for_each_reason() -> None:
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", read("how-to/troubleshooting.md"), re.MULTILINE)
    named = [word for cell in cells for word in re.findall(r"\w+", cell)]
    assert sorted(named) == sorted({*map(str, Reason), *map(str, FailureReason)})


A100 = NodePool(name="a100-80gb", gpus_per_node=8, gpu_memory_gib=80, price_per_gpu_hour=3.9)


def test_python_on_pages_takes_from_our_packages_what_they_have() -> None:
    seen = 0
    for block in (block for page in pages() for block in blocks(page) if block.language == "python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("alidade"):
                module = importlib.import_module(node.module)
                assert [one.name for one in node.names if not hasattr(module, one.name)] == [], str(block)
                seen += 1
    assert seen


def rows(page: str, head: str) -> list[list[str]]:
    """The cells of the table of a page that begins with this first cell."""
    table = re.search(rf"^\| {head} \|.*\n\|[-|]+\|\n((?:\|.*\|\n)+)", read(page), re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def manifest(page: str) -> dict[str, Any]:
    """The spec of the first whole manifest of a page."""
    (first, *_) = [block for block in blocks(f"docs/{page}") if block.title]
    spec: dict[str, Any] = yaml.safe_load(first.text)["spec"]
    return spec


def test_the_memory_models_table_is_what_the_operator_computes() -> None:
    for size, trained, gpus, stage, offload, batch, *shown in rows("explanation/memory.md", "model"):
        adapter = {"type": "none"} if trained == "all" else {"type": "lora", "rank": int(trained.split()[1])}
        spec = FineTuneJobSpec.model_validate(
            manifest("how-to/train-70b.md")
            | {
                "adapter": adapter,
                "deepspeed": {"zeroStage": int(stage), "offload": offload},
                "compute": {"workers": max(1, int(gpus) // 8), "gpusPerWorker": min(8, int(gpus))},
            }
        )
        found = estimate(standard_shape(parse_parameters(size)), setup_of(spec, micro_batch_size=int(batch)))
        parts = (found.weights, found.gradients, found.optimizer, found.activations, found.logits, found.total)
        assert [f"{part / GIB:.1f}" for part in parts] == shown, (size, trained, gpus)


def test_the_numbers_for_70_billion_are_the_operators() -> None:
    spec = manifest("how-to/train-70b.md")
    said = ""
    for nodes, batch, total, fits in rows("how-to/train-70b.md", "nodes of 8 × 80 GiB"):
        job = FineTuneJobSpec.model_validate(spec | {"compute": spec["compute"] | {"workers": int(nodes)}})
        verdict = fit_verdict(job, source=None, pool=A100)
        assert f"with micro batch {batch} needs about {total} GiB" in verdict.message
        assert verdict.status == fits
        said += verdict.message + "\n"
    (shown,) = [block for block in blocks("docs/how-to/train-70b.md") if block.language == "text"]
    assert " ".join(shown.text.split()) in said


def test_the_numbers_for_lora_are_the_operators() -> None:
    spec = manifest("how-to/lora.md")
    for size, gpu, length, batch, total in rows("how-to/lora.md", "model"):
        model, dataset = {"uri": f"hf://org/{size}"}, spec["dataset"] | {"maxLength": int(length)}
        job = FineTuneJobSpec.model_validate(spec | {"model": model, "dataset": dataset})
        pool = A100.model_copy(update={"gpu_memory_gib": float(gpu.split()[0])})
        verdict = fit_verdict(job, source=None, pool=pool)
        assert f"with micro batch {batch} needs about {total} GiB" in verdict.message, size
        assert verdict.status == "True"


def test_the_numbers_for_adapters_are_the_operators() -> None:
    for size, *shown in rows("how-to/adapters.md", "model"):
        for kind, total in zip(("none", "lora", "qlora"), shown, strict=True):
            spec = FineTuneJobSpec.model_validate({
                "model": {"uri": "hf://org/base"},
                "dataset": {"uri": "pvc://data/train", "maxLength": 2048},
                "adapter": {"type": kind, "rank": 16},
                "compute": {"gpusPerWorker": 1},
            })  # fmt: skip
            found = estimate(standard_shape(parse_parameters(size)), setup_of(spec, micro_batch_size=1))
            assert f"{found.total / GIB:.1f}" == total, (size, kind)


def test_the_costs_shown_are_the_price_times_the_hours() -> None:
    (hours, told), *_ = re.findall(r"^([\d.]+) GPU hours, (.+)$", read("explanation/costs.md"), re.MULTILINE)
    assert cost(float(hours), A100) == told


def test_claims_of_security_name_tests_that_there_are() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", read("explanation/security.md"))
    assert len(named) > 40
    for file, name in named:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text("utf-8"), re.MULTILINE), f"{file}::{name}"
    claims = rows("explanation/security.md", "claim")
    assert [claim for claim, tests in claims if "::test_" not in tests] == []


def test_licences_are_those_of_all_packages_that_are_pinned() -> None:
    listed = [name for _, names in rows("reference/licences.md", "licence") for name in names.split(", ")]
    assert sorted(listed) == sorted(pinned()), "python tools/licences.py writes the page"
