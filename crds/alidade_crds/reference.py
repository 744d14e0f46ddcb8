"""The API reference as Markdown, from the same schemas that the API server gets."""

import inspect
from collections.abc import Iterator
from typing import Any

from alidade_crds import API_VERSION, reasons
from alidade_crds.crd import KINDS, Kind, crd_manifest

_HEAD = f"""# API reference

Generated from the types in `crds/alidade_crds`. All kinds are namespaced, of `{API_VERSION}`, and in the category
`alidade` (`kubectl get alidade`). `kubectl explain KIND.spec` shows the same text.
"""


def api_reference() -> str:
    """Every field of every kind: type, default, bounds, meaning."""
    return "\n".join([_HEAD, *(_kind_section(kind) for kind in KINDS)])


def _kind_section(kind: Kind) -> str:
    root = crd_manifest(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    lines = [f"## {kind.kind}", "", f"{kind.description} Short name: `{kind.short_name}`.", ""]
    for block in ("spec", "status"):
        schema = root["properties"][block]
        lines += [f"### {kind.kind} {block}", "", "| field | type | default | meaning |", "|---|---|---|---|"]
        lines += list(_rows(schema, prefix=""))
        lines.append("")
        messages = [rule["message"] for path, rule in _validations(schema, block)]
        if messages and block == "spec":
            lines += ["Rules:", "", *(f"- {path}: {rule['message']}" for path, rule in _validations(schema, block)), ""]
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
    if "default" not in schema or schema["default"] == {}:
        return ""
    return (
        f"`{schema['default']}`" if not isinstance(schema["default"], bool) else f"`{str(schema['default']).lower()}`"
    )


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
    lines = [
        "# Conditions and reasons",
        "",
        "Generated from `crds/alidade_crds/reasons.py`. Programs may rely on these words; messages are for people.",
        "",
        "## Condition types",
        "",
        "| type | the fact |",
        "|---|---|",
    ]
    facts = reasons.documented_members(reasons.ConditionType)
    lines += [f"| `{member}` | {_cell(text)} |" for member, text in facts.items()]
    for title, enum in (
        ("Reasons of conditions", reasons.Reason),
        ("Reasons of failed attempts", reasons.FailureReason),
    ):
        lines += ["", f"## {title}", "", _cell(inspect.getdoc(enum) or ""), "", "| reason | meaning |", "|---|---|"]
        lines += [f"| `{member}` | {_cell(text)} |" for member, text in reasons.documented_members(enum).items()]
    return "\n".join(lines) + "\n"
