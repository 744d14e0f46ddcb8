"""Test prompts that stand in the training data: word for word, or nearly.

Only the prompts are held in memory; the training data is read once, text by text. Candidates for near-duplicates come
from locality-sensitive hashing of MinHashes (Broder 1997; the library datasketch), and count when the Jaccard
similarity of their sets of n-grams, computed exactly, is high enough.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from datasketch import MinHash, MinHashLSH

from alidade_engine.reward.functions import plain
from alidade_eval.metrics.words import words

PERMUTATIONS = 128
"""Of a MinHash: similarities are then known to about 0.04."""
SLACK = 0.15
"""By so much less similar texts are looked at, since their hashes are only an estimate."""
FALSE_POSITIVES, FALSE_NEGATIVES = 0.1, 0.9
"""Weights of the two errors of hashing: one text too many is compared exactly, one too few is a hidden leak."""


@dataclass(frozen=True)
class Leak:
    """A prompt found in the training data. similarity: 1 where it stands there word for word. place: of the text."""

    index: int
    kind: Literal["exact", "near"]
    similarity: float
    place: str


def find_leaks(
    prompts: Sequence[str], training: Iterable[tuple[str, str]], *, ngram: int, similarity: float
) -> list[Leak]:
    """The prompts that the training data has, each with the text that is most like it, in order.

    training: texts, each with its place. Prompts of fewer words than an n-gram are found word for word only.
    """
    exact: dict[str, list[int]] = {}
    for index, prompt in enumerate(prompts):
        if wording := plain(prompt):  # what has no words stands everywhere
            exact.setdefault(wording, []).append(index)
    grams = {index: set_ for index, prompt in enumerate(prompts) if (set_ := ngrams(prompt, ngram))}
    lsh = MinHashLSH(
        threshold=max(0.05, similarity - SLACK),
        num_perm=PERMUTATIONS,
        weights=(FALSE_POSITIVES, FALSE_NEGATIVES),
    )
    for index, own in grams.items():
        lsh.insert(index, minhash(own))
    known = frozenset().union(*grams.values()) if grams else frozenset()
    found: dict[int, Leak] = {}
    for text, place in training:
        for index in exact.get(plain(text), ()):
            found[index] = Leak(index, "exact", 1.0, place)
        _note_near(found, text, place, grams, known, lsh, ngram, similarity)
    return [found[index] for index in sorted(found)]


def _note_near(
    found: dict[int, Leak],
    text: str,
    place: str,
    grams: dict[int, frozenset[str]],
    known: frozenset[str],
    lsh: MinHashLSH,
    ngram: int,
    similarity: float,
) -> None:
    own = ngrams(text, ngram)
    # Most texts share no n-gram with any prompt: those need no hashing, which is what takes time.
    if not own or own.isdisjoint(known):
        return
    for index in lsh.query(minhash(own)):
        alike = len(own & grams[index]) / len(own | grams[index])
        best = found.get(index)
        if alike >= similarity and (best is None or alike > best.similarity):
            found[index] = Leak(index, "near", alike, place)


def ngrams(text: str, n: int) -> frozenset[str]:
    """The n-grams of a text's words; none where it has fewer words."""
    units = words(text)
    return frozenset(" ".join(units[start : start + n]) for start in range(len(units) - n + 1))


def minhash(grams: Iterable[str]) -> MinHash:
    """The MinHash of a set of n-grams."""
    made = MinHash(num_perm=PERMUTATIONS)
    made.update_batch([gram.encode() for gram in grams])
    return made
