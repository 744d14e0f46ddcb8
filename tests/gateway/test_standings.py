"""Ratings from votes: by hand where that can be done, by simulation where intervals are concerned."""

import math

import numpy as np
import pytest

from alidade_gateway.pages.standings import Standing, Standings
from alidade_gateway.pages.votes import Game, Player

A, B, C = (Player(name, f"pvc://m/{name}") for name in "abc")


def standings(*games: tuple[Player, Player, float], players: tuple[Player, ...] = ()) -> dict[str, Standing]:
    made = Standings(players)
    made.add(Game(one, other, points) for one, other, points in games)
    return {standing.player.name: standing for standing in made.ranked()}


def test_without_votes_all_are_rated_alike_and_nothing_is_known() -> None:
    found = standings(players=(A, B))
    assert {name: (one.rating, one.interval, one.games) for name, one in found.items()} == {
        "a": (1000, None, 0),
        "b": (1000, None, 0),
    }
    assert standings(players=(A,))["a"].rating == 1000


def test_three_of_four_is_191_points() -> None:
    """Odds of 3 to 1 are 400 · log10(3) points; the penalty takes less than one of them from forty votes."""
    found = standings(*[(A, B, 1.0)] * 30, *[(B, A, 1.0)] * 10)
    assert found["a"].rating - found["b"].rating == pytest.approx(400 * math.log10(3), abs=1)
    assert found["a"].rating + found["b"].rating == pytest.approx(2000)
    assert (found["a"].games, found["b"].games) == (40, 40)


def test_a_tie_is_half_a_win_for_each_and_its_order_does_not_matter() -> None:
    found = standings(*[(A, B, 0.5)] * 3, *[(B, A, 0.5)] * 4)
    assert found["a"].rating == pytest.approx(1000)
    mixed = standings(*[(A, B, 1.0)] * 10, *[(A, B, 0.5)] * 10)
    assert mixed["a"].rating == pytest.approx(standings(*[(A, B, 1.0)] * 15, *[(B, A, 1.0)] * 5)["a"].rating)


def test_one_vote_has_no_interval_and_unanimous_votes_have_a_finite_one() -> None:
    assert standings((A, B, 1.0))["a"].interval is None
    found = standings(*[(A, B, 1.0)] * 5)["a"]
    assert found.interval is not None
    low, high = found.interval
    assert 1000 < low < found.rating <= high < 5000


def test_more_votes_narrow_the_interval() -> None:
    def width(times: int) -> float:
        interval = standings(*[(A, B, 1.0)] * 3 * times, *[(B, A, 1.0)] * 2 * times)["a"].interval
        assert interval is not None
        return interval[1] - interval[0]

    assert width(4) > 1.5 * width(16) > 2.25 * width(64)


def test_who_never_met_is_compared_over_a_third() -> None:
    found = standings(*[(A, B, 1.0), (B, C, 1.0)] * 20, *[(B, A, 1.0), (C, B, 1.0)] * 10)
    assert found["a"].rating - found["c"].rating == pytest.approx(800 * math.log10(2), abs=3)


def test_a_model_is_known_by_its_address_wherever_it_is_served() -> None:
    """The canary of today is the stable model of tomorrow; the newest name is not needed to tell it."""
    later = Player("kbqa", A.model)
    found = standings((A, B, 1.0), (later, B, 1.0))
    assert set(found) == {"a", "b"}
    assert found["a"].games == 2
    assert len(standings((Player("x", ""), Player("y", ""), 1.0))) == 2


def test_a_model_against_itself_says_nothing() -> None:
    made = Standings([A])
    made.add([Game(A, Player("again", A.model), 1.0)])
    assert (made.votes, [(one.rating, one.games) for one in made.ranked()]) == (1, [(1000, 0)])


def test_the_best_comes_first_and_the_same_votes_give_the_same_intervals() -> None:
    games = [*[(A, B, 1.0)] * 2, *[(B, A, 1.0)] * 7, (A, B, 0.5)]
    assert list(standings(*games)) == ["b", "a"]
    assert standings(*games) == standings(*games[::-1])


@pytest.mark.parametrize("votes", [20, 100])
def test_intervals_hold_the_truth_as_often_as_they_say(votes: int) -> None:
    """200 arenas in which A wins 65 % of the time; 95 % of them should hold its true rating. Of 200, fewer than 91.5 %
    would come about once in fifty tries if it were so."""
    truth = 1000 + 200 * math.log10(0.65 / 0.35)
    generator = np.random.default_rng(votes)
    held = 0
    for won in generator.binomial(votes, 0.65, size=200):
        interval = standings(*[(A, B, 1.0)] * won, *[(B, A, 1.0)] * (votes - won))["a"].interval
        assert interval is not None
        held += interval[0] <= truth <= interval[1]
    assert held >= 183
