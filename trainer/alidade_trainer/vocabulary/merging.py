"""A BPE vocabulary with more entries and the merges that lead to them.

Merges of the base keep their places in front, so a text in which no new merge applies has the tokens it had, and each
base entry stays reachable. A new piece is cut as base and earlier pieces cut it; merges from left to right then join
the parts. Where that makes an intermediate text that is no entry yet, it becomes one: a joint.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

Pair = tuple[str, str]


@dataclass
class Growth:
    """What became of pieces. entries: the new ones in order, joints among them."""

    entries: list[str] = field(default_factory=list)
    joints: list[str] = field(default_factory=list)
    pieces: int = 0
    """Pieces that were added."""
    known: int = 0
    """Pieces that were entries before."""
    over: int = 0
    """Pieces for which there was no room."""


class GrowingVocabulary:
    """The entries and merges of a tokenizer's BPE model (its state in tokenizer.json), to which pieces are added."""

    def __init__(self, model: dict[str, Any], *, joins_any: bool, most: int | None = None) -> None:
        """joins_any: whether neighbours are joined whenever their text is an entry. most: new entries at most."""
        self.growth = Growth()
        self._base = set(model["vocab"])
        self._entries = set(self._base)
        self._joins_any = joins_any
        self._most = most
        self._ranks: dict[Pair, int] = {_pair(merge): rank for rank, merge in enumerate(model["merges"])}
        self._made_at: dict[str, int] = {}
        """The place at which an entry is joined: of its first merge."""
        for pair, rank in self._ranks.items():
            self._made_at.setdefault("".join(pair), rank)
        self._next = len(self._ranks)

    def add_all(self, pieces: Iterable[Sequence[str]]) -> Growth:
        """Adds pieces in order, each given letter by letter, as far as there is room for it and its joints."""
        wanted = {"".join(letters): letters for letters in pieces}
        for piece, letters in wanted.items():
            if piece in self._entries:
                self.growth.known += piece in self._base
                continue
            entries, listed = len(self.growth.entries), len(self._ranks)
            if entries == self._most:
                self.growth.over += 1
                continue
            # Letters first, so that no joint holds a part of one.
            for text in [*dict.fromkeys(letters), piece]:
                self._add(text)
            if self._most is not None and len(self.growth.entries) > self._most:
                self._take_back(entries, listed)
                self.growth.over += 1
        self.growth.joints = [entry for entry in self.growth.entries if entry not in wanted]
        self.growth.pieces = len(self.growth.entries) - len(self.growth.joints)
        return self.growth

    def _add(self, text: str) -> None:
        if text in self._entries:
            return
        parts = self.cut(text)
        for one in parts:  # signs of their own that the base lacks
            self._enter(one)
        joined = parts[0]
        for part in parts[1:]:
            self._enter(joined + part)
            self._list((joined, part))
            joined += part

    def _take_back(self, entries: int, listed: int) -> None:
        """Undoes what came after so many new entries and listed pairs."""
        while len(self.growth.entries) > entries:
            text = self.growth.entries.pop()
            self._entries.discard(text)
            del self._made_at[text]
        while len(self._ranks) > listed:
            self._ranks.popitem()

    def _enter(self, text: str) -> None:
        if text not in self._entries:
            self._entries.add(text)
            self.growth.entries.append(text)
            self._made_at[text] = self._next
            self._next += 1

    def _list(self, pair: Pair) -> None:
        if self._rank(pair) is None:
            self._ranks[pair] = self._next
            self._next += 1

    def cut(self, piece: str) -> list[str]:
        """A piece as the merges so far leave it: the lowest rank is joined first, of equals the leftmost."""
        parts = list(piece)
        while True:
            ranked = [(rank, at) for at, pair in enumerate(pairwise(parts)) if (rank := self._rank(pair)) is not None]
            if not ranked:
                return parts
            _, at = min(ranked)
            parts[at : at + 2] = ["".join(parts[at : at + 2])]

    def _rank(self, pair: Pair) -> int | None:
        listed = self._ranks.get(pair)
        if listed is not None or not self._joins_any:
            return listed
        text = "".join(pair)
        is_old = text in self._base and pair[0] in self._base and pair[1] in self._base
        return None if is_old else self._made_at.get(text)

    def merges(self) -> list[list[str]]:
        """All merges in order: base and new ones as listed, and where neighbours are joined by their text alone every
        cut of an entry into two, at the place of the entry."""
        ranked = [(rank, 0, pair) for pair, rank in self._ranks.items()]
        if self._joins_any:
            for text, rank in self._made_at.items():
                cuts = ((text[:at], text[at:]) for at in range(1, len(text)))
                ranked += [(rank, at, pair) for at, pair in enumerate(cuts, 1) if self._is_unlisted(pair, text)]
        return [list(pair) for _, _, pair in sorted(ranked)]

    def _is_unlisted(self, pair: Pair, text: str) -> bool:
        both = pair[0] in self._entries and pair[1] in self._entries
        is_old = text in self._base and pair[0] in self._base and pair[1] in self._base
        return both and not is_old and pair not in self._ranks


def _pair(merge: str | list[str]) -> Pair:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right
