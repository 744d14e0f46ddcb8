"""Which records are much alike: MinHash and locality-sensitive hashing (Broder 1997; Leskovec et al., chapter 3).

Signatures come from the library rensa. The hashing of their bands is done here with sorted arrays: a table of sets, as
libraries have it, takes kilobytes for each record, and this some 8 bytes beside the signature.
"""

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

PERMUTATIONS = 128
"""Hashes of a signature: similarities are known to about 0.04."""
SHINGLE = 5
"""Characters of a sequence; characters and not words, since Chinese has no spaces."""
_SEED = 1
_ROWS_TRIED = (16, 8, 4, 2)
_ROOM = 0.05  # by which similarity bands have to reach below the threshold, so that few pairs at it are missed


def signature(text: str) -> list[int]:
    """PERMUTATIONS numbers of 32 bits; the share of equal ones in two estimates how alike their texts are (Jaccard).

    Case and spacing do not count.
    """
    plain = " ".join(text.casefold().split())
    made = RMinHash(num_perm=PERMUTATIONS, seed=_SEED)
    made.update([plain[start : start + SHINGLE] for start in range(max(1, len(plain) - SHINGLE + 1))])
    hashes: list[int] = made.digest()
    return hashes


def earlier_alike(signatures: NDArray[np.uint32], similarity: float) -> NDArray[np.int64]:
    """(records,) for each record an earlier one that is at least so similar, or -1.

    signatures: (records, PERMUTATIONS). Records that share a band are compared with the first that has it and with the
    one before them; the similarity is the estimate of the whole signature.
    """
    found = np.full(len(signatures), -1, dtype=np.int64)
    rows = band_rows(similarity)
    for start in range(0, PERMUTATIONS, rows):
        band = np.ascontiguousarray(signatures[:, start : start + rows])
        hashes = _hash_rows(band)
        order = np.argsort(hashes, kind="stable")  # within a band, in order of the records
        ordered = hashes[order]
        is_first = np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.bool_)
        firsts = order[np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))]
        for others in (firsts, np.concatenate([order[:1], order[:-1]])):
            open_ = ~is_first & (found[order] < 0)
            later, earlier = order[open_], others[open_]
            alike = _alike(signatures, later, earlier) >= similarity
            found[later[alike]] = earlier[alike]
    return found


def band_rows(similarity: float) -> int:
    """Hashes per band: as many as still let a pair of that similarity share one of the bands in most cases.

    With b bands of r hashes, half of the pairs of similarity (1/b)^(1/r) are found.
    """
    return next(
        (rows for rows in _ROWS_TRIED if (rows / PERMUTATIONS) ** (1 / rows) <= similarity - _ROOM), _ROWS_TRIED[-1]
    )


def _hash_rows(band: NDArray[np.uint32]) -> NDArray[np.uint64]:
    """(records,) one number for each row; the polynomial's factor is the golden ratio's, as in SplitMix64."""
    hashes = np.zeros(len(band), dtype=np.uint64)
    for column in range(band.shape[1]):
        hashes = (hashes ^ band[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return hashes


_PAIRS_AT_ONCE = 65536  # of signatures compared: 64 MiB


def _alike(signatures: NDArray[np.uint32], one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.float64]:
    """(pairs,) the share of equal hashes."""
    parts = [
        (signatures[one[start : start + _PAIRS_AT_ONCE]] == signatures[other[start : start + _PAIRS_AT_ONCE]]).mean(1)
        for start in range(0, len(one), _PAIRS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.empty(0)
