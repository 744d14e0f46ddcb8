"""The evaluation document, and whose an output folder is."""

import json
from pathlib import Path

import pytest

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_eval.documents import claim_folder, read_document
from tests.eval.conftest import Evaluate


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no evaluation document"),
        ("[]", "is no evaluation document"),
        ('{"version": "alidade.dev/evaluation/v9"}', "this image reads 'alidade.dev/evaluation/v1'. Use operator and"),
        ('{"baseline": "one"}', "owner: Field required."),
    ],
)
def test_a_document_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(JobFailure) as failure:
        read_document(tmp_path / "job.json")
    assert message in failure.value.message
    assert failure.value.reason is FailureReason.CONFIG_INVALID


def test_a_document_is_read_as_it_was_written(tmp_path: Path, evaluate: Evaluate) -> None:
    document = evaluate({"type": "generation"})
    (tmp_path / "job.json").write_text(json.dumps(document.to_dict()))
    assert read_document(tmp_path / "job.json") == document


def test_a_folder_is_kept_for_its_evaluation(tmp_path: Path, evaluate: Evaluate) -> None:
    claim_folder(tmp_path, evaluate({"type": "generation"}), is_first=True)
    claim_folder(tmp_path, evaluate({"type": "generation"}, workers=4, output="elsewhere"), is_first=True)
    with pytest.raises(JobFailure) as failure:
        claim_folder(tmp_path, evaluate({"type": "generation"}, seed=1), is_first=False)
    assert failure.value.reason is FailureReason.CONFIG_INVALID
    assert "holds the samples of another evaluation (it differs in seed). Give this one an output.uri" in str(
        failure.value
    )
