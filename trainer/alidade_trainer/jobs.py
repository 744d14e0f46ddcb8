"""The job document: read, checked, and summed up as a fingerprint."""

import hashlib
import json
from pathlib import Path

from pydantic import ValidationError

from alidade_crds.contract import JOB_VERSION, JobDocument

MOST_ERRORS_SHOWN = 5

# What may change between attempts of the same training: who asks for it, where it goes, how often it is saved.
NOT_FINGERPRINTED = ("owner", "output", "checkpoint", "tracking", "publish", "peakTflops")


class JobError(ValueError):
    """A job document that cannot be used; the message names file, field, value and what is allowed."""


def read_job(path: Path) -> JobDocument:
    """The job document at path. Raises JobError when it is missing, no JSON, of another version, or has wrong "
    "fields."""
    try:
        text = path.read_text()
    except OSError as error:
        raise JobError(f"The job document {path} cannot be read: {error.strerror}.") from error
    try:
        document = json.loads(text)
    except ValueError as error:
        raise JobError(f"The job document {path} is no JSON: {error}.") from error
    version = document.get("version", JOB_VERSION) if isinstance(document, dict) else None
    if version != JOB_VERSION:
        raise JobError(
            f"The job document's version is {version!r}; this trainer reads {JOB_VERSION!r}. "
            "Use operator and trainer image of the same release."
        )
    try:
        return JobDocument.model_validate(document)
    except ValidationError as error:
        raise JobError(f"The job document {path} is not valid: {_describe(error)}") from error


def _describe(error: ValidationError) -> str:
    lines = []
    for item in error.errors(include_url=False)[:MOST_ERRORS_SHOWN]:
        field = ".".join(str(part) for part in item["loc"])
        lines.append(f"{field}: {item['msg']} (found {str(item['input'])[:80]!r})")
    return "; ".join(lines) + "."


def fingerprint(job: JobDocument) -> str:
    """sha256 of everything in the job that changes what is learned; equal for two attempts of the same training."""
    content = {key: value for key, value in job.chosen().items() if key not in NOT_FINGERPRINTED}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def describe_differences(one: dict[str, object], other: dict[str, object], prefix: str = "") -> list[str]:
    """The fields in which two job documents differ, as `training.seed: 0, now 1`; what is not fingerprinted is "
    "passed over."""
    found: list[str] = []
    for key in sorted(set(one) | set(other)):
        before, now = one.get(key), other.get(key)
        if before == now or (not prefix and key in NOT_FINGERPRINTED):
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            found += describe_differences(before, now, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key}: {json.dumps(before)}, now {json.dumps(now)}")
    return found
