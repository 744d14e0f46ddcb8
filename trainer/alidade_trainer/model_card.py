"""README.md beside a model: what it is, where it comes from, how well it does."""

import math
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from alidade_crds.uris import parse_uri
from alidade_engine.sources import as_dataset

# What model hubs call the metrics that they show beside a model.
_SHOWN = {"eval_loss": "loss", "perplexity": "perplexity", "accuracy": "accuracy"}


def write_model_card(path: Path, lineage: dict[str, Any], data_report: dict[str, Any]) -> None:
    """Writes the card, with the metadata that model hubs read at its top."""
    path.write_text(model_card(lineage, data_report))


def model_card(lineage: dict[str, Any], data_report: dict[str, Any]) -> str:
    """The card as Markdown."""
    return str(ModelCard(f"---\n{_metadata(lineage).to_yaml()}\n---\n\n{_text(lineage, data_report)}"))


def _metadata(lineage: dict[str, Any]) -> ModelCardData:
    owner, task = lineage["owner"], _pipeline_tag(lineage["stage"])
    base = _of_the_hub([lineage["base"]["uri"] or ""])
    return ModelCardData(
        library_name="transformers",
        pipeline_tag=task,
        tags=["alidade", lineage["stage"]],
        base_model=base[0] if base else None,
        datasets=_of_the_hub([source["uri"] for source in lineage["data"]]) or None,
        model_name=owner["name"],
        eval_results=_eval_results(lineage, task) or None,
    )


def _of_the_hub(uris: list[str]) -> list[str]:
    """The repositories that hf:// addresses name."""
    locations = [parse_uri(uri) for uri in uris if uri.startswith("hf://")]
    return list(dict.fromkeys(as_dataset(location).root for location in locations))


def _eval_results(lineage: dict[str, Any], task: str) -> list[EvalResult]:
    dataset = lineage["job"]["dataset"]
    held_out = dataset.get("validation", {}).get("uri") or f"a held-out share of {dataset['uri']}"
    return [
        EvalResult(
            task_type=task,
            dataset_type="custom",
            dataset_name=held_out,
            metric_type=kind,
            metric_name=name,
            metric_value=round(lineage["metrics"][name], 6),
        )
        for name, kind in _SHOWN.items()
        if math.isfinite(lineage["metrics"].get(name, math.nan))
    ]


def _text(lineage: dict[str, Any], data_report: dict[str, Any]) -> str:
    owner, model, job = lineage["owner"], lineage["model"], lineage["job"]
    base = lineage["base"]["uri"]
    training = job.get("training", {})
    adapter = job.get("adapter", {}).get("type", "none")
    lines = [
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
        "## To make it again",
        "",
        f"`lineage.json` has the whole job in its field `job`, sha256 `{lineage['jobFingerprint']}`, seed "
        f"{lineage['seed']}; the data are those above.",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in lineage["versions"].items()) + ".",
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
