"""Job documents: read with helpful refusals, and told apart by what they teach."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alidade_trainer.jobs import JobError, describe_differences, fingerprint, read_job


def test_a_job_of_another_version_is_refused_with_both_versions(make_job: Callable[..., Path]) -> None:
    path = make_job({"version": "alidade.dev/job/v2"})

    with pytest.raises(JobError, match=r"version is 'alidade.dev/job/v2'; this trainer reads 'alidade.dev/job/v1'"):
        read_job(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is no JSON"), ("[]", "version is None"), ('{"version": "alidade.dev/job/v1"}', "owner")],
)
def test_what_is_no_job_document_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.json"
    path.write_text(text)

    with pytest.raises(JobError, match=message):
        read_job(path)


def test_a_missing_job_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"nowhere\.json cannot be read: No such file"):
        read_job(tmp_path / "nowhere.json")


def test_a_wrong_field_is_named_with_what_was_found(make_job: Callable[..., Path]) -> None:
    with pytest.raises(JobError, match=r"training\.learningRate: .* \(found '-1'\)"):
        read_job(make_job({"training": {"learningRate": -1}}))


@pytest.mark.parametrize(
    ("over", "same"),
    [
        ({"owner": {"uid": "4567"}}, True),
        ({"checkpoint": {"everySteps": 5}}, True),
        ({"output": "file:///elsewhere"}, True),
        ({"training": {"seed": 4}}, False),
        ({"dataset": {"maxLength": 64}}, False),
        ({"adapter": {"type": "lora"}}, False),
    ],
)
def test_the_fingerprint_changes_with_what_is_learned_and_with_nothing_else(
    make_job: Callable[..., Path], over: dict[str, Any], same: bool
) -> None:
    usual = fingerprint(read_job(make_job()))

    assert (fingerprint(read_job(make_job(over))) == usual) == same


def test_differences_are_named_by_field_with_both_values(make_job: Callable[..., Path]) -> None:
    one = json.loads(make_job().read_text())
    other = json.loads(make_job({"training": {"seed": 4}, "owner": {"uid": "1"}}).read_text())

    assert describe_differences(one, other) == ["training.seed: 3, now 4"]
