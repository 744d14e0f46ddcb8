"""Every YAML on a page is taken by whoever it is for: the schemas of the kinds, the operator, the chart, Kubernetes."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from alidade_local.apiserver.pruning import prune
from alidade_local.apiserver.schema import Schema
from alidade_local.apiserver.validation import validate
from alidade_operator.config import OperatorConfig
from tests.crds.schemas import SCHEMAS, errors
from tests.documents.pages import ROOT, Block, blocks, pages

CHART = json.loads((ROOT / "charts/alidade/values.schema.json").read_text())
# What is for other programs, by what stands in it; no types of theirs are here.
FOREIGN = {
    "task": "lm-evaluation-harness",
    "integrations": "Kueue",
    "ignoreDifferences": "Argo CD",
    "kueue.x-k8s.io/": "Kueue",
    "kustomize.toolkit.fluxcd.io/": "Flux",
    "eksctl.io/": "eksctl",
    "{{.": "the training operator's template",
}
YAML = [block for page in pages() for block in blocks(page) if block.language == "yaml"]


def spec_errors(kind: str, spec: dict[str, Any], name: str = "demo") -> list[str]:
    """Objections of a kind to a spec, unknown fields among them."""
    unknown = prune({"spec": copy.deepcopy(spec)}, SCHEMAS[kind])
    return [f"{kind} has no {field}" for field in unknown] + errors(kind, spec, name=name)


def fragment_errors(fields: dict[str, Any]) -> list[str]:
    """Objections to the fields of a part of a spec, by the kind that has the fewest: rules are for whole ones."""

    def found(schema: Schema) -> list[str]:
        body = {"spec": copy.deepcopy(fields)}
        unknown = [f"{field} is unknown" for field in prune(body, schema)]
        wrong = [f"{error.field}: {error.message}" for error in validate(body, schema)]
        return unknown + [one for one in wrong if not one.endswith("Required value")]

    return min(map(found, SCHEMAS.values()), key=len)


def objections(body: dict[str, Any], text: str) -> list[str]:
    """What the reader of a document would say against it."""
    if body.get("kind") in SCHEMAS and "apiVersion" in body:
        return spec_errors(body["kind"], body["spec"], body["metadata"]["name"])
    if any(sign in text if not sign.isalpha() else sign in body for sign in FOREIGN):
        return []
    if "apiVersion" in body:
        kubernetes_validate.validate(body, "1.34", strict=True)
        return []
    if "spec" in body:
        return fragment_errors(body["spec"])
    if set(body) <= set(CHART["properties"]):
        return [error.message for error in jsonschema.Draft202012Validator(CHART).iter_errors(body)]
    if set(body) <= {field.alias or name for name, field in OperatorConfig.model_fields.items()}:
        try:
            OperatorConfig.model_validate(body)
        except ValidationError as error:
            return [str(error)]
        return []
    return fragment_errors(body)


@pytest.mark.parametrize("block", YAML, ids=str)
def test_yaml_is_taken(block: Block) -> None:
    if "{{." in block.text:
        return
    for body in yaml.safe_load_all(block.text):
        assert objections(body, block.text) == []


def test_a_misspelled_field_is_found() -> None:
    assert objections({"spec": {"compute": {"nodepool": "a100"}}}, "")
    assert objections({"dataset": {"uri": "pvc://a/b", "maxlength": 4}}, "")
    assert objections({"config": {"nodePool": []}}, "")
    assert objections({"nodePools": [{"name": "a", "gpus": 8}]}, "")
    assert objections(
        {"apiVersion": "alidade.dev/v1alpha1", "kind": "FineTuneJob", "metadata": {"name": "a"}, "spec": {}}, ""
    )
