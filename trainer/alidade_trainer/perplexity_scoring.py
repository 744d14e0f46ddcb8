"""What records cost the model that training starts from, measured by all processes together, once for all attempts."""

import gc
import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from alidade_crds.contract import JobDocument
from alidade_engine.digests import model_digest
from alidade_engine.disk import sync
from alidade_engine.encoding import Rendered
from alidade_engine.scoring import sequence_logprobs
from alidade_trainer.data.sequences import Samples
from alidade_trainer.peers import Peers
from alidade_trainer.stopping import StopRequested
from alidade_trainer.surroundings import Surroundings

SCORES_FILE = "perplexity.npz"
"""Beside the model: losses of the records, so that no attempt has to score what one before it has scored."""
ROUND_S = 20.0
"""Seconds after which processes put together what they have: none waits longer for another, a kill loses no more."""
PLACES_AT_ONCE = {"cuda": 8192, "cpu": 1024}
"""Tokens, padding included, of a forward pass: enough for a GPU, little beside the weights. On a CPU, whose caches more
overflows, 8,192 took 1.4 times as long as 2,048."""
_TO_DO = np.float32(-1)  # a loss is never below 0

Losses = NDArray[np.float32]


def score_samples(
    job: JobDocument,
    model_folder: Path,
    samples: Samples,
    indices: NDArray[np.int64],
    load: Callable[[], PreTrainedModel],
    around: Surroundings,
    peers: Peers,
) -> Losses:
    """(indices,) the loss of each sample named, in nats, summed over the tokens that are learned of it.

    load: the model that training starts from, on this process's device. The same on every process. Raises JobFailure
    as `load` does, and StopRequested when asked to stop.
    """
    path = around.output / SCORES_FILE
    key = peers.from_first(_key(job, model_folder, samples, indices) if peers.is_first else None)
    losses: Losses = peers.from_first(_read(path, key, len(indices)) if peers.is_first else None)
    done = int((losses != _TO_DO).sum())
    if done:
        around.say(f"Perplexity: {done:,} of {len(indices):,} samples were scored by an earlier attempt.")
    if done == len(indices):
        return losses
    around.say(f"Perplexity: {len(indices) - done:,} samples are scored by the model that training starts from.")
    model = peers.agree(load)
    # The longest first: what does not fit shows at once, and the last round is short.
    order = np.argsort(-samples.lengths[indices], kind="stable")
    told = 0
    while (left := order[losses[order] == _TO_DO]).size:
        mine = left[peers.rank :: peers.count]
        found = list(_scored(model, samples, indices, mine, until=time.monotonic() + ROUND_S, around=around))
        for part in peers.gather(found):
            for places, values in part:
                losses[places] = values
        is_over = any(peers.gather(around.stop()))
        if peers.is_first:
            _write(path, key, losses)
        percent = int(100 * (losses != _TO_DO).mean())
        if percent > told:
            told = percent
            around.say(f"Perplexity: {percent} % of the samples are scored.")
        if is_over:
            raise StopRequested
    del model
    gc.collect()  # before training asks how much memory is free
    if peers.device.type == "cuda":
        torch.cuda.empty_cache()
    return losses


def _scored(
    model: PreTrainedModel,
    samples: Samples,
    indices: NDArray[np.int64],
    places: NDArray[np.int64],
    *,
    until: float,
    around: Surroundings,
) -> Iterator[tuple[NDArray[np.int64], Losses]]:
    """Places among the indices and their losses, batch by batch until it is time, and at least one."""
    for batch in batches(samples, indices, places, at_once=PLACES_AT_ONCE[model.device.type]):
        yield batch, batch_losses(model, samples, indices[batch])
        if time.monotonic() > until or around.stop():
            return


def batches(
    samples: Samples, indices: NDArray[np.int64], places: NDArray[np.int64], *, at_once: int
) -> Iterator[NDArray[np.int64]]:
    """Parts of the places, of which the first has the longest sample, that the model reads at once.

    at_once: most tokens of a part, padding included, unless one sample has more.
    """
    start = 0
    while start < len(places):
        index = indices[places[start]]
        longest = int(samples.offsets[index + 1] - samples.offsets[index])
        batch = places[start : start + max(1, at_once // longest)]
        yield batch
        start += len(batch)


def batch_losses(model: PreTrainedModel, samples: Samples, indices: NDArray[np.int64]) -> Losses:
    """(indices,) as `score_samples`, of samples that the model reads at once."""
    rendered = []
    for index in indices:
        part = slice(samples.offsets[index], samples.offsets[index + 1])
        rendered.append(Rendered(samples.tokens[part].tolist(), samples.learned[part].tolist()))
    # What fills a row up is not read, so that any token serves.
    scored = sequence_logprobs(model, rendered, pad_token_id=0, batch_size=len(rendered))
    return np.array([-float(one.double().sum()) for one in scored], dtype=np.float32)


def _key(job: JobDocument, model_folder: Path, samples: Samples, indices: NDArray[np.int64]) -> str:
    """A digest of all that the losses are a function of: the tokens and the model, and how it computes."""
    total = hashlib.sha256()
    for values in (samples.tokens, samples.learned, samples.offsets, indices):
        total.update(np.ascontiguousarray(values).data)
    model = job.model.digest or model_digest(model_folder)
    total.update(f"{model} {job.training.precision} {job.adapter.type}".encode())
    return total.hexdigest()


def _read(path: Path, key: str, count: int) -> Losses:
    """What `_write` wrote under the same key; where it did not, nothing is done yet."""
    if path.is_file():
        with np.load(path) as kept:
            if str(kept["key"]) == key:
                losses: Losses = kept["losses"]
                return losses
    return np.full(count, _TO_DO, dtype=np.float32)


def _write(path: Path, key: str, losses: Losses) -> None:
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as file:
        np.savez(file, key=np.array(key), losses=losses)
    sync(partial)
    partial.rename(path)
    sync(path.parent)
