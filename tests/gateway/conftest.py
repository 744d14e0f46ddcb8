"""Gateways and replicas of a test's own, and a pair that is shared."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.gateway.running import Gateway, Upstream


@pytest.fixture(scope="module")
def stable() -> Iterator[Upstream]:
    """A replica for all tests of a module that leave it as it was."""
    with ExitStack() as ended:
        made = Upstream("stable")
        ended.callback(made.kill)
        yield made


@pytest.fixture(scope="module")
def gateway(stable: Upstream) -> Iterator[Gateway]:
    """A gateway before that replica."""
    with ExitStack() as ended:
        made = Gateway(stable.url, max_body_bytes=1 << 20, read_timeout_s=1)
        ended.callback(made.end)
        yield made


@pytest.fixture
def replica() -> Iterator[Callable[..., Upstream]]:
    """Starts replicas of the test's own and ends them."""
    with ExitStack() as ended:

        def start(name: str, port: int | None = None) -> Upstream:
            made = Upstream(name, port)
            ended.callback(made.kill)
            return made

        yield start


@pytest.fixture
def start(replica: Callable[..., Upstream]) -> Iterator[Callable[..., Gateway]]:
    """Starts gateways of the test's own and ends them, before their replicas."""
    with ExitStack() as ended:

        def starter(stable: str, **flags: object) -> Gateway:
            made = Gateway(stable, **flags)
            ended.callback(made.end)
            return made

        yield starter
