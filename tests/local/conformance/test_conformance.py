"""The local API server answers as kube-apiserver does: as was recorded from a real one, and as one beside it does.

A real one is compared with where `--kubeconfig` names it or KUBEBUILDER_ASSETS has its binaries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.local.conformance import generated
from tests.local.conformance.recording import (
    GENERATED,
    install_definition,
    recorded,
    reference,
)
from tests.local.conformance.scripts import Case, Runner, written_cases
from tests.local.conformance.servers import local_server

Json = dict[str, Any]

CASES = written_cases()
ANSWERS = recorded()


@pytest.fixture(scope="module")
def local() -> Iterator[Runner]:
    """The local server."""
    with local_server() as server:
        install_definition(server)
        yield Runner(server)


@pytest.fixture(scope="module")
def real(request: pytest.FixtureRequest) -> Iterator[Runner]:
    """The real server."""
    with reference(request.config.getoption("--kubeconfig")) as server:
        if server is None:
            pytest.skip("no real API server: give --kubeconfig or set KUBEBUILDER_ASSETS")
        install_definition(server)
        yield Runner(server)


def differences(case: Case, here: list[Json], there: list[Json]) -> list[str]:
    """Where two servers' answers to a case differ, but for what a step says will."""
    found = []
    for step, mine, other in zip(case.steps, here, there, strict=True):
        if "here" in step:
            if mine["code"] != step["here"]:
                found.append(f"{step}\n  here:  {mine}\n  to be: {step['here']}, for: {step['why']}")
        elif mine != other:
            found.append(f"{step}\n  here:  {mine}\n  there: {other}")
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_answers_as_was_recorded_from_kube_apiserver(case: Case, local: Runner) -> None:
    """Each case of the folder."""
    found = differences(case, local.run(case), ANSWERS[case.name])
    assert not found, "\n".join(found)


def test_it_answers_to_scripts_made_by_chance_as_was_recorded(local: Runner) -> None:
    """All of them, so that one run says everything that differs."""
    found = []
    for name, script in GENERATED.read().items():
        case = Case(name, script["steps"])
        found += differences(case, local.run(case), script["answers"])
    assert not found, "\n".join(found)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_answers_as_a_real_one(case: Case, local: Runner, real: Runner) -> None:
    """Each case of the folder, on both."""
    found = differences(case, local.run(case), real.run(case))
    assert not found, "\n".join(found)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=generated.scripts)
def test_it_answers_to_anything_as_a_real_one(steps: list[Json], local: Runner, real: Runner) -> None:
    """New scripts on each run, on both."""
    case = Case("generated", steps)
    found = differences(case, local.run(case), real.run(case))
    assert not found, "\n".join(found)
