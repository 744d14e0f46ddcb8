"""result.json of an output folder, and whether it is that of the same job."""

import json
from pathlib import Path

from alidade_crds.contract import JobDocument, ResultDocument
from alidade_crds.reasons import FailureReason
from alidade_engine.disk import write_file
from alidade_trainer.failures import JobFailure
from alidade_trainer.jobs import describe_differences, fingerprint

RESULT_FILE = "result.json"


def write_result(output: Path, result: ResultDocument) -> None:
    """Writes result.json, which says that everything else is complete."""
    write_file(output / RESULT_FILE, result.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")


def finished_result(output: Path, job: JobDocument) -> ResultDocument | None:
    """The result of the same job when its model is complete in the output folder; None when there is none.

    Raises JobFailure (ConfigInvalid) when the folder holds the model of another job, which must not be overwritten.
    """
    path, lineage_path = output / RESULT_FILE, output / "model" / "lineage.json"
    if not path.is_file() or not lineage_path.is_file():
        return None
    result = ResultDocument.model_validate_json(path.read_text())
    lineage = json.loads(lineage_path.read_text())
    if lineage["jobFingerprint"] != fingerprint(job):
        raise JobFailure(FailureReason.CONFIG_INVALID, another_job(job, lineage["job"], "the model"))
    same = result.model is not None and result.model.digest == lineage["model"]["digest"]
    return result if result.outcome == "succeeded" and same else None


def another_job(job: JobDocument, other: dict[str, object], what: str) -> str:
    """The sentence that says that an output folder belongs to another job, and in what that one differs."""
    differences = describe_differences(other, job.to_dict())
    shown = "; ".join(differences[:5]) + ("; …" if len(differences) > 5 else "")
    return (
        f"{job.output} holds {what} of another job ({shown or 'the data has changed'}). Give this job an output.uri "
        "of its "
        "own, or delete that folder."
    )
