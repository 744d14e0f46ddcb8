"""Tokenised samples, held as flat arrays that may lie in files, and the batches that are made of them."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alidade_trainer.data.packing import best_fit

NO_LOSS = -100
"""The label of a token that carries no loss, as torch's cross entropy has it."""


_SAMPLES_AT_ONCE = 1 << 14


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

    @property
    def learned_lengths(self) -> NDArray[np.int64]:
        """(samples,) tokens of each that carry loss."""
        counts = np.empty(len(self), dtype=np.int64)
        # Part by part: to add them up numpy makes eight bytes of each mark.
        for start in range(0, len(self), _SAMPLES_AT_ONCE):
            bounds = self.offsets[start : start + _SAMPLES_AT_ONCE + 1]
            marks = self.learned[bounds[0] : bounds[-1]]
            counts[start : start + _SAMPLES_AT_ONCE] = np.add.reduceat(marks, bounds[:-1] - bounds[0], dtype=np.int64)
        return counts

    def learned_counts(self, indices: NDArray[np.int64]) -> int:
        """Tokens that carry loss in the samples named."""
        return int(self.learned_lengths[indices].sum())

    def save(self, folder: Path) -> None:
        """Writes the samples into files, unless they lie there already."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in ((_TOKENS, self.tokens), (_LEARNED, self.learned)):
            if not (isinstance(values, np.memmap) and Path(values.filename or "") == (folder / name).absolute()):
                values.tofile(folder / name)
        np.save(folder / _OFFSETS, self.offsets)

    @classmethod
    def load(cls, folder: Path) -> "Samples":
        """What `save` wrote, mapped rather than read, so that processes share the memory."""
        offsets = np.load(folder / _OFFSETS)
        return cls(mapped(folder / _TOKENS, np.int32), mapped(folder / _LEARNED, np.bool_), offsets)


_TOKENS, _LEARNED, _OFFSETS = "tokens.int32", "learned.bool", "offsets.npy"
_SIGNATURES = "signatures.uint32"


class GrowingArray:
    """A flat array that grows at its end: in memory, or in a file, which is mapped in the end."""

    def __init__(self, path: Path | None, kind: type[np.generic]) -> None:
        self._path = path
        self._kind = kind
        self._bytes: IO[bytes] | None = None  # a file is opened when there is something to write

    def extend(self, values: NDArray[Any]) -> None:
        """Adds values at the end."""
        if self._bytes is None:
            self._bytes = BytesIO() if self._path is None else self._path.open("wb")
        self._bytes.write(np.ascontiguousarray(values, dtype=self._kind).tobytes())

    def done(self) -> NDArray[Any]:
        """The whole; the object is not to be used again."""
        self.extend(np.empty(0, self._kind))
        if isinstance(self._bytes, BytesIO):
            return np.frombuffer(self._bytes.getbuffer(), dtype=self._kind)
        assert self._path is not None, "what is not in memory has a path"
        assert self._bytes is not None, "it has been opened"
        self._bytes.close()
        return mapped(self._path, self._kind)


def mapped(path: Path, kind: type[np.generic]) -> NDArray[Any]:
    """A file of numbers as an array that is read where it is used."""
    return np.memmap(path, kind, mode="r") if path.stat().st_size else np.empty(0, kind)  # nothing cannot be mapped


class SampleBuilder:
    """Collects samples, five bytes for each of their tokens: in memory, or in files of a folder.

    signatures: of the records that samples come from, all in a row, where somebody wants to compare these.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        self._tokens = GrowingArray(folder and folder / _TOKENS, np.int32)
        self._learned = GrowingArray(folder and folder / _LEARNED, np.bool_)
        self.signatures = GrowingArray(folder and folder / _SIGNATURES, np.uint32)
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def add(self, input_ids: Sequence[int], learned: Sequence[bool]) -> None:
        """One more sample; its first token carries no loss whatever `learned` says."""
        assert len(input_ids) == len(learned) > 0, "a sample has tokens, and a mark for each"
        lengths = np.array([len(input_ids)], dtype=np.int32)
        self.add_all(np.array(input_ids, dtype=np.int32), np.array(learned, dtype=np.bool_), lengths)

    def add_all(self, tokens: NDArray[np.int32], learned: NDArray[np.bool_], lengths: NDArray[np.int32]) -> None:
        """As `add`, for many samples in a row."""
        ends = np.cumsum(lengths, dtype=np.int64)
        marks = learned.copy()
        marks[ends - lengths] = False
        self._tokens.extend(tokens)
        self._learned.extend(marks)
        self._ends.frombytes((ends + self._ends[-1]).tobytes())

    def build(self) -> Samples:
        """All samples added; the builder is not to be used again."""
        return Samples(self._tokens.done(), self._learned.done(), np.frombuffer(self._ends, dtype=np.int64))


class TokenDataset(torch.utils.data.Dataset[dict[str, NDArray[np.int64]]]):
    """Sequences for training, each one sample or, when packed, several.

    An item has input_ids, labels (NO_LOSS where there is none) and position_ids (from 0 in each sample), and, where
    several datasets are told apart, datasets (the number of each token's), all (tokens,) int64.
    """

    def __init__(
        self,
        samples: Samples,
        members: NDArray[np.int64],
        bounds: NDArray[np.int64],
        *,
        packed: bool,
        datasets: NDArray[np.uint8] | None = None,
    ) -> None:
        """members: indices of samples, sequence after sequence; bounds: (sequences + 1,) where each of them begins.

        datasets: (samples,) the number of the dataset that each sample is from; None where there is one only.
        """
        self.samples = samples
        self.members = members
        self.bounds = bounds
        self.packed = packed
        self.datasets = datasets

    @classmethod
    def of(
        cls,
        samples: Samples,
        indices: NDArray[np.int64],
        *,
        max_length: int,
        packing: bool,
        datasets: NDArray[np.uint8] | None = None,
    ) -> "TokenDataset":
        """Sequences of the samples named, packed by best fit when asked."""
        if not packing:
            bounds = np.arange(len(indices) + 1, dtype=np.int64)
            return cls(samples, indices, bounds, packed=False, datasets=datasets)
        order, bounds = best_fit(samples.lengths[indices], max_length)
        return cls(samples, indices[order], bounds, packed=True, datasets=datasets)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, index: int) -> dict[str, NDArray[np.int64]]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        ids, labels, positions = [], [], []
        members = self.members[self.bounds[index] : self.bounds[index + 1]]
        for member in members:
            start, end = self.samples.offsets[member], self.samples.offsets[member + 1]
            tokens = self.samples.tokens[start:end].astype(np.int64)
            ids.append(tokens)
            labels.append(np.where(self.samples.learned[start:end], tokens, NO_LOSS))
            positions.append(np.arange(end - start, dtype=np.int64))
        item = {
            "input_ids": np.concatenate(ids),
            "labels": np.concatenate(labels),
            "position_ids": np.concatenate(positions),
        }
        if self.datasets is not None:
            item["datasets"] = np.repeat(self.datasets[members].astype(np.int64), [len(one) for one in ids])
        return item

    @property
    def tokens(self) -> int:
        """Tokens in one pass over all sequences."""
        return int(self.samples.lengths[self.members].sum())

    @property
    def learned_tokens(self) -> int:
        """Tokens that carry loss in one pass."""
        return self.samples.learned_counts(self.members)

    @property
    def sequence_lengths(self) -> NDArray[np.int64]:
        """(sequences,) tokens of each."""
        return np.add.reduceat(self.samples.lengths[self.members], self.bounds[:-1])

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.sequence_lengths.max())

    @property
    def attended(self) -> float:
        """Tokens of the sample that a token is in, in the mean over all tokens: no other ones does it attend to."""
        lengths = self.samples.lengths[self.members].astype(np.float64)
        return float((lengths**2).sum() / lengths.sum())

    def save(self, folder: Path) -> None:
        """Writes which samples the sequences are of; the samples themselves are saved apart."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, values in (("members", self.members), ("bounds", self.bounds), ("datasets", self.datasets)):
            if values is not None:
                np.save(folder / f"{name}.npy", values)
        (folder / "packed").write_text(str(self.packed))

    @classmethod
    def load(cls, folder: Path, samples: Samples) -> "TokenDataset":
        """What `save` wrote, over the same samples."""
        datasets = folder / "datasets.npy"
        return cls(
            samples,
            np.load(folder / "members.npy"),
            np.load(folder / "bounds.npy"),
            packed=(folder / "packed").read_text() == "True",
            datasets=np.load(datasets) if datasets.is_file() else None,
        )


class Collator:
    """Makes a batch of sequences, padded on the right to the longest.

    Packed batches have input_ids, labels and position_ids and no attention_mask: only so does transformers keep samples
    apart (call the model with use_cache=False). Padding is then one more sample, to which nothing else attends.
    Unpacked batches have input_ids, labels and attention_mask. Both have datasets where the items do; padding belongs
    to dataset 0 and carries no loss. All are (sequences, tokens) int64.
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
        if "datasets" in items[0]:
            batch["datasets"] = torch.zeros((len(items), width), dtype=torch.int64)
        for row, item in enumerate(items):
            length = len(item["input_ids"])
            batch["input_ids"][row, :length] = torch.from_numpy(item["input_ids"])
            batch["labels"][row, :length] = torch.from_numpy(item["labels"])
            if "datasets" in batch:
                batch["datasets"][row, :length] = torch.from_numpy(item["datasets"])
            if self.packed:
                batch[extra][row, :length] = torch.from_numpy(item["position_ids"])
                batch[extra][row, length:] = torch.arange(width - length)
            else:
                batch[extra][row, :length] = 1
        return batch


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order in which an epoch takes its sequences: of the arguments alone, so that a resumed run repeats it."""
    return np.random.default_rng([seed, epoch]).permutation(count).astype(np.int64)


def grouped_order(seed: int, epoch: int, lengths: NDArray[np.int64], batch_size: int) -> NDArray[np.int64]:
    """As `epoch_order`, with sequences of like length in one batch; the batches come in random order.

    Of every _BATCHES_SORTED batches in a row of the random order, the sequences are sorted by length and cut into
    batches anew. The batches are those that steps read: the first of an epoch's sequences fill up the last step of the
    epoch before, so these, and the last ones, stand in random order.
    """
    random = epoch_order(seed, epoch, len(lengths))
    lead = -epoch * len(lengths) % batch_size
    rest = random[lead:]
    window = batch_size * _BATCHES_SORTED
    parts = [rest[start : start + window] for start in range(0, len(rest), window)]
    ordered = np.concatenate([rest[:0], *(part[np.argsort(lengths[part], kind="stable")] for part in parts)])
    whole = len(ordered) // batch_size
    batches = ordered[: whole * batch_size].reshape(whole, batch_size)
    places = np.random.default_rng([seed, epoch, 1]).permutation(whole)
    return np.concatenate([random[:lead], batches[places].reshape(-1), ordered[whole * batch_size :]])


_BATCHES_SORTED = 50  # as many as transformers' group_by_length takes: little padding, and lengths still well mixed
