"""report.html: what happened in a training, for people, in one file that needs nothing else."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from alidade_engine.disk import write_file
from alidade_engine.pages.charts import Line, line_chart, smoothed
from alidade_engine.pages.frame import answer_text, columns, facts, flat, gallery, page, tiles, warnings
from alidade_trainer.context.report import length_charts, length_rows
from alidade_trainer.history import METRICS_FILE, read_lines
from alidade_trainer.samples import SampleAnswer
from alidade_trainer.vocabulary.report import vocabulary_rows

PIECES_FILE = "report.json"
REPORT_FILE = "report.html"


class ReportError(Exception):
    """A folder of which no report can be made; the message says what is missing."""


@dataclass(frozen=True)
class ReportPieces:
    """What the report shows that no other file of the output has."""

    data: dict[str, Any]
    """What became of the records (alidade_trainer.data.report)."""
    samples: list[SampleAnswer]
    histogram: dict[str, Any] | None = None
    """Of a reward model's held-out rewards (alidade_trainer.reward.measures)."""
    lengths: dict[str, Any] | None = None
    """Perplexity by length of context (alidade_trainer.context.study)."""


def save_pieces(output: Path, pieces: ReportPieces) -> None:
    """Writes report.json, from which the report can be made again."""
    write_file(output / PIECES_FILE, json.dumps(asdict(pieces), ensure_ascii=False, indent=1) + "\n")


def write_report(output: Path) -> Path:
    """Writes report.html of a finished job's output folder; answers its path.

    Raises ReportError when the job is not finished.
    """
    lineage_path, pieces_path = output / "model" / "lineage.json", output / PIECES_FILE
    for path in (lineage_path, pieces_path):
        if not path.is_file():
            raise ReportError(f"{path} is missing; a report is made of a finished job's output folder.")
    content = report_page(
        lineage=json.loads(lineage_path.read_text()),
        pieces=json.loads(pieces_path.read_text()),
        lines=read_lines(output / METRICS_FILE),
    )
    write_file(output / REPORT_FILE, content)
    return output / REPORT_FILE


def report_page(*, lineage: Mapping[str, Any], pieces: Mapping[str, Any], lines: list[dict[str, Any]]) -> str:
    """The page as HTML.

    lineage: model/lineage.json. pieces: report.json. lines: of metrics.jsonl.
    """
    owner = lineage["owner"]
    title = f"{owner['kind']} {owner['namespace']}/{owner['name']}"
    steps = [line for line in lines if "loss" in line]
    evaluations = [line for line in lines if "eval_loss" in line]
    # What an alignment did to rewards and answers comes before what its optimizer did.
    is_alignment = any("iteration" in line for line in lines)
    middle = [*_alignment(lines), _samples(pieces["samples"])]
    sections = [
        _tiles(lineage),
        warnings(pieces["data"]["warnings"]),
        *(middle if is_alignment else []),
        gallery("Optimizer steps" if is_alignment else "", _charts(steps, evaluations)),
        gallery("", _histogram(pieces.get("histogram"))),
        gallery("", length_charts(pieces.get("lengths"))),
        *([] if is_alignment else middle),
        columns(
            [
                facts("Settings", _settings(lineage["job"])),
                facts("Data", _data_rows(pieces["data"])),
                *_fact_tables(pieces),
                facts("Lineage", _lineage_rows(lineage)),
                facts("Results", {name: f"{value:.6g}" for name, value in sorted(lineage["metrics"].items())}),
            ]
        ),
    ]
    return page(title, _subtitle(lineage), sections)


def _subtitle(lineage: Mapping[str, Any]) -> str:
    base = lineage["base"]["uri"] or "random weights"
    adapter = lineage["job"].get("adapter", {}).get("type", "none")
    how = "all weights" if adapter == "none" else adapter
    return f"{lineage['stage']} of {how}, from {base}, finished {lineage['createdAt']}"


COMPARED = (
    ("evalReward", "Reward, held-out prompts"),
    ("promptReward", "Reward, prompts trained on"),
    ("heldOut", "Held-out score"),
    ("perplexity", "Perplexity, held-out answers"),
    ("distinct2", "Different bigrams"),
    ("evalLength", "Tokens of an answer"),
    ("tokensPerCharacter", "Tokens per character"),
)
"""Measures that are shown as they were before the job and are after it."""


def _before_and_after(metrics: Mapping[str, float], key: str) -> str | None:
    before, after = metrics.get(f"{key}AtStart"), metrics.get(key)
    return None if before is None or after is None else f"{before:.3g} → {after:.3g}"


def _tiles(lineage: Mapping[str, Any]) -> str:
    metrics, model = lineage["metrics"], lineage["model"]
    values = [
        *((name, _before_and_after(metrics, key)) for key, name in COMPARED),
        ("Training loss", None if lineage["stage"] == "align" else f"{metrics['train_loss']:.4f}"),
        ("Validation loss", f"{metrics['eval_loss']:.4f}" if "eval_loss" in metrics else None),
        (
            "Perplexity",
            f"{metrics['perplexity']:.2f}" if "perplexity" in metrics and lineage["stage"] != "align" else None,
        ),
        ("Steps", f"{lineage['steps']:,}"),
        ("Tokens", f"{metrics['tokens']:,.0f}"),
        ("Tokens/s", f"{metrics['tokens_per_second']:,.0f}"),
        ("Weights", f"{model['parameters']:,}"),
        ("Weights trained", f"{model['trainableParameters']:,}"),
    ]
    return tiles(values)


def _charts(steps: list[dict[str, Any]], evaluations: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    def of(name: str) -> list[tuple[float, float]]:
        return [(step["step"], step[name]) for step in steps]

    held_out = [(line["step"], line["eval_loss"]) for line in evaluations]
    losses = [
        Line("each step", of("loss"), "raw"),
        Line("training, smoothed", smoothed(of("loss"))),
        Line("validation", held_out, "other", dots=True),
    ]
    yield "Loss, nats per token", line_chart(losses, x_name="step", y_name="loss")
    yield from _losses_of_datasets("Loss of each dataset, smoothed", steps, "losses")
    held_out_of_each = "Loss on what is held out of each dataset"
    yield from _losses_of_datasets(held_out_of_each, evaluations, "eval_losses", dots=True)
    rates = [Line("learning rate", of("learning_rate"))]
    yield "Learning rate", line_chart(rates, x_name="step", y_name="learning rate")
    speeds = [Line("each step", of("tokens_per_second"), "raw"), Line("smoothed", smoothed(of("tokens_per_second")))]
    yield "Tokens per second", line_chart(speeds, x_name="step", y_name="tokens per second")
    norms = [Line("each step", of("grad_norm"), "raw"), Line("smoothed", smoothed(of("grad_norm")))]
    yield "Norm of the gradient before clipping", line_chart(norms, x_name="step", y_name="norm")


def _losses_of_datasets(
    caption: str, lines: list[dict[str, Any]], key: str, *, dots: bool = False
) -> Iterable[tuple[str, str]]:
    """A chart for every three of the datasets that are mixed: a chart tells three lines apart."""
    names = sorted({name for line in lines for name in line.get(key, {})})
    styles = ("main", "other", "third")
    for first in range(0, len(names), len(styles)):
        curves = [
            (name, [(line["step"], line[key][name]) for line in lines if name in line.get(key, {})], style)
            for name, style in zip(names[first : first + len(styles)], styles, strict=False)
        ]
        drawn = [Line(name, points if dots else smoothed(points), style, dots) for name, points, style in curves]
        yield caption, line_chart(drawn, x_name="step", y_name="loss")


def _histogram(histogram: Mapping[str, Any] | None) -> Iterable[tuple[str, str]]:
    if histogram is None:
        return
    middles = [(low + high) / 2 for low, high in pairwise(histogram["edges"])]
    lines = [
        Line("chosen answers", list(zip(middles, histogram["chosen"], strict=True))),
        Line("rejected answers", list(zip(middles, histogram["rejected"], strict=True)), "other"),
    ]
    yield "Rewards of held-out answers", line_chart(lines, x_name="reward", y_name="answers")


ALIGNMENT_CURVES = (
    ("Reward", "reward", ("reward", "samples"), ("evalReward", "held-out prompts"), ("heldOut", "held-out score")),
    ("Divergence from the start model, nats per answer", "nats", ("kl", "samples"), ("evalKl", "held-out prompts")),
    ("Length of answers", "tokens", ("responseLength", "samples"), ("evalLength", "held-out prompts")),
    ("Different bigrams of answers", "share", ("distinct2", "held-out prompts")),
    ("Perplexity of the held-out answers in the data", "perplexity", ("perplexity", "held-out prompts")),
    ("Entropy, nats per token", "nats", ("entropy", "samples")),
    ("Tokens whose ratio is clipped", "share", ("clipFraction", "samples")),
)
"""Caption, name of the y axis, and (metric, name of its line) of each chart over an alignment's iterations."""


def _alignment(lines: list[dict[str, Any]]) -> Iterable[str]:
    """A section of charts for each step of an alignment."""
    iterations = [line for line in lines if "iteration" in line]
    for step in dict.fromkeys(line["align_step"] for line in iterations):
        yield gallery(step, _step_charts([line for line in iterations if line["align_step"] == step]))


def _step_charts(iterations: list[dict[str, Any]]) -> Iterable[tuple[str, str]]:
    for caption, y_name, *curves in ALIGNMENT_CURVES:
        drawn = [
            Line(name, [(one["iteration"], one["metrics"][key]) for one in iterations if key in one["metrics"]], style)
            for (key, name), style in zip(curves, ("main", "other", "third"), strict=False)
        ]
        if any(line.points for line in drawn):
            yield caption, line_chart(drawn, x_name="iteration", y_name=y_name)


def _samples(samples: list[Mapping[str, Any]]) -> str:
    if not samples:
        return ""
    where = "held-out prompts" if samples[0]["held_out"] else "prompts of the training data (none were held out)"
    compares = any(sample.get("before") is not None for sample in samples)
    after = "After" if compares else "The model"
    names = {"prompt": "Prompt", "reference": "In the data", "before": "Before", "answer": after}
    shown = [name for name in names if any(sample.get(name) is not None for sample in samples)]
    head = "".join(f"<th>{names[name]}</th>" for name in shown)
    rows = "".join(
        f"<tr>{''.join(f'<td>{answer_text(sample[name])}</td>' for name in shown)}</tr>" for sample in samples
    )
    return (
        f"<section class=samples><h2>Likeliest answers to {where}</h2><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></section>"
    )


def _settings(job: Mapping[str, Any]) -> dict[str, str]:
    """The blocks of the job that decide the training, as `training.seed` and value."""
    rows: dict[str, str] = {}
    for block in (
        "model",
        "dataset",
        "vocabulary",
        "context",
        "adapter",
        "alignment",
        "training",
        "deepspeed",
        "checkpoint",
    ):
        for name, value in flat(job.get(block, {}), block):
            rows[name] = value
    return rows


def _data_rows(report: Mapping[str, Any]) -> dict[str, str]:
    rows = {}
    for split in ("train", "validation"):
        counts = report.get(split)
        if counts:
            rows[f"{split} samples"] = f"{counts['samples']:,}"
            rows[f"{split} sequences"] = f"{counts['sequences']:,}"
            rows[f"{split} tokens"] = f"{counts['tokens']:,} ({counts['answer_tokens']:,} learned)"
            rows[f"{split} sample length"] = (
                f"{counts['mean_sample']:.1f} on average, {counts['longest_sample']:,} at most"
            )
    rows["packing"] = f"{report['train']['packing_efficiency']:.1%} filled" if report["packing"] else "off"
    rows["longest allowed"] = f"{report['max_length']:,} tokens"
    ghost = report.get("ghost_attention")
    if ghost:
        rows["ghost attention"] = (
            f"{ghost['kept']:,} of {ghost['sampled']:,} sampled answers, {ghost['mean_answer']:.1f} tokens on average"
        )
    for source in report["sources"]:
        learned = source["kept"] - source.get("removed", 0)
        rows[source["uri"]] = f"{learned:,} of {source['records']:,} records ({source['shape']})"
        if source.get("perplexity"):
            rows[f"perplexity of {source['name']}"] = _spread(source["perplexity"])
    return rows


def _spread(quantiles: Mapping[str, float]) -> str:
    told = {name: f"{value:.4g}" for name, value in quantiles.items()}
    return (
        f"{told['0.5']} at the median, {told['0.25']} to {told['0.75']} in the middle half, {told['0.1']} to "
        f"{told['0.9']} in the middle eight tenths, {told['0.0']} to {told['1.0']} in all, before it was filtered"
    )


def _fact_tables(pieces: Mapping[str, Any]) -> Iterable[str]:
    """Tables of what only some jobs have: a longer vocabulary, a longer context."""
    for title, rows in (
        ("Vocabulary", vocabulary_rows(pieces["data"].get("vocabulary"))),
        ("Perplexity by length of context", length_rows(pieces.get("lengths"))),
    ):
        if rows:
            yield facts(title, rows)


def _lineage_rows(lineage: Mapping[str, Any]) -> dict[str, str]:
    rows = {
        "model": lineage["model"]["uri"],
        "digest": lineage["model"]["digest"],
        "base": lineage["base"]["uri"] or "random weights",
        "base digest": lineage["base"]["digest"] or "",
    }
    for parent in lineage.get("parents", []):
        if parent["role"] == "reward":
            rows[f"reward model {parent['name']}"] = parent["uri"]
            rows[f"reward model {parent['name']}, digest"] = parent["digest"]
    rows |= {f"data {source['uri']}": source["digest"] for source in lineage["data"]}
    for step in lineage.get("alignment", []):
        if "data" in step:
            rows[f"data of {step['step']} {step['data']['uri']}"] = step["data"]["digest"]
    rows["seed"] = str(lineage["job"].get("training", {}).get("seed", ""))
    rows |= {f"version of {name}": number for name, number in lineage["versions"].items()}
    return {name: value for name, value in rows.items() if value}
