"""The evaluation document: read, checked, and told from another one."""

import json
from pathlib import Path

from pydantic import ValidationError

from alidade_crds.contract import EVALUATION_VERSION, EvaluationDocument
from alidade_crds.reasons import FailureReason
from alidade_engine.disk import write_file
from alidade_engine.failures import JobFailure
from alidade_eval.places import DOCUMENT_FILE

NOT_COMPARED = ("owner", "output", "workers", "processesPerWorker")
"""What may change between attempts: it changes no number."""
MOST_SHOWN = 5


def read_document(path: Path) -> EvaluationDocument:
    """The document at a path. Raises JobFailure (ConfigInvalid) when it cannot be used."""
    try:
        content = json.loads(path.read_text())
        version = content.get("version", EVALUATION_VERSION)
        if version != EVALUATION_VERSION:
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"The evaluation document's version is {version!r}; this image reads {EVALUATION_VERSION!r}. Use "
                "operator and evaluation image of the same release.",
            )
        return EvaluationDocument.model_validate(content)
    except OSError as error:
        raise JobFailure(FailureReason.CONFIG_INVALID, f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise JobFailure(FailureReason.CONFIG_INVALID, f"{path}: {field}: {first['msg']}.") from error
    except (ValueError, AttributeError) as error:
        raise JobFailure(FailureReason.CONFIG_INVALID, f"{path} is no evaluation document: {error}.") from error


def claim_folder(output: Path, document: EvaluationDocument, *, is_first: bool) -> None:
    """Makes the output folder this evaluation's, which one process does for all.

    Raises JobFailure (ConfigInvalid) when it is another one's.
    """
    path = output / DOCUMENT_FILE
    mine = _compared(document.to_dict())
    if not path.is_file():
        if is_first:
            write_file(path, json.dumps(mine, ensure_ascii=False, indent=1, sort_keys=True) + "\n")
        return
    theirs = json.loads(path.read_text())
    differing = sorted(name for name in set(mine) | set(theirs) if mine.get(name) != theirs.get(name))
    if differing:
        shown = ", ".join(differing[:MOST_SHOWN])
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"{document.output} holds the samples of another evaluation (it differs in {shown}). Give this one an "
            "output.uri of its own, or delete that folder.",
        )


def _compared(content: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in content.items() if name not in NOT_COMPARED}
