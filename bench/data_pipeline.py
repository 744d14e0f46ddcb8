"""From one million records to sequences of tokens: how fast, and in how much memory.

    python bench/data_pipeline.py                       # one million; some ten minutes on two cores
    python bench/data_pipeline.py --records 20000       # a try

Demonstrations are made at random of 5,000 words by a Zipf law, one in a hundred a repetition and one in a hundred
nearly one. Each case is a process of its own: reading, rendering by chatml, tokenising, packing, and then the batches
of an epoch's first thousand steps. Beside it stands `datasets.map` with the tokenizer's own `apply_chat_template`, as
trainers commonly do it; it does no packing and no counting. Writes bench/results/data_pipeline.json.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from alidade_crds.contract import JobDocument
from alidade_engine.models import load_tokenizer
from alidade_engine.sources import Locations
from alidade_engine.tokenization import train_tokenizer

RESULTS = Path(__file__).resolve().parent / "results"
VOCABULARY = 8000
WORDS = 5000
STEPS, BATCH = 1000, 32
PEER_RECORDS = 50_000
"""Enough to know the speed of what is the same for every record."""
CASES: dict[str, dict[str, Any]] = {
    "as they are": {},
    "no repetitions": {"deduplication": {"method": "exact"}},
    "no near repetitions": {"deduplication": {"method": "near"}},
    "English only": {"filters": {"languages": ["en"]}},
}


def records(count: int) -> Iterator[dict[str, str]]:
    """Pairs of 5 to 60 words each, some of them said before."""
    chance = random.Random(1)
    words = ["".join(chance.choices("etaoinshrdlu", k=chance.randint(2, 9))) for _ in range(WORDS)]
    weights = [1 / (rank + 10) for rank in range(WORDS)]
    before = {"input": "", "output": ""}
    for number in range(count):
        if number % 100 == 99:
            yield before
        elif number % 100 == 98:
            yield before | {"output": f"{before['output']} {words[number % WORDS]}"}
        else:
            said = chance.choices(words, weights, k=chance.randint(13, 100))
            cut = chance.randint(5, len(said) - 5)
            before = {"input": " ".join(said[:cut]), "output": " ".join(said[cut:])}
            yield before


def write_input(folder: Path, count: int) -> Path:
    """The records as JSON lines, and a tokenizer trained on the first of them."""
    path = folder / "train.jsonl"
    with path.open("w") as file:
        file.writelines(json.dumps(record) + "\n" for record in records(count))
    texts = (text for record in records(min(count, 5000)) for text in record.values())
    train_tokenizer(texts, VOCABULARY).save_pretrained(folder / "tokenizer")
    return path


class PeakMemory:
    """The most memory of this process that no file stands for, in MiB, looked at ten times a second."""

    def __init__(self) -> None:
        self.mib = 0.0
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self.mib = max(self.mib, anonymous_mib())

    def end(self) -> float:
        """The peak so far; nothing is looked at any more."""
        self._ended.set()
        return max(self.mib, anonymous_mib())


def anonymous_mib() -> float:
    """Memory of this process that no file stands for: mapped files can be dropped at any time."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1024


def run_case(name: str, path: Path) -> dict[str, float]:
    """One case in this process."""
    from alidade_trainer.batches import BatchStream
    from alidade_trainer.data.dataset import Collator, epoch_order, prepare

    tokenizer = load_tokenizer(path.parent / "tokenizer")
    job = JobDocument.model_validate(
        {
            "owner": {"kind": "FineTuneJob", "namespace": "bench", "name": "data", "uid": "0"},
            "stage": "sft",
            "model": {},
            "dataset": {"uri": path.as_uri(), "maxLength": 1024, **CASES[name]},
            "output": "file:///nowhere",
        }
    )
    locations = Locations(path.parent, path.parent)
    before, memory, started, cpu = anonymous_mib(), PeakMemory(), time.monotonic(), sum(os.times()[:4])
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        data = prepare(job, tokenizer, locations, folder=Path(folder))
        seconds, cpu = time.monotonic() - started, sum(os.times()[:4]) - cpu
        stream = BatchStream(
            data.train,
            Collator(tokenizer.pad_token_id, packed=True),
            order=partial(epoch_order, 0),
            global_batch_size=BATCH,
            micro_batch_size=BATCH,
            rank=0,
            processes=1,
        )
        started = time.monotonic()
        steps = min(STEPS, max(1, len(data.train) // BATCH))
        read = sum(batch.tokens for step in range(steps) for batch in stream.step(step))
        reading = time.monotonic() - started
    source = data.report["sources"][0]
    return {
        "records": source["records"],
        "left_out": source["records"] - source["kept"] + source["removed"],
        "tokens": data.report["train"]["tokens"],
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu, 2),
        "records_per_second": round(source["records"] / seconds),
        "memory_mib": round(memory.end() - before),
        "batch_tokens_per_second": round(read / reading),
    }


def run_peer(path: Path, folder: Path) -> dict[str, float]:
    """`datasets` with the tokenizer's own template, in one process."""
    import datasets

    datasets.disable_progress_bars()
    tokenizer = load_tokenizer(path.parent / "tokenizer")
    started = time.monotonic()
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder))
    loaded = loaded.select(range(min(PEER_RECORDS, len(loaded))))
    reading, started = time.monotonic() - started, time.monotonic()

    def tokenised(record: dict[str, str]) -> dict[str, list[int]]:
        messages = [{"role": "user", "content": record["input"]}, {"role": "assistant", "content": record["output"]}]
        found = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        return {"input_ids": found["input_ids"], "assistant_masks": found["assistant_masks"]}

    done = loaded.map(tokenised, remove_columns=["input", "output"])
    seconds = time.monotonic() - started
    return {
        "records": len(done),
        "reading_seconds": round(reading, 2),
        "records_per_second": round(len(done) / seconds),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs every case, prints the table, writes the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000, help="default: one million")
    parser.add_argument("--folder", type=Path, help="where the input is written; default: a temporary folder")
    parser.add_argument("--case", choices=[*CASES, "peer"], help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.case is not None:
        path = arguments.folder / "train.jsonl"
        peer = arguments.case == "peer"
        print(json.dumps(run_peer(path, arguments.folder) if peer else run_case(arguments.case, path)))
        return 0
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        found = measured(Path(folder), arguments.records)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "data_pipeline.json").write_text(json.dumps(found, indent=1) + "\n")
    print_table(found)
    return 0


def measured(folder: Path, count: int) -> dict[str, Any]:
    """All cases over so many records, the first also over a hundred: what a small job waits for."""
    small = folder / "small"
    small.mkdir()
    write_input(small, 100)
    size = write_input(folder, count).stat().st_size
    cases = {name: child(name, folder) for name in CASES}
    return {
        "input_mib": round(size / 2**20),
        "cores": len(os.sched_getaffinity(0)),
        "cases": cases,
        "small": child("as they are", small),
        "datasets.map": child("peer", folder),
    }


def child(case: str, folder: Path) -> dict[str, float]:
    """A case in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--case", case, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_table(found: dict[str, Any]) -> None:
    """As bench/README.md has it."""
    print(f"\n{found['input_mib']} MiB of JSON lines, {found['cores']} cores\n")
    print("| records | number | left out | records/s | CPU, ms/record | memory of its own |")
    print("|---|---:|---:|---:|---:|---:|")
    rows = {**found["cases"], "a hundred": found["small"]}
    for name, case in rows.items():
        print(
            f"| {name} | {case['records']:,} | {case['left_out']:,} | {case['records_per_second']:,} "
            f"| {1000 * case['cpu_seconds'] / case['records']:.2f} | {case['memory_mib']} MiB |"
        )
    peer, own = found["datasets.map"], found["cases"]["as they are"]
    print(f"| `datasets.map` | {peer['records']:,} | | {peer['records_per_second']:,} | | |")
    print(f"\nratio to datasets.map: {own['records_per_second'] / peer['records_per_second']:.1f} x")
    print(f"batches of a packed epoch: {own['batch_tokens_per_second']:,} tokens/s for one process")


if __name__ == "__main__":
    sys.exit(main())
