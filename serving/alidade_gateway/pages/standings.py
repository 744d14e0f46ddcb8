"""Ratings of the models of an arena from all votes so far, with intervals (Bradley & Terry 1952)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from alidade_engine.intervals import RESAMPLES, Interval, percentile_interval
from alidade_engine.ratings import MEAN, ratings, tables_at_ends, win_rates
from alidade_gateway.pages.votes import Game, Player

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Standing:
    """A model's place. interval: 95 %, None while fewer than two votes say anything about it."""

    player: Player
    rating: float
    interval: Interval | None
    games: int


class Standings:
    """Votes, counted by pair of models."""

    def __init__(self, players: Iterable[Player]) -> None:
        """players: who is served now, and is shown from the start."""
        self._players = {player.key: player for player in players}
        # (better, other) to how often; (one, other) in the order of their keys to how often neither was better.
        self._wins: Counter[tuple[str, str]] = Counter()
        self._ties: Counter[tuple[str, str]] = Counter()
        self.votes = 0

    def add(self, games: Iterable[Game]) -> None:
        """Counts votes. Two sides of the same model say nothing about it, and are votes all the same."""
        for game in games:
            self.votes += 1
            for player in (game.one, game.other):
                self._players.setdefault(player.key, player)
            one, other = game.one.key, game.other.key
            if one == other:
                continue
            if game.points == 0.5:
                self._ties[min(one, other), max(one, other)] += 1
            else:
                self._wins[(one, other) if game.points == 1 else (other, one)] += 1

    def ranked(self) -> list[Standing]:
        """All models, the best rated first. Takes a few hundredths of a second."""
        keys = sorted(self._players)
        if len(keys) < 2:
            return [Standing(self._players[key], MEAN, None, 0) for key in keys]
        outcomes, counts = self._outcomes(keys)
        points = np.tensordot(counts, outcomes, 1)
        found = ratings(points)
        games = (points + points.T).sum(1)
        intervals = _intervals(outcomes, counts, points)
        standings = [
            Standing(self._players[key], float(found[place]), intervals[place], round(float(games[place])))
            for place, key in enumerate(keys)
        ]
        return sorted(standings, key=lambda standing: -standing.rating)

    def _outcomes(self, keys: Sequence[str]) -> tuple[Points, Points]:
        """(outcomes, models, models) points that each possible outcome of a game gives, and (outcomes,) how often."""
        outcomes, counts = [], []
        for one, other in combinations(range(len(keys)), 2):
            for points, count in (
                (1.0, self._wins[keys[one], keys[other]]),
                (0.0, self._wins[keys[other], keys[one]]),
                (0.5, self._ties[keys[one], keys[other]]),
            ):
                table = np.zeros((len(keys), len(keys)))
                table[one, other], table[other, one] = points, 1 - points
                outcomes.append(table)
                counts.append(count)
        return np.stack(outcomes), np.array(counts, dtype=np.float64)


def _intervals(outcomes: Points, counts: Points, points: Points) -> list[Interval | None]:
    """Of each model's rating, by a bootstrap over votes; the same votes give the same intervals.

    A model that fares the same in every vote fares the same in every resample: its ends are those of Wilson's interval
    of the share that it wins.
    """
    games = (points + points.T).sum(1)
    votes = int(counts.sum())
    if votes < 2:
        return [None] * len(points)
    drawn = np.random.default_rng(0).multinomial(votes, counts / votes, size=RESAMPLES)  # (resamples, outcomes)
    tables = np.tensordot(drawn.astype(np.float64), outcomes, 1)  # (resamples, models, models)
    rated, rates = ratings(tables), win_rates(tables)
    found: list[Interval | None] = []
    for place, own in enumerate(games):
        played = (tables[:, place] + tables[:, :, place]).sum(1) > 0
        if own < 2:
            found.append(None)
        elif np.ptp(rates[played, place]) > 0:
            found.append(percentile_interval(rated[:, place], samples=int(own)))
        else:
            ends = ratings(tables_at_ends(points, place, samples=int(own)))[:, place]
            found.append((float(ends.min()), float(ends.max())))
    return found
