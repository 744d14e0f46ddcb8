"""The examples of the pages about serving are specs that are accepted, and what they say of flags and limits is so."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from alidade_crds.modelserve import GGUF_TYPES, QuantizationMethod, QuantizationReport
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.reconcile.modelserve import plan_model_serve
from alidade_operator.reconcile.serve import ModelServe, ServeObserved
from alidade_operator.resources.adapters import AdapterView
from alidade_operator.resources.engines.gpu import DRAIN_TIMEOUT_S
from alidade_operator.resources.engines.server import adapters_name
from alidade_operator.resources.observation import SourceView
from tests.crds.schemas import errors
from tests.documents import pages
from tests.operator.builders import CONFIG, MODEL, NOW, UID, condition, observed

HOW_TO = Path(__file__).resolve().parents[2] / "docs" / "how-to"
CLAIMS = frozenset({"alidade-workspace", "datasets", "models", "data"})


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return [block.text for block in pages.blocks(f"docs/how-to/{page}") if block.language == language]


def examples(*names: str) -> list[dict[str, Any]]:
    """The resources in the YAML blocks of pages."""
    found = [yaml.safe_load(text) for name in names for text in blocks(name, "yaml")]
    return [one for one in found if one.get("kind") == "ModelServe"]


def pools() -> OperatorConfig:
    """A local pool, and the pool with GPUs that the page about node pools configures."""
    (text, *_) = [text for text in blocks("gpu-node-pools.md", "yaml") if "nodePools" in text]
    content = OperatorConfig.model_validate(yaml.safe_load(text))
    return CONFIG.model_copy(update={"node_pools": [NodePool(name="local"), *content.node_pools]})


def seen(serve: ModelServe) -> ServeObserved:
    """Everything that the spec names is there."""
    assert serve.spec is not None
    source = SourceView(exists=True, succeeded=True, model=MODEL)
    base = serve.spec.model.uri or MODEL.uri
    trained = MODEL.model_copy(update={"uri": "pvc://models/lora/model", "base_model": base})
    lora = AdapterView(SourceView(exists=True, succeeded=True, model=trained), rank=8)
    adapters = {one.name: lora for one in serve.spec.adapters if one.model.from_ is not None}
    job = replace(observed(), claims=CLAIMS)
    return ServeObserved(source=source, claims=CLAIMS, adapters=adapters, quantization=job)


@pytest.mark.parametrize("body", examples("quantize.md", "serve-on-gpus.md"), ids=lambda body: body["metadata"]["name"])
def test_every_example_is_taken_by_the_api_server_and_accepted_where_its_pool_and_volumes_exist(
    body: dict[str, Any],
) -> None:
    assert errors("ModelServe", body["spec"], name=body["metadata"]["name"]) == []
    metadata = {"namespace": "team-a", "uid": UID, "generation": 1} | body["metadata"]
    serve = ModelServe.parse(body | {"metadata": metadata})
    assert serve.spec is not None, serve.spec_error
    made = plan_model_serve(serve, seen(serve), pools(), NOW)
    assert condition(made, "Accepted")[:2] == ("True", "Valid"), condition(made, "Accepted")[2]
    assert made.children


def test_the_page_about_quantization_names_every_method_and_every_field_of_the_report() -> None:
    text = (HOW_TO / "quantize.md").read_text()
    assert {method for method in QuantizationMethod if f"`{method}`" not in text} == {QuantizationMethod.NONE}
    told = set(re.findall(r"`([A-Za-z0-9]+)`", text))
    properties = QuantizationReport.model_json_schema(by_alias=True)["properties"]
    assert set(properties) - {"method", "type"} <= told
    assert {GGUF_TYPES[0], GGUF_TYPES[-1]} <= told | {"q2_k"}


def test_the_page_about_gpus_names_images_and_times_as_they_are() -> None:
    text = (HOW_TO / "serve-on-gpus.md").read_text()
    assert f"`{CONFIG.vllm_image}`" in text
    assert f"`{CONFIG.tgi_image}`" in text
    assert f"have {DRAIN_TIMEOUT_S} seconds" in text
    assert f"ConfigMap `{adapters_name('NAME')}`" in text
    assert OperatorConfig.model_validate({"runtimeAdapters": True}).runtime_adapters
    assert not OperatorConfig().runtime_adapters, "the page says that it is off"
    assert f"`{CONFIG.quantization_image}`" in (HOW_TO / "quantize.md").read_text()
