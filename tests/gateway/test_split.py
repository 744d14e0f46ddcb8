"""How requests are shared out between the sides."""

import math
from collections import Counter
from collections.abc import Callable

import pytest

from alidade_gateway.backends import Backends
from alidade_gateway.settings import read_settings
from tests.gateway.running import Gateway, Upstream, ask


def backends(percent: int) -> Backends:
    flags = ["--name=tiny", "--stable=http://a", "--canary=http://b", f"--canary-percent={percent}"]
    return Backends(read_settings(flags, {}))


@pytest.mark.parametrize("percent", [1, 5, 20, 50, 99])
def test_the_canary_gets_its_share(percent: int) -> None:
    """Five standard deviations of a binomial: one draw of two million lies outside."""
    draws, share = 100_000, percent / 100
    sides = backends(percent)
    canary = sum(sides.drawn()[0] is sides.canary for _ in range(draws))
    assert abs(canary - draws * share) < 5 * math.sqrt(draws * share * (1 - share))


def test_all_or_nothing_leaves_nothing_to_chance() -> None:
    none, all_of_them = backends(0), backends(100)
    assert {none.drawn() for _ in range(1000)} == {(none.stable,)}
    assert {all_of_them.drawn() for _ in range(1000)} == {(all_of_them.canary, all_of_them.stable)}


def test_requests_over_http_are_shared_out_and_counted(
    start: Callable[..., Gateway], replica: Callable[..., Upstream], stable: Upstream
) -> None:
    """400 requests at 25 %: each reaches the side that its header names, and the status counts the same."""
    canary = replica("canary")
    gateway = start(stable.url, canary=canary.url, canary_percent=25)
    replies = [ask(gateway.url, "/echo") for _ in range(400)]
    assert all(reply.json()["name"] == reply.headers["X-Alidade-Backend"] for reply in replies)
    shares = Counter(reply.headers["X-Alidade-Backend"] for reply in replies)
    assert abs(shares["canary"] - 100) < 5 * math.sqrt(400 * 0.25 * 0.75)
    told = gateway.status()["backends"]
    assert {side: told[side]["requests"] for side in told} == shares
