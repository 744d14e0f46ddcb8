"""What `alidade wait` says of a job."""

from typing import Any

import pytest

from alidade_cli.errors import CommandFailed
from alidade_cli.jobs import wait_for
from alidade_cli.kube import Cluster, Resource, kind_named
from alidade_crds.crd import Kind


class Answers(Cluster):
    """A cluster that gives the resource's states one after the other, the last one for ever."""

    states: list[Resource]

    def read(self, kind: Kind, name: str) -> Resource:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


def cluster_with(*states: Resource) -> Answers:
    from pathlib import Path

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
