"""What a plan is: children to make and to delete, the status to write, the events to post, when to look again."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import ValidationError

from alidade_crds.jobs import FineTuneJobSpec
from alidade_crds.status import JobStatus
from alidade_operator.api import JsonObject, Kind


@dataclass(frozen=True)
class FineTuneJob:
    """A FineTuneJob: spec parsed, and why not when it could not be."""

    namespace: str
    name: str
    uid: str
    generation: int
    terminating: bool
    spec: FineTuneJobSpec | None
    spec_error: str
    status: JobStatus

    @classmethod
    def parse(cls, body: JsonObject) -> "FineTuneJob":
        """The resource of an object of the API."""
        metadata = body["metadata"]
        spec, spec_error = None, ""
        try:
            spec = FineTuneJobSpec.model_validate(body.get("spec") or {})
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            spec_error = f"spec.{'.'.join(str(part) for part in first['loc'])}: {first['msg']}."
        return cls(
            namespace=metadata["namespace"],
            name=metadata["name"],
            uid=metadata["uid"],
            generation=int(metadata.get("generation", 1)),
            terminating=bool(metadata.get("deletionTimestamp")),
            spec=spec,
            spec_error=spec_error,
            status=parse_status(body),
        )


def parse_status(body: JsonObject) -> JobStatus:
    """The status as it was last written; an unreadable one counts as none, since it can be made anew."""
    try:
        return JobStatus.model_validate(body.get("status") or {})
    except ValidationError:
        return JobStatus()


@dataclass(frozen=True)
class Create:
    """A child that is made once and never rewritten, because others own fields of it."""

    kind: Kind
    body: JsonObject


@dataclass(frozen=True)
class Apply:
    """A child that is brought to what it should be by server-side apply."""

    kind: Kind
    body: JsonObject


@dataclass(frozen=True)
class Delete:
    """An object that is no longer wanted; only the one of that uid is deleted."""

    kind: Kind
    name: str
    uid: str


@dataclass(frozen=True)
class Notice:
    """A Kubernetes Event about the resource; posted on transitions only."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True)
class Decision:
    """What was decided and why; one line of the log."""

    action: str
    why: str


@dataclass(frozen=True)
class ProgressTarget:
    """The pod that is asked for progress."""

    pod_uid: str
    ip: str


@dataclass(frozen=True)
class Plan:
    """What is to be done about a resource now. The order is: status, then deletions, then children, then notices."""

    status: JobStatus | None = None
    """The status as it should read; None leaves it alone."""
    children: tuple[Create | Apply, ...] = ()
    deletions: tuple[Delete, ...] = ()
    notices: tuple[Notice, ...] = ()
    decisions: tuple[Decision, ...] = ()
    look_again_s: float | None = None
    """Seconds after which time alone could change the plan."""
    progress: ProgressTarget | None = None


def seconds_until(then: datetime, now: datetime) -> float:
    """Seconds from now, at least 0."""
    return max(0.0, (then - now).total_seconds())
