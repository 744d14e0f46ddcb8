"""README.md beside a model: what it is, where it comes from, how well it does."""

from pathlib import Path
from typing import Any

import yaml


def write_model_card(path: Path, lineage: dict[str, Any], data_report: dict[str, Any]) -> None:
    """Writes the card, with the metadata that model hubs read at its top."""
    path.write_text(model_card(lineage, data_report))


def model_card(lineage: dict[str, Any], data_report: dict[str, Any]) -> str:
    """The card as Markdown."""
    owner, model, job = lineage["owner"], lineage["model"], lineage["job"]
    base = lineage["base"]["uri"]
    metadata: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": _pipeline_tag(lineage["stage"])}
    if base and base.startswith("hf://"):
        metadata["base_model"] = base.removeprefix("hf://").partition("@")[0]
    training = job.get("training", {})
    adapter = job.get("adapter", {}).get("type", "none")
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=True).strip(),
        "---",
        "",
        f"# {owner['name']}",
        "",
        f"Trained by Alidade for {owner['kind']} `{owner['namespace']}/{owner['name']}` "
        f"({lineage['stage']}, {_adapter_words(adapter)}), " + (f"from `{base}`." if base else "from random weights."),
        "",
        "## Model",
        "",
        *_table(
            {
                "Weights": f"{model['parameters']:,}",
                "Weights trained": f"{model['trainableParameters']:,}",
                "Digest": f"`{model['digest']}`",
                "Base digest": f"`{lineage['base']['digest']}`" if lineage["base"]["digest"] else None,
            }
        ),
        "",
        "## Data",
        "",
        *_table({source["uri"]: f"`{source['digest']}`" for source in lineage["data"]}, head=("Address", "Digest")),
        "",
        f"{data_report['train']['samples']:,} samples, {data_report['train']['tokens']:,} tokens, of which "
        f"{data_report['train']['answer_tokens']:,} were learned in each epoch.",
        *(["", *(f"- {warning}" for warning in data_report["warnings"])] if data_report["warnings"] else []),
        "",
        "## Results",
        "",
        *_table({name: f"{value:.6g}" for name, value in sorted(lineage["metrics"].items())}, head=("Metric", "Value")),
        "",
        "## Training",
        "",
        *_table({name: str(value) for name, value in sorted(training.items())}, head=("Setting", "Value")),
        "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in lineage["versions"].items()) + ".",
        "`lineage.json` says all of this to programs.",
        "",
    ]
    return "\n".join(lines)


def _pipeline_tag(stage: str) -> str:
    return "text-classification" if stage == "reward" else "text-generation"


def _adapter_words(adapter: str) -> str:
    return "all weights" if adapter == "none" else f"{adapter} merged into its base"


def _table(rows: dict[str, str | None], head: tuple[str, str] = ("", "")) -> list[str]:
    shown = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items() if value is not None]
    return [f"| {head[0]} | {head[1]} |", "| --- | --- |", *shown]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
