"""A watch goes on through what ends a single one: time, versions that are too old, an API server that starts anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import watch
from kubernetes.client import ApiClient, ApiException
from urllib3.exceptions import ProtocolError

from alidade.errors import UnreachableError
from alidade.resources import Resources
from alidade_crds.crd import KINDS
from alidade_crds.jobs import FineTuneJobSpec
from alidade_crds.status import JobStatus

Step = int | Exception
"""What a watch tells: the version of a changed resource, or how it ends."""


def event(version: int) -> dict[str, Any]:
    spec = {"method": "sft", "model": {"uri": "hf://org/base"}, "dataset": {"uri": "pvc://data/train.json"}}
    metadata = {"name": "a", "namespace": "default", "uid": "u", "generation": 1, "resourceVersion": str(version)}
    return {"type": "MODIFIED", "object": {"metadata": metadata, "spec": spec}}


class Watches:
    """Watches that go as they are told, one after the other; asked: from which version each was to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *told: list[Step]) -> None:
        self.told, self.asked = list(told), list[str | None]()
        monkeypatch.setattr(watch, "Watch", lambda: self)
        monkeypatch.setattr("alidade.resources._PAUSE_S", 0)

    def stream(self, call: object, *place: object, resource_version: str | None, **options: object) -> Iterator[Any]:
        self.asked.append(resource_version)
        for step in self.told.pop(0):
            if isinstance(step, Exception):
                raise step
            yield event(step)


def versions(count: int) -> list[str]:
    """The versions of the first changes that a watch of all FineTuneJobs tells of."""
    kind = next(kind for kind in KINDS if kind.kind == "FineTuneJob")
    resources = Resources(kind, FineTuneJobSpec, JobStatus, "default", ApiClient())
    changes = resources.watch()
    return [next(changes).resource.body["metadata"]["resourceVersion"] for _ in range(count)]


def test_it_goes_on_where_the_one_before_ended_and_anew_when_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    watches = Watches(monkeypatch, [1], [2, ApiException(status=410, reason="Expired")], [3])
    assert versions(3) == ["1", "2", "3"]
    assert watches.asked == [None, "1", None]


def test_it_outlives_an_api_server_that_starts_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    away = ProtocolError("Connection broken")
    watches = Watches(monkeypatch, [1, away], [away], [ApiException(status=503, reason="Starting")], [2])
    assert versions(2) == ["1", "2"]
    assert watches.asked == [None, "1", "1", "1"]


def test_it_ends_with_one_that_is_gone_or_was_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    away = ProtocolError("Connection broken")
    monkeypatch.setattr("alidade.resources._PATIENCE_S", -1)
    Watches(monkeypatch, [1, away])
    with pytest.raises(UnreachableError, match="Connection broken"):
        versions(2)
    monkeypatch.undo()
    Watches(monkeypatch, [away])
    with pytest.raises(UnreachableError):
        versions(1)
