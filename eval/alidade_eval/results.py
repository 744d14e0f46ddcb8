"""What an evaluation has found, as files of its output folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alidade_crds.contract import EvaluationDocument
from alidade_crds.evaluation import EvaluationResult
from alidade_engine.disk import write_file
from alidade_eval.places import RESULTS_FILE, SCORES_FOLDER
from alidade_eval.suites.base import Sample

VERSION = "alidade.dev/evaluation-results/v1"


@dataclass(frozen=True)
class Outcome:
    """Everything that results.json holds.

    details: by suite, what it has beside numbers. directions: by suite, which way of each metric is better. leaks: by
    suite, the prompts that the training data has. seconds: by model, how long it took.
    """

    results: Sequence[EvaluationResult]
    details: Mapping[str, Mapping[str, Any]]
    directions: Mapping[str, Mapping[str, str | None]]
    leaks: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def write_results(output: Path, document: EvaluationDocument, outcome: Outcome, finished_at: str) -> None:
    """Writes results.json."""
    content = {
        "version": VERSION,
        "owner": document.owner.to_dict(),
        "finishedAt": finished_at,
        "baseline": document.baseline,
        "models": [{"name": name, "uri": _address(document, name)} for name in document.model_names()],
        "suites": [
            {
                "name": suite.title,
                "type": str(suite.type),
                "settings": suite.to_dict(),
                "directions": dict(outcome.directions.get(suite.title, {})),
                "details": dict(outcome.details.get(suite.title, {})),
                "leaks": list(outcome.leaks.get(suite.title, ())),
            }
            for suite in document.suites
        ],
        "results": [result.to_dict() for result in outcome.results],
        "warnings": list(outcome.warnings),
        "seconds": {model: round(seconds, 3) for model, seconds in outcome.seconds.items()},
    }
    write_file(output / RESULTS_FILE, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def _address(document: EvaluationDocument, name: str) -> str | None:
    if document.endpoint is not None:
        return document.endpoint.url
    return next(one.model.uri for one in document.models if one.name == name)


def write_samples(output: Path, suite: str, samples: Sequence[Sample]) -> None:
    """Writes scores/SUITE.jsonl: a line for each record, with every model's answer and scores."""
    (output / SCORES_FOLDER).mkdir(exist_ok=True)
    lines = (json.dumps(asdict(sample), ensure_ascii=False) + "\n" for sample in samples)
    write_file(output / SCORES_FOLDER / f"{suite}.jsonl", "".join(lines))
