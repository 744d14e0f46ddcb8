"""Reference pages as Markdown, from the types that the programs themselves use."""

import inspect
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from alidade_crds import API_VERSION, contract, metric_names, reasons
from alidade_crds.crd import KINDS, Kind, crd_manifest
from alidade_crds.schema import structural_schema
from alidade_crds.words import Word, documented_members

_HEAD = f"""# API reference

Generated from the types in `crds/alidade_crds`. All kinds are namespaced, of `{API_VERSION}`, and in the category
`alidade` (`kubectl get alidade`). `kubectl explain KIND.spec` shows the same text.
"""


def api_reference() -> str:
    """Every field of every kind: type, default, bounds, meaning, and the rules among fields."""
    return "\n".join([_HEAD, *(_kind_section(kind) for kind in KINDS)])


def _kind_section(kind: Kind) -> str:
    root = crd_manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [f"## {kind.kind}", "", f"{kind.description} Short name: `{kind.short_name}`.", ""]
    for block in ("spec", "status"):
        schema = root["properties"][block]
        lines += [f"### {kind.kind} {block}", "", "| field | type | default | meaning |", "|---|---|---|---|"]
        lines += [*_rows(schema, prefix=""), ""]
        rules = [f"- {path}: {rule['message']}" for path, rule in _validations(schema, block)]
        if rules:
            lines += ["Rules:", "", *rules, ""]
    return "\n".join(lines)


def _rows(schema: dict[str, Any], prefix: str) -> Iterator[str]:
    required = schema.get("required", [])
    for name, value in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        default = "required" if name in required else _default(value)
        yield f"| `{path}` | {_type(value)} | {default} | {_cell(value.get('description', ''))} |"
        inner = value.get("items", value)
        # Templates repeat a kind that has a section of its own.
        if name != "template":
            yield from _rows(inner, f"{path}[]." if "items" in value else f"{path}.")


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default", {})
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    # A block's default is told by its own fields.
    in_blocks = isinstance(default, dict) or (
        isinstance(default, list) and any(isinstance(item, dict) for item in default)
    )
    return "" if in_blocks else f"`{default}`"


def _type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return _cell(" \\| ".join(str(value) for value in schema["enum"]))
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    name = f"list of {_type(schema['items'])}" if schema.get("type") == "array" else str(schema.get("type", "any"))
    low = (">" if schema.get("exclusiveMinimum") else "≥") + f" {schema['minimum']}" if "minimum" in schema else ""
    high = ("<" if schema.get("exclusiveMaximum") else "≤") + f" {schema['maximum']}" if "maximum" in schema else ""
    bounds = ", ".join(bound for bound in (low, high) if bound)
    return f"{name} ({bounds})" if bounds else name


def _cell(text: str) -> str:
    return " ".join(text.split())


def _validations(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, str]]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield f"`{path}`", rule
    for name, value in schema.get("properties", {}).items():
        if name != "template":
            yield from _validations(value.get("items", value), f"{path}.{name}")


def reasons_reference() -> str:
    """Every condition type with the fact it states, and every reason."""
    head = [
        "# Conditions and reasons",
        "",
        "Generated from `crds/alidade_crds/reasons.py`. Programs may rely on these words; messages are for people.",
        "[Troubleshooting](../how-to/troubleshooting.md) says what to do about each reason.",
    ]
    sections = {
        "Condition types": reasons.ConditionType,
        "Reasons of conditions": reasons.Reason,
        "Reasons of failed attempts": reasons.FailureReason,
    }
    return _words_page(head, sections, "word")


def metrics_reference() -> str:
    """Every Prometheus metric with its meaning."""
    head = [
        "# Metrics",
        "",
        "Generated from `crds/alidade_crds/metric_names.py`. The operator answers at `/metrics` of its metrics port, a",
        "training job at `/metrics` of its first worker's port 8080, servers and gateways at `/metrics` of port 8080.",
    ]
    sections = {
        "Operator": metric_names.OperatorMetric,
        "Jobs, as the operator sees them": metric_names.JobMetric,
        "Alignment runs, as the operator sees them": metric_names.RunMetric,
        "Resources, as the operator sees them": metric_names.ResourceMetric,
        "Training processes": metric_names.TrainerMetric,
        "Evaluations, as the operator sees them": metric_names.ResultMetric,
        "Evaluation processes": metric_names.EvaluationMetric,
        "Servers, under text-generation-inference's names": metric_names.TgiMetric,
        "Servers": metric_names.ServeMetric,
        "Gateways of served models": metric_names.GatewayMetric,
    }
    return _words_page(head, sections, "metric")


def _words_page(head: list[str], sections: dict[str, type[Word]], column: str) -> str:
    lines = list(head)
    for title, words in sections.items():
        lines += ["", f"## {title}", "", _cell(inspect.getdoc(words) or ""), "", f"| {column} | meaning |", "|---|---|"]
        lines += [f"| `{word}` | {_cell(meaning)} |" for word, meaning in documented_members(words).items()]
    return "\n".join(lines) + "\n"


def contract_reference() -> str:
    """The documents that operator and trainer exchange, field by field."""
    lines = [
        "# Job contract",
        "",
        "Generated from `crds/alidade_crds/contract.py`. The operator writes the document of a training job, an",
        "evaluation or a quantization into a ConfigMap; a job's first process answers the progress document at",
        "`GET /progress` (a quantization has none); the result document is the container's termination message and",
        "`result.json` in the output. A reader refuses a `version` that it does not know.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        f"| {contract.ExitCode.SUCCEEDED} | the result is complete |",
        f"| {contract.ExitCode.FAILED} | final: another attempt would fail again |",
        f"| {contract.ExitCode.RETRY} | the next attempt goes on from the newest checkpoint, or the samples |",
        f"| {contract.ExitCode.TERMINATED} | SIGTERM was obeyed and what was done was saved |",
        "",
    ]
    documents = (
        contract.JobDocument,
        contract.EvaluationDocument,
        contract.QuantizationDocument,
        contract.ProgressDocument,
        contract.ResultDocument,
    )
    for document in documents:
        lines += [f"## {document.__name__}", "", _cell(inspect.getdoc(document) or ""), "", *fields_table(document), ""]
    return "\n".join(lines)


def settings_reference(title: str, introduction: str, settings: type[BaseModel]) -> str:
    """A page about a settings file: every field with type, default and effect."""
    return "\n".join([f"# {title}", "", introduction, "", *fields_table(settings), ""])


def fields_table(model: type[BaseModel]) -> list[str]:
    """A Markdown table of a model's fields, those of blocks inside it too."""
    return ["| field | type | default | meaning |", "|---|---|---|---|", *_rows(structural_schema(model), prefix="")]
