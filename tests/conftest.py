"""Fixtures that tests of several packages share, and the order of all tests: the quick ones first."""

import pytest

pytest_plugins = ["tests.cluster_fixtures"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one package, then those that train, then those of the whole: what fails early fails soon."""
    items.sort(key=lambda item: ("/e2e/" in item.path.as_posix(), item.get_closest_marker("slow") is not None))
