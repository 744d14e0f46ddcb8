"""The local API server answers as kube-apiserver does: as was recorded from a real one, and as one beside it does.

A real one is compared with where `--kubeconfig` names it or KUBEBUILDER_ASSETS has its binaries.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests.local.conformance import generated
from tests.local.conformance.recording import all_cases, differences, install_definition, recorded, reference
from tests.local.conformance.scripts import Case, Runner, written_cases
from tests.local.conformance.servers import local_server

Json = dict[str, Any]

ANSWERS = recorded()
DIFFERENCES = differences()


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


def unexpected(case: Case, here: list[Json], there: list[Json]) -> str:
    """Where two servers' answers to a case differ, but for the known differences."""
    found = []
    for index, (mine, other) in enumerate(zip(here, there, strict=True)):
        known = DIFFERENCES.get(case.name, {}).get(str(index))
        if mine != (other if known is None else known):
            found.append(f"{case.steps[index]}\n  here:  {mine}\n  there: {other}\n  known: {known}")
    return "\n".join(found)


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_it_answers_as_was_recorded_from_kube_apiserver(case: Case, local: Runner) -> None:
    """Written cases and scripts made by chance."""
    found = unexpected(case, local.run(case), ANSWERS[case.name])
    assert not found, found


def test_known_differences_are_differences() -> None:
    """What has been mended is struck from the list."""
    same = [
        f"{name}, step {index}"
        for name, steps in DIFFERENCES.items()
        for index, here in steps.items()
        if here == ANSWERS[name][int(index)]
    ]
    assert not same


@pytest.mark.parametrize("case", written_cases(), ids=lambda case: case.name)
def test_it_answers_as_a_real_one(case: Case, local: Runner, real: Runner) -> None:
    """Each written case, on both."""
    found = unexpected(case, local.run(case), real.run(case))
    assert not found, found


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=generated.scripts)
def test_it_accepts_and_stores_as_a_real_one(steps: list[Json], local: Runner, real: Runner) -> None:
    """New scripts on each run, on both; of a refusal it matters that it is one, of warnings nothing."""
    case = Case("by chance", steps)
    for step, mine, other in zip(steps, local.run(case), real.run(case), strict=True):
        assert (mine["code"] < 400) == (other["code"] < 400), (step, mine, other)
        assert mine.get("body") == other.get("body") or mine["code"] >= 400, (step, mine, other)
