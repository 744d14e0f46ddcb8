"""What `alidade wait` says of a job."""

import io
from pathlib import Path
from typing import Any

import pytest

from alidade_cli.errors import ClusterSilent, CommandFailed
from alidade_cli.kube import Cluster, Resource, kind_named
from alidade_cli.waiting import wait_for
from alidade_crds.crd import Kind


class Answers(Cluster):
    """A cluster that gives the resource's states one after the other, the last one for ever."""

    states: list[Resource]

    def read(self, kind: Kind, name: str) -> Resource:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


def cluster_with(*states: Resource) -> Answers:
    cluster = Answers(Path("kubeconfig"), "default")
    object.__setattr__(cluster, "states", list(states))
    return cluster


def state(**conditions: tuple[str, str]) -> dict[str, Any]:
    entries = [{"type": name, "status": status, "message": message} for name, (status, message) in conditions.items()]
    return {"status": {"phase": "Running", "conditions": entries}}


FTJ = kind_named("ftj")


def test_a_job_that_has_succeeded_is_handed_back() -> None:
    done = state(Succeeded=("True", ""))
    assert wait_for(cluster_with(done), FTJ, "a", timeout_s=None) is done


def test_a_failed_job_ends_the_command_with_the_conditions_sentence() -> None:
    with pytest.raises(CommandFailed, match="FineTuneJob a failed: the file is empty"):
        wait_for(cluster_with(state(Failed=("True", "the file is empty"))), FTJ, "a", timeout_s=None)


@pytest.mark.parametrize(
    ("resource", "why"),
    [
        (state(Accepted=("False", "no such pool")), "Accepted is False: no such pool"),
        (state(Accepted=("True", ""), Fits=("False", "needs 100 GiB")), "Fits is False: needs 100 GiB"),
        (state(Accepted=("True", "")), "it is Running"),
        ({}, "it is not looked at by an operator yet"),
    ],
)
def test_a_job_that_takes_too_long_is_said_to_wait_for_something(resource: Resource, why: str) -> None:
    with pytest.raises(CommandFailed, match=f"has not finished after 0 s; {why}"):
        wait_for(cluster_with(resource), FTJ, "a", timeout_s=0)


def test_without_a_terminal_each_change_is_a_line_with_what_holds_it_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alidade_cli.waiting._POLL_INTERVAL_S", 0)
    refused = state(Accepted=("False", "pool a100 is not there"))
    refused["status"]["phase"] = "Waiting"
    running = state(Accepted=("True", ""))
    wait_for(cluster_with(refused, refused, running, running, state(Succeeded=("True", ""))), FTJ, "a", timeout_s=None)
    said = capsys.readouterr()
    assert said.out == ""
    assert [line.partition(" ")[2] for line in said.err.splitlines()] == [
        "FineTuneJob a: Waiting: Accepted is False: pool a100 is not there",
        "FineTuneJob a: Running",
    ]


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


def test_at_a_terminal_a_bar_shows_how_far_it_is_and_what_holds_it_up_stands_above_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("alidade_cli.waiting._POLL_INTERVAL_S", 0)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("sys.stderr", terminal := Terminal())
    refused = state(Accepted=("False", "pool [a100] is not there"))
    refused["status"]["phase"] = "Waiting"
    done = state(Succeeded=("True", ""))
    done["status"]["progress"] = {"step": 40, "totalSteps": 40, "loss": 0.5}
    wait_for(cluster_with(refused, refused, done), FTJ, "a", timeout_s=None)
    text = terminal.getvalue()
    assert text.count("Accepted is False: pool [a100] is not there") == 1
    assert "FineTuneJob a" in text
    assert "40/40" in text
    assert "Running, loss 0.500" in text
    assert capsys.readouterr().out == ""


class Silent(Answers):
    """A cluster that answers every other time, and after its last state no more."""

    def read(self, kind: Kind, name: str) -> Resource:
        if len(self.states) == 1:
            raise ClusterSilent("the cluster does not answer")
        state = self.states.pop(0)
        if not state:
            raise ClusterSilent("the cluster does not answer")
        return state


def silent(*states: Resource) -> Silent:
    cluster = Silent(Path("kubeconfig"), "default")
    object.__setattr__(cluster, "states", list(states))
    return cluster


def test_a_wait_outlives_an_api_server_that_starts_anew_but_not_one_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("alidade_cli.waiting._POLL_INTERVAL_S", 0)
    done = state(Succeeded=("True", ""))
    assert wait_for(silent(state(), {}, {}, done, {}), FTJ, "a", timeout_s=None) is done
    monkeypatch.setattr("alidade_cli.waiting._PATIENCE_S", 0)
    with pytest.raises(ClusterSilent):
        wait_for(silent(state(), {}), FTJ, "a", timeout_s=None)
    monkeypatch.undo()
    with pytest.raises(ClusterSilent):  # at the start there may be no cluster at all
        wait_for(silent({}, state(), {}), FTJ, "a", timeout_s=None)
