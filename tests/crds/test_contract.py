"""The documents that operator and trainer exchange."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from alidade_crds.blocks import ModelInit
from alidade_crds.contract import (
    TERMINATION_MESSAGE_LIMIT,
    Failure,
    JobDocument,
    JobModel,
    Owner,
    ProgressDocument,
    ResultDocument,
    Stage,
)  # fmt: skip
from alidade_crds.status import ModelInfo
from alidade_crds.text_dataset import TextDataset

OWNER = Owner(kind="FineTuneJob", namespace="default", name="kbqa", uid="1")
INIT = ModelInit(hidden_size=64, layers=2, heads=4, vocab_size=400)
JOB = JobDocument(
    owner=OWNER,
    stage=Stage.SFT,
    model=JobModel(init=INIT),
    dataset=TextDataset(uri="configmap://data/train.json"),
    output="pvc://alidade-workspace/finetunejobs/kbqa-1",
)
MODEL = ModelInfo(uri="pvc://w/model", digest="sha256:0", parameters=1, trainable_parameters=1)


def test_a_job_document_survives_the_way_through_json() -> None:
    assert JobDocument.model_validate_json(json.dumps(JOB.to_dict())) == JOB


def test_a_reader_refuses_a_job_of_a_version_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="version"):
        JobDocument.model_validate({**JOB.to_dict(), "version": "alidade.dev/job/v2"})


def test_a_job_document_with_a_field_the_trainer_does_not_know_is_refused_rather_than_half_obeyed() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        JobDocument.model_validate({**JOB.to_dict(), "lora": {}})


def test_a_newer_trainer_may_tell_more_than_the_operator_knows() -> None:
    progress = ProgressDocument(state="training", step=3, updated_at=datetime.now(UTC))
    assert ProgressDocument.model_validate({**progress.to_dict(), "novelty": 1}) == progress


@given(
    warnings=st.lists(st.text(max_size=500), max_size=20),
    metrics=st.dictionaries(
        st.text(min_size=1, max_size=40), st.floats(allow_nan=False, allow_infinity=False), max_size=80
    ),
    message=st.text(max_size=3000),
)
def test_a_termination_message_always_fits_and_keeps_what_decides(
    warnings: list[str], metrics: dict[str, float], message: str
) -> None:
    failed = ResultDocument(
        outcome="failed",
        metrics=metrics,
        warnings=warnings,
        failure=Failure(reason="Crashed", message=message, retryable=True),
    )
    text = failed.to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    read = ResultDocument.model_validate_json(text)
    assert read.failure is not None
    assert read.failure.retryable
    assert failed.failure is not None
    assert failed.failure.message.startswith(read.failure.message)


def test_a_short_result_keeps_everything() -> None:
    result = ResultDocument(outcome="succeeded", model=MODEL, metrics={"loss": 1.5}, warnings=["2 records left out"])
    assert ResultDocument.model_validate_json(result.to_termination_message()) == result
