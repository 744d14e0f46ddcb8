"""What `filters.perplexity` costs: records scored in a second of CPU time, beside a loop over one after the other.

    python bench/perplexity_filter.py                   # 1,000 records; some four minutes
    python bench/perplexity_filter.py --records 100     # a try

The records are those of data_pipeline.py, and the models Llamas with random weights, which cost as much as others of
their size. The loop calls transformers with one record and its labels at a time, in the order of the file; it sees a
part of the records only. Both compute in float32. Writes bench/results/perplexity_filter.json.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from alidade_crds.blocks import ModelInit
from alidade_crds.contract import JobDocument
from alidade_engine.models import init_model, load_tokenizer
from alidade_engine.sources import Locations
from alidade_trainer.data.dataset import tokenise_data
from alidade_trainer.data.sequences import NO_LOSS, Samples
from alidade_trainer.perplexity_scoring import PLACES_AT_ONCE, batch_losses, batches
from bench.data_pipeline import RESULTS, VOCABULARY, write_input

SHAPES = {
    "6M": {"hidden_size": 256, "layers": 4, "heads": 4},
    "46M": {"hidden_size": 512, "layers": 12, "heads": 8},
}
ONE_BY_ONE = 5
"""Of so many records, the loop sees one."""


def one_by_one(model: PreTrainedModel, samples: Samples, indices: NDArray[np.int64]) -> list[float]:
    """The losses as transformers computes them of a record and its labels, summed over the learned tokens."""
    found = []
    for index in indices:
        part = slice(samples.offsets[index], samples.offsets[index + 1])
        ids = torch.from_numpy(samples.tokens[part].astype(np.int64))
        labels = torch.where(torch.from_numpy(samples.learned[part].copy()), ids, NO_LOSS)
        with torch.inference_mode():
            loss = model(input_ids=ids[None], labels=labels[None]).loss
        found.append(float(loss) * int(samples.learned[part].sum()))
    return found


def measure(model: PreTrainedModel, samples: Samples, indices: NDArray[np.int64]) -> dict[str, float]:
    """Records in a second of CPU time of both, and by how much their losses differ."""
    started = time.process_time()
    losses = np.zeros(len(indices))
    order = np.argsort(-samples.lengths[indices], kind="stable")
    for places in batches(samples, indices, order, at_once=PLACES_AT_ONCE["cpu"]):
        losses[places] = batch_losses(model, samples, indices[places])
    seconds = time.process_time() - started
    started = time.process_time()
    some = np.arange(0, len(indices), ONE_BY_ONE)
    naive = np.array(one_by_one(model, samples, indices[some]))
    alone = time.process_time() - started
    tokens = int(samples.lengths[indices].sum())
    return {
        "records": len(indices),
        "tokens": tokens,
        "records_per_cpu_second": round(len(indices) / seconds, 1),
        "tokens_per_cpu_second": round(tokens / seconds),
        "one_by_one_records_per_cpu_second": round(len(some) / alone, 1),
        "ratio": round(len(indices) / seconds * alone / len(some), 2),
        "largest_relative_difference": float(np.abs(losses[some] / naive - 1).max()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measures every model, prints the table, writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    torch.set_num_threads(1)
    parser.add_argument("--records", type=int, default=1000, help="default: 1,000")
    arguments = parser.parse_args(argv)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_input(Path(folder), arguments.records)
        tokenizer = load_tokenizer(path.parent / "tokenizer")
        job = JobDocument.model_validate(
            {
                "owner": {"kind": "FineTuneJob", "namespace": "bench", "name": "perplexity", "uid": "0"},
                "stage": "sft",
                "model": {},
                "dataset": {"uri": path.as_uri(), "maxLength": 1024},
                "output": "file:///nowhere",
            }
        )
        data = tokenise_data(job, tokenizer, Locations(path.parent, path.parent))
        for name, shape in SHAPES.items():
            init = ModelInit(**shape, vocab_size=VOCABULARY, context_length=1024)
            model = init_model(init, tokenizer).eval()
            results[name] = measure(model, data.samples, data.candidates)
            print(name, results[name], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "perplexity_filter.json").write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
