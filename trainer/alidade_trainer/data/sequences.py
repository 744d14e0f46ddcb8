"""Tokenised samples, held as three flat arrays, and the batches that are made of them."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alidade_trainer.data.packing import best_fit

NO_LOSS = -100
"""The label of a token that carries no loss, as torch's cross entropy has it."""


@dataclass(frozen=True)
class Samples:
    """Tokens of many samples one after the other.

    tokens: (all tokens,) int32 ids.
    learned: (all tokens,) bool, whether a token is to be predicted; never a sample's first, before which nothing
    stands. offsets: (samples + 1,) int64, where each sample begins and the last one ends.
    """

    tokens: NDArray[np.int32]
    learned: NDArray[np.bool_]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(samples,) tokens of each."""
        return np.diff(self.offsets)

    def learned_counts(self, indices: NDArray[np.int64]) -> int:
        """Tokens that carry loss in the samples named."""
        sums = np.concatenate([[0], np.cumsum(self.learned, dtype=np.int64)])
        return int((sums[self.offsets[indices + 1]] - sums[self.offsets[indices]]).sum())


class SampleBuilder:
    """Collects samples, five bytes for each of their tokens."""

    def __init__(self) -> None:
        self._tokens = array("i")
        self._learned = bytearray()
        self._ends = array("q", [0])

    def add(self, input_ids: Sequence[int], learned: Sequence[bool]) -> None:
        """One more sample; its first token carries no loss whatever `learned` says."""
        assert len(input_ids) == len(learned) > 0, "a sample has tokens, and a mark for each"
        first = len(self._learned)
        self._tokens.extend(input_ids)
        self._learned.extend(learned)
        self._learned[first : first + 1] = b"\0"
        self._ends.append(len(self._tokens))

    def build(self) -> Samples:
        """All samples added; the builder is not to be used again."""
        return Samples(
            np.frombuffer(self._tokens, dtype=np.int32),
            np.frombuffer(self._learned, dtype=np.bool_),
            np.frombuffer(self._ends, dtype=np.int64),
        )


def concatenate(parts: Iterable[Samples]) -> Samples:
    """The samples of all parts in order."""
    listed = list(parts)
    if len(listed) == 1:
        return listed[0]
    lengths = np.concatenate([part.lengths for part in listed])
    return Samples(
        np.concatenate([part.tokens for part in listed]),
        np.concatenate([part.learned for part in listed]),
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


class TokenDataset(torch.utils.data.Dataset[dict[str, NDArray[np.int64]]]):
    """Sequences for training, each one sample or, when packed, several.

    An item has input_ids, labels (NO_LOSS where there is none) and position_ids (from 0 in each sample), all (tokens,)
    int64.
    """

    def __init__(
        self, samples: Samples, members: NDArray[np.int64], bounds: NDArray[np.int64], *, packed: bool
    ) -> None:
        """members: indices of samples, sequence after sequence; bounds: (sequences + 1,) where each of them begins."""
        self.samples = samples
        self.members = members
        self.bounds = bounds
        self.packed = packed

    @classmethod
    def of(cls, samples: Samples, indices: NDArray[np.int64], *, max_length: int, packing: bool) -> "TokenDataset":
        """Sequences of the samples named, packed by best fit when asked."""
        if not packing:
            return cls(samples, indices, np.arange(len(indices) + 1, dtype=np.int64), packed=False)
        bins = best_fit(samples.lengths[indices], max_length)
        order = np.fromiter((place for group in bins for place in group), np.int64, count=len(indices))
        bounds = np.concatenate([[0], np.cumsum([len(group) for group in bins], dtype=np.int64)]).astype(np.int64)
        return cls(samples, indices[order], bounds, packed=True)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        ids, labels, positions = [], [], []
        for member in self.members[self.bounds[index] : self.bounds[index + 1]]:
            start, end = self.samples.offsets[member], self.samples.offsets[member + 1]
            tokens = self.samples.tokens[start:end].astype(np.int64)
            ids.append(tokens)
            labels.append(np.where(self.samples.learned[start:end], tokens, NO_LOSS))
            positions.append(np.arange(end - start, dtype=np.int64))
        return {
            "input_ids": np.concatenate(ids),
            "labels": np.concatenate(labels),
            "position_ids": np.concatenate(positions),
        }

    @property
    def tokens(self) -> int:
        """Tokens in one pass over all sequences."""
        return int(self.samples.lengths[self.members].sum())

    @property
    def learned_tokens(self) -> int:
        """Tokens that carry loss in one pass."""
        return self.samples.learned_counts(self.members)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        ends = np.add.reduceat(self.samples.lengths[self.members], self.bounds[:-1])
        return int(ends.max())

    def save(self, folder: Path) -> None:
        """Writes the sequences as arrays, so that other processes of this machine need not tokenise again."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in self._arrays().items():
            np.save(folder / f"{name}.npy", values)
        (folder / "packed").write_text(str(self.packed))

    @classmethod
    def load(cls, folder: Path) -> "TokenDataset":
        """What `save` wrote, mapped rather than read, so that processes share the memory."""
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", "learned", "offsets")}
        return cls(
            Samples(**arrays),
            np.load(folder / "members.npy"),
            np.load(folder / "bounds.npy"),
            packed=(folder / "packed").read_text() == "True",
        )

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "tokens": self.samples.tokens,
            "learned": self.samples.learned,
            "offsets": self.samples.offsets,
            "members": self.members,
            "bounds": self.bounds,
        }


class Collator:
    """Makes a batch of sequences, padded on the right to the longest.

    Packed batches have input_ids, labels and position_ids and no attention_mask: only so does transformers keep samples
    apart (call the model with use_cache=False). Padding is then one more sample, to which nothing else attends.
    Unpacked batches have input_ids, labels and attention_mask. All are (sequences, tokens) int64.
    """

    def __init__(self, pad_token_id: int, *, packed: bool) -> None:
        self.pad_token_id = pad_token_id
        self.packed = packed

    def __call__(self, items: Sequence[dict[str, NDArray[np.int64]]]) -> dict[str, Tensor]:
        width = max(len(item["input_ids"]) for item in items)
        batch = {
            "input_ids": torch.full((len(items), width), self.pad_token_id),
            "labels": torch.full((len(items), width), NO_LOSS),
        }
        extra = "position_ids" if self.packed else "attention_mask"
        batch[extra] = torch.zeros((len(items), width), dtype=torch.int64)
        for row, item in enumerate(items):
            length = len(item["input_ids"])
            batch["input_ids"][row, :length] = torch.from_numpy(item["input_ids"])
            batch["labels"][row, :length] = torch.from_numpy(item["labels"])
            if self.packed:
                batch[extra][row, :length] = torch.from_numpy(item["position_ids"])
                batch[extra][row, length:] = torch.arange(width - length)
            else:
                batch[extra][row, :length] = 1
        return batch


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch takes its sequences: of the arguments alone, so that a resumed run repeats it."""
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.int64)
