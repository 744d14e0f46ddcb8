"""Fixtures that tests of several packages share, the order of all tests, and which of two processes runs which."""

from typing import Any

import hypothesis
import pytest
from xdist.scheduler import LoadScopeScheduling

pytest_plugins = ["tests.cluster_fixtures"]

# How long an example takes is the machine's matter: it has other things to do meanwhile.
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.register_profile("long", deadline=None, max_examples=2000)
hypothesis.settings.load_profile("shared machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Another cluster for the tests that can run on any."""
    parser.addoption(
        "--kubeconfig", help="a cluster that the local API server is compared with (tests/local/conformance)"
    )


WHOLE = "tests/e2e/"
"""Tests of all packages together: they share a cluster, and are about as long as all others together."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one package, then those that train, then those of the whole: what fails early fails soon.

    Of processes that share the tests, one begins with those of the whole at once.
    """
    shared = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.nodeid.startswith(WHOLE) != shared, item.get_closest_marker("slow") is not None))


class Parts(LoadScopeScheduling):
    """The tests of the whole are one process's, for their cluster; of others a file, for its module's fixtures."""

    def _split_scope(self, nodeid: str) -> str:
        return WHOLE if nodeid.startswith(WHOLE) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Parts:
    """What `--numprocesses` shares the tests by."""
    return Parts(config, log)
