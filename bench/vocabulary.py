"""What a 4,000-piece extension is worth on Chinese questions to a model whose tokenizer was made for English.

    python bench/vocabulary.py --data ../shared/data

A small Llama is made by `init` on the English tasks of Alpaca's seed. From it two models learn the questions of
NLPCC-2016 KBQA's training file: with the tokenizer as it is, and with 4,000 pieces learned on these questions. Each
gets as many floating-point operations (6 for each weight and token, head included); perplexity is per character, for
their tokens differ, on questions of the test file. Writes bench/results/vocabulary.json; some minutes on one core.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from alidade_engine.encoding import Rendered, encode_texts
from alidade_engine.models import load_model, load_tokenizer
from alidade_engine.scoring import sequence_logprobs

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from examples.nlpcc.nlpcc import read_entries  # noqa: E402  # the path is set above

RESULTS = ROOT / "bench" / "results"
PIECES = 4000
INIT = {"hiddenSize": 128, "layers": 4, "heads": 4, "vocabSize": 1024, "contextLength": 128}
BATCH, LENGTH = 4, 128
STEPS = 1000
"""Of the model that keeps its tokenizer; the other's follow from the operations of a step."""
HELD_OUT = 1000


def questions(path: Path) -> list[str]:
    """The questions of a published file."""
    with path.open(encoding="utf-8") as lines:
        return [entry.question for entry in read_entries(lines)]


def english(path: Path) -> list[str]:
    """Instructions with their inputs and outputs."""
    tasks = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        "\n".join(part for part in (task["instruction"], one["input"], one["output"]) if part)
        for task in tasks
        for one in task["instances"]
    ]


def train(folder: Path, name: str, texts: Path, steps: int, rate: float, **blocks: Any) -> dict[str, Any]:
    """One job by the trainer's own command. Returns its result."""
    job = {
        "version": "alidade.dev/job/v1",
        "owner": {"kind": "FineTuneJob", "namespace": "bench", "name": name, "uid": name},
        "stage": "pretrain",
        "dataset": {"uri": f"file://{texts}", "format": "text_only", "maxLength": LENGTH, "packing": True},
        "training": {
            "maxSteps": steps,
            "epochs": 1000,
            "learningRate": rate,
            "warmupRatio": 0.05,
            "globalBatchSize": BATCH,
            "microBatchSize": BATCH,
            "precision": "fp32",
            "gradientCheckpointing": False,
        },
        "deepspeed": {"zeroStage": 0},
        "checkpoint": {"everySteps": 100_000},
        "output": f"file://{folder / name}",
        **blocks,
    }
    (folder / f"{name}.json").write_text(json.dumps(job))
    environment = os.environ | {
        "ALIDADE_JOB": str(folder / f"{name}.json"),
        "ALIDADE_SCRATCH": str(folder / "scratch"),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
    }
    subprocess.run([sys.executable, "-m", "alidade_trainer.main", "run"], env=environment, check=True, cwd=ROOT)
    result: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return result


def operations(rows: int) -> int:
    """Floating-point operations of a token: 2 a weight forward, 4 backward. rows: of the head."""
    hidden, layers = INIT["hiddenSize"], INIT["layers"]
    intermediate = math.ceil(hidden * 8 / 3 / 8) * 8
    blocks = layers * (4 * hidden * hidden + 3 * hidden * intermediate)
    attention = layers * 2 * hidden * LENGTH
    return 6 * (blocks + attention + rows * hidden)


def measured(folder: Path, texts: Sequence[str]) -> dict[str, float]:
    """Tokens per character and perplexity per character of a model, the end of each text included."""
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    encoded = encode_texts(tokenizer, texts)
    sequences = [Rendered(ids, [False] + [True] * (len(ids) - 1)) for ids in encoded]
    total = sum(float(one.double().sum()) for one in sequence_logprobs(model, sequences, pad_token_id=0))
    characters = sum(map(len, texts))
    # Control tokens around a text are no tokens of its characters.
    tokens = sum(len(ids) for ids in encoded) - 2 * len(texts)
    return {
        "entries": len(tokenizer),
        "tokens_per_character": round(tokens / characters, 4),
        "perplexity_per_character": round(math.exp(-total / characters), 3),
    }


def main(argv: list[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data", help="folder of the shared data")
    data = parser.parse_args(argv).data
    files = {
        name: data / name for name in ("alpaca_seed_tasks.jsonl", "nlpcc2016_kbqa/train.txt", "nlpcc2016_kbqa/test.txt")
    }
    for file in files.values():
        if not file.is_file():
            print(f"{file} is not there; --data names the folder that holds it", file=sys.stderr)
            return 2
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        rows = compare(Path(name), *files.values())
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "vocabulary.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(json.dumps(rows, indent=1))
    return 0


def compare(folder: Path, seeds: Path, learned: Path, tested: Path) -> dict[str, Any]:
    """Trains the base and the two models that start from it, and measures all."""
    (folder / "scratch").mkdir()
    write(folder / "english.json", english(seeds))
    write(folder / "chinese.json", questions(learned))
    held_out = questions(tested)[:HELD_OUT]
    train(folder, "base", folder / "english.json", 120, 3e-3, model={"init": INIT})
    base = {"uri": f"file://{folder / 'base' / 'model'}"}
    vocabulary = {"extendWith": {"trainOnDataset": True, "size": PIECES}}
    texts, rate = folder / "chinese.json", 2e-3
    size = len(load_tokenizer(folder / "base" / "model"))
    steps = {"as_it_is": STEPS, "extended": round(STEPS * operations(size) / operations(size + PIECES))}
    results = {
        "as_it_is": train(folder, "as_it_is", texts, steps["as_it_is"], rate, model=base),
        "extended": train(folder, "extended", texts, steps["extended"], rate, model=base, vocabulary=vocabulary),
    }
    return told(folder, results, held_out, budget=STEPS * operations(size) * BATCH * LENGTH)


def told(folder: Path, results: dict[str, dict[str, Any]], held_out: Sequence[str], *, budget: int) -> dict[str, Any]:
    """The table. results: of the jobs by name; budget: floating-point operations of each."""
    rows: dict[str, Any] = {name: measured(folder / name / "model", held_out) for name in ("base", *results)}
    for name, result in results.items():
        seconds = round(result["metrics"]["training_seconds"], 1)
        rows[name] |= {"steps": result["step"], "training_seconds": seconds}
    return rows | {"teraflops_each": round(budget / 1e12, 2), "characters": sum(map(len, held_out))}


def write(path: Path, texts: Sequence[str]) -> None:
    """LMFlow's text_only."""
    content = {"type": "text_only", "instances": [{"text": text} for text in texts if text]}
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
