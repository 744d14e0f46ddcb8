"""What `alidade data show` asks the trainer's package, and what that answers."""

from typing import Any

from pydantic import Field

from alidade_crds.base import Report, Spec
from alidade_crds.contract import JobDocument


class PreviewRequest(Spec):
    """Records of a job's data that are to be shown."""

    job: JobDocument = Field(description="The job; one whose model is unset has its records shown without tokens.")
    first: int = Field(1, ge=1, description="The first record that is shown, counted from 1.")
    records: int = Field(5, ge=0, le=1000, description="Records that are shown.")
    limit: int | None = Field(None, ge=1, description="Records of each address that are counted; default: all.")


class PreviewPiece(Report):
    """The tokens of a character, or of several that no token ends between; a whole turn where there are no tokens."""

    text: str = Field(description="What it stands for.")
    learned: bool = Field(description="Whether it carries loss.")
    ids: list[int] = Field([], description="Ids of its tokens.")


class PreviewRecord(Report):
    """One sample as it is trained on."""

    place: str = Field(description="Where its record stands.")
    fault: str = Field("", description="Why it is left out; empty when it is not.")
    pieces: list[PreviewPiece] = Field(description="All of it, in order.")


class PreviewDocument(Report):
    """A job's data before it is trained on."""

    shown: list[PreviewRecord] = Field(description="Records in the order of the files.")
    failure: str = Field("", description="Why the job would fail with this data; empty when it would not.")
    data: dict[str, Any] | None = Field(
        None, description="The job's report on its data, as in its output; unset without tokens or after a failure."
    )
