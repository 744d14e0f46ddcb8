"""What the kubelet knows of a container: the states that go into its ContainerStatus."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from alidade_local.objects import Object, format_time, parse_time

# The exit code of a container whose end nobody saw, as the kubelet reports it.
UNKNOWN_EXIT_CODE = 137


@dataclass(frozen=True)
class Waiting:
    reason: str
    message: str = ""

    def document(self) -> Object:
        return {"waiting": {"reason": self.reason} | ({"message": self.message} if self.message else {})}


@dataclass(frozen=True)
class Running:
    started_at: datetime

    def document(self) -> Object:
        return {"running": {"startedAt": format_time(self.started_at)}}


@dataclass(frozen=True)
class Terminated:
    """exit_code: 128 + signal for a container that a signal ended; signal: that signal, zero for none."""

    exit_code: int
    reason: str
    started_at: datetime
    finished_at: datetime
    message: str = ""
    container_id: str = ""

    def document(self) -> Object:
        terminated: Object = {
            "exitCode": self.exit_code,
            "reason": self.reason,
            "startedAt": format_time(self.started_at),
            "finishedAt": format_time(self.finished_at),
        }
        if self.message:
            terminated["message"] = self.message
        if self.container_id:
            terminated["containerID"] = self.container_id
        return {"terminated": terminated}


State = Waiting | Running | Terminated


@dataclass
class ContainerRecord:
    """The life of one container so far.

    last: how its previous run ended; started: whether the startup probe succeeded (or there is none);
    ready: whether it is running and its readiness probe, if any, succeeds.
    """

    name: str
    image: str
    state: State
    last: Terminated | None = None
    restart_count: int = 0
    started: bool = False
    ready: bool = False
    container_id: str = field(default="")

    def status(self) -> Object:
        return {
            "name": self.name,
            "image": self.image,
            "imageID": "",
            "containerID": self.container_id,
            "state": self.state.document(),
            "lastState": self.last.document() if self.last else {},
            "restartCount": self.restart_count,
            "started": self.started,
            "ready": self.ready,
        }


def terminated_from(document: Object) -> Terminated:
    """The `terminated` state of a ContainerStatus as it was written."""
    return Terminated(
        exit_code=document["exitCode"],
        reason=document.get("reason", ""),
        started_at=parse_time(document["startedAt"]),
        finished_at=parse_time(document["finishedAt"]),
        message=document.get("message", ""),
        container_id=document.get("containerID", ""),
    )


def record_after_restart(container: Object, status: Object | None, now: datetime) -> ContainerRecord:
    """What is known of a container when the kubelet finds its pod again after it was not running itself.

    A container that was running then has ended with the kubelet: nobody saw how.
    """
    record = ContainerRecord(
        name=container["name"], image=container.get("image", ""), state=Waiting("ContainerCreating")
    )
    if status is None:
        return record
    record.restart_count = status.get("restartCount", 0)
    record.container_id = status.get("containerID", "")
    if last := (status.get("lastState") or {}).get("terminated"):
        record.last = terminated_from(last)
    state = status.get("state") or {}
    if terminated := state.get("terminated"):
        record.state = terminated_from(terminated)
    elif running := state.get("running"):
        record.state = Terminated(
            exit_code=UNKNOWN_EXIT_CODE,
            reason="ContainerStatusUnknown",
            started_at=parse_time(running["startedAt"]),
            finished_at=now,
            message="The container ended when the local cluster was stopped.",
            container_id=record.container_id,
        )
    elif record.last and (state.get("waiting") or {}).get("reason") == "CrashLoopBackOff":
        record.state = record.last
    return record


def should_restart(restart_policy: str, exit_code: int) -> bool:
    """Whether a container that ended with this code is run again in its pod."""
    return restart_policy == "Always" or (restart_policy == "OnFailure" and exit_code != 0)
