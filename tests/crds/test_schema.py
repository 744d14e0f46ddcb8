"""The generated CRDs: structural, complete, and what the types say."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import Field, ValidationError

from alidade_crds.alignmentrun import AlignmentRunSpec
from alidade_crds.base import Spec
from alidade_crds.crd import KINDS, Kind, crd_manifest
from alidade_crds.jobs import FineTuneJobSpec, RewardModelSpec
from alidade_crds.schema import structural_schema

MINIMAL_JOB: dict[str, Any] = {"model": {"uri": "hf://org/name"}, "dataset": {"uri": "pvc://data/train.jsonl"}}
UNIONS = {"$ref", "anyOf", "oneOf", "allOf", "const", "title", "additionalItems", "definitions", "$defs"}


def walk(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from walk(value, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def root_schema(kind: Kind) -> dict[str, Any]:
    schema: dict[str, Any] = crd_manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def test_no_field_of_a_spec_names_an_account_a_host_or_another_namespace() -> None:
    """What a pod may do is the operator's configuration's to say; what a resource names is of its own namespace."""
    words = (
        "namespace", "account", "host(path|network|pid|ipc|alias)", "privileged", "security", "capabilit", "command",
        "node(name|selector)", "toleration", "volume", "sidecar", "env$",
    )  # fmt: skip
    never = re.compile("|".join(words), re.IGNORECASE)
    for kind in KINDS:
        for path, _ in walk(root_schema(kind)["properties"]["spec"]):
            assert not never.search(path.rpartition(".")[2]), f"{kind.kind} spec{path}"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_field_is_described_and_of_a_structural_type(kind: Kind) -> None:
    for path, node in walk(root_schema(kind)):
        allowed = {"anyOf"} if node.get("x-kubernetes-int-or-string") else set()
        assert not (UNIONS - allowed) & node.keys(), path
        assert "type" in node or node.get("x-kubernetes-int-or-string"), path
        assert node.get("description") or path.endswith("[]") or path == ".metadata", f"{path} has no description"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_list_and_free_text_is_bounded_so_that_rules_have_a_finite_cost(kind: Kind) -> None:
    for path, node in walk(root_schema(kind)["properties"]["spec"]):
        if node.get("type") == "array":
            assert "maxItems" in node, path
        if node.get("type") == "string" and "enum" not in node:
            assert "maxLength" in node, path


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_rules_about_changes_name_fields_that_exist(kind: Kind) -> None:
    spec = root_schema(kind)["properties"]["spec"]
    for rule, message in kind.change_rules:
        node = spec
        for name in message.split(" ", 1)[0].split("."):
            node = node["properties"][name]
        assert "oldSelf" in rule


def test_rules_about_changes_stand_only_where_the_api_server_can_find_the_old_value() -> None:
    """Inside a template of an AlignmentRun they would forbid what a new run of a stage is made for."""
    for path, node in walk(structural_schema(AlignmentRunSpec)):
        for validation in node.get("x-kubernetes-validations", []):
            assert "oldSelf" not in validation["rule"], path


def test_an_optional_block_defaults_to_an_empty_one_so_that_its_own_defaults_apply() -> None:
    spec = structural_schema(FineTuneJobSpec)["properties"]
    assert spec["training"]["default"] == {}
    assert spec["training"]["properties"]["learningRate"]["default"] == 2e-5
    assert "default" not in spec["tracking"], "a block that may be absent must stay absent"
    assert "default" not in spec["model"], "a required block has no default"


def test_a_reward_model_trains_one_epoch_unless_told_otherwise() -> None:
    assert structural_schema(RewardModelSpec)["properties"]["training"]["properties"]["epochs"]["default"] == 1
    assert RewardModelSpec.model_validate(MINIMAL_JOB).training.epochs == 1


def schema_defaults(schema: dict[str, Any]) -> Any:
    """The object that the API server fills in for `{}`."""
    found = {}
    for name, value in schema.get("properties", {}).items():
        if "default" in value:
            found[name] = schema_defaults(value) if value.get("type") == "object" else value["default"]
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_the_default_of_a_block_with_rules_is_written_out_as_kube_apiserver_keeps_it(kind: Kind) -> None:
    """It checks rules against a default before what is inside is filled in, and has 1 for 1.0."""
    for path, node in walk(structural_schema(kind.spec)):
        default = node.get("default")
        if node.get("x-kubernetes-validations") and isinstance(default, dict):
            assert default == schema_defaults(node), path
        assert not isinstance(default, float) or not default.is_integer(), path


def test_defaults_of_the_schema_are_the_defaults_of_the_types() -> None:
    from_types = FineTuneJobSpec.model_validate(MINIMAL_JOB).to_dict()
    from_schema = schema_defaults(structural_schema(FineTuneJobSpec))
    from_schema.update(
        model={**MINIMAL_JOB["model"], "trustRemoteCode": False},
        dataset={
            **MINIMAL_JOB["dataset"],
            **schema_defaults(structural_schema(FineTuneJobSpec)["properties"]["dataset"]),
        },
    )
    assert from_types == from_schema


def test_an_unknown_field_is_refused_by_the_types_too() -> None:
    with pytest.raises(ValidationError, match="learningrate"):
        FineTuneJobSpec.model_validate({**MINIMAL_JOB, "training": {"learningrate": 1}})


def test_an_exclusive_bound_is_written_as_openapi_30_wants_it() -> None:
    class Block(Spec):
        share: float = Field(gt=0, lt=1, description="A share.")

    share = structural_schema(Block)["properties"]["share"]
    assert share == {
        "type": "number", "description": "A share.",
        "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": True,
    }  # fmt: skip


def test_a_union_that_no_structural_schema_can_express_is_our_own_mistake() -> None:
    class Block(Spec):
        either: str | list[str] = Field(description="Either.")

    with pytest.raises(AssertionError, match="no union"):
        structural_schema(Block)
