"""Every job has a port of its own on this machine."""

from __future__ import annotations

import socket

import pytest

from alidade_local.controllers import ports
from alidade_local.controllers.ports import PortChooser


def job(uid: str) -> dict[str, dict[str, str]]:
    return {"metadata": {"uid": uid}}


def test_a_job_keeps_its_port_and_no_other_gets_it() -> None:
    chooser = PortChooser(set)
    first = chooser.choose(job("a"))
    assert chooser.choose(job("a")) == first
    assert chooser.choose(job("b")) != first


def test_ports_that_are_listened_on_or_belong_to_a_service_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        taken = listening.getsockname()[1]
        monkeypatch.setattr(ports, "FIRST_PORT", taken)
        monkeypatch.setattr(ports, "LAST_PORT", taken + 50)
        assert PortChooser(lambda: {taken + 1, taken + 2}).choose(job("a")) > taken + 2


def test_when_all_are_taken_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "LAST_PORT", ports.FIRST_PORT + 1)
    with pytest.raises(OSError, match="no port between 20000 and 20001 is free"):
        PortChooser(lambda: {20000, 20001}).choose(job("a"))


def test_the_port_of_a_deleted_job_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    chooser = PortChooser(set)
    port = chooser.choose(job("a"))
    monkeypatch.setattr(ports, "FIRST_PORT", port)
    monkeypatch.setattr(ports, "LAST_PORT", port)
    chooser = PortChooser(set)
    chooser.choose(job("a"))
    chooser.forget(job("a"))
    assert chooser.choose(job("b")) == port


def test_two_clusters_of_one_machine_begin_in_different_places() -> None:
    # Neither sees what the other has given out and nothing listens on yet; 8 equal draws of 10,000 are no chance.
    assert len({PortChooser(set).choose(job("a")) for _ in range(8)}) > 1
