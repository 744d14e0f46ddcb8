"""What each type of quantization costs and saves: size, perplexity, and speed of one model on this machine's processor.

    python bench/quantization.py --train train.txt --texts test.txt [--types f16 q8_0 … --streams 8 --seconds 20]
    python bench/quantization.py --model FOLDER --texts test.txt

The files are NLPCC-ICCPOL 2016 KBQA's. Without --model a Llama of 3.7 million parameters is trained on the questions
and answers of --train first, some 15 minutes on one thread, and kept in .bench/quantization; its rows are multiples of
256 weights long, as every type wants them. Perplexity is that of questions and answers of --texts, measured as a
ModelServe's quantization job measures it: on the weights as they decode from the file. Speed is what
`alidade bench serve` measures with the questions as prompts: time per token of one stream alone, and tokens a second of
several together.

The table is printed, in Markdown, and written to bench/results/quantization.json.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from alidade_crds.contract import JobModel, Owner, QuantizationDocument  # noqa: E402  # the path is set above
from alidade_crds.modelserve import GGUF_TYPES  # noqa: E402
from alidade_engine.gguf.reading import load_decoded  # noqa: E402
from alidade_engine.gguf.writing import write_gguf  # noqa: E402
from alidade_engine.models import load_config, load_model, load_tokenizer  # noqa: E402
from alidade_engine.sources import Locations  # noqa: E402
from alidade_trainer.quantizing.perplexity import Measure, measure_of  # noqa: E402
from bench.servers import embedded, free_port, load, processor, running  # noqa: E402
from bench.trainings import job_document, new_run_folder, training_block, worker_environment  # noqa: E402
from examples.nlpcc.nlpcc import read_file, text2text  # noqa: E402

WORK = ROOT / ".bench/quantization"
INIT = {
    "hiddenSize": 256, "layers": 4, "heads": 4, "kvHeads": 4, "intermediateSize": 512, "vocabSize": 4096,
    "contextLength": 512,
}  # fmt: skip
RESULTS = ROOT / "bench/results/quantization.json"


def main() -> int:
    """Measures every type, prints the table and writes it."""
    options = _parser().parse_args()
    with TemporaryDirectory() as folder:
        work = Path(folder)
        options.model = options.model or _trained(options.train)
        options.questions = work / "questions.jsonl"
        held_out = _instances(options.texts)[: options.samples]
        _write(work / "texts.jsonl", ({"text": f"{one['input']}{one['output']}"} for one in held_out))
        _write(options.questions, ({"prompt": one["input"]} for one in held_out))
        measure = _measure(options, work)
        rows = [_row(type_, measure, options, work) for type_ in options.types]
        results = {
            "machine": {"processor": processor(), "threads": options.threads, "load": round(os.getloadavg()[0], 1)},
            "model": {"parameters": _parameters(options.model), "perplexity": round(_unchanged(measure, options), 4)},
            "measured_on": measure.told,
            "streams": options.streams,
            "types": rows,
        }
    _print(rows, options.streams)
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="folder in Hugging Face format")
    source.add_argument("--train", type=Path, help="questions to train a model on, when there is none yet")
    parser.add_argument("--texts", type=Path, required=True, help="questions that the model was not trained on")
    parser.add_argument("--samples", type=int, default=1000, help="records that are used (default: 1000)")
    parser.add_argument("--types", nargs="+", choices=GGUF_TYPES, default=list(GGUF_TYPES), help="default: all")
    parser.add_argument("--streams", type=int, default=8, help="streams of the throughput (default: 8)")
    parser.add_argument("--seconds", type=float, default=10, help="length of each measurement of speed (default: 10)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads that compute (default: all CPUs)")
    return parser


def _instances(path: Path) -> list[dict[str, str]]:
    return [dict(instance) for entry in read_file(path) if (instance := text2text(entry)) is not None]


def _write(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _trained(source: Path) -> Path:
    """Folder of a model trained on a file's questions and answers; kept."""
    if not (WORK / "model/model").is_dir():
        WORK.mkdir(parents=True, exist_ok=True)
        _write(WORK / "train.jsonl", ({"text": f"{one['input']}{one['output']}"} for one in _instances(source)))
        job = {
            **job_document("pretrain", WORK / "model"),
            "model": {"init": INIT},
            "dataset": {"uri": f"file://{WORK}/train.jsonl", "template": "none", "maxLength": 128},
            "training": {
                **training_block(learning_rate=2e-3, batch=16, seed=0),
                "epochs": 6,
                "schedule": "cosine",
                "warmupRatio": 0.05,
            },
        }
        path = WORK / "job.json"
        path.write_text(json.dumps(job))
        code = "import sys; from alidade_trainer.worker import main; sys.exit(main())"  # as the launcher starts it
        with new_run_folder() as run_folder:
            environment = {**os.environ, **worker_environment(path, run_folder)}
            subprocess.run([sys.executable, "-c", code], env=environment, stdout=sys.stderr, check=True)
    return WORK / "model/model"


def _measure(options: argparse.Namespace, work: Path) -> Measure:
    document = QuantizationDocument(
        owner=Owner(kind="ModelServe", namespace="bench", name="bench", uid="bench"),
        model=JobModel(uri=f"file://{options.model.resolve()}"),
        method="gguf",
        type="f16",
        texts=f"file://{work}/texts.jsonl",
        samples=options.samples,
        output=f"file://{work}",
    )
    length = int(load_config(options.model).max_position_embeddings)
    return measure_of(document, load_tokenizer(options.model), Locations(work, work), length)


def _unchanged(measure: Measure, options: argparse.Namespace) -> float:
    return measure.perplexity(load_model(options.model, dtype=torch.float32).eval(), _pad(options.model))


def _pad(folder: Path) -> int:
    pad = load_tokenizer(folder).pad_token_id
    return pad if isinstance(pad, int) else 0


def _parameters(folder: Path) -> int:
    return sum(weight.numel() for weight in load_model(folder, dtype=torch.float32).parameters())


def _row(type_: str, measure: Measure, options: argparse.Namespace, work: Path) -> dict[str, Any]:
    begun = time.monotonic()
    file = write_gguf(options.model, work / f"{type_}.gguf", type_)
    seconds = time.monotonic() - begun
    model = load_model(options.model, dtype=torch.float32).eval()
    load_decoded(model, file.path)
    perplexity = measure.perplexity(model, _pad(options.model))
    port = free_port()
    flags = (f"--slots={options.streams}", f"--threads={options.threads}")
    limits = ("--max-total-tokens=256", "--max-input-tokens=128")
    with running(embedded(file.path, port, *flags, *limits), port, file.path.with_suffix(".log")) as (url, _):
        alone, together = (_asked(url, streams, options) for streams in (1, options.streams))
    print(f"{type_}: perplexity {perplexity:.4f}", file=sys.stderr)
    return {
        "type": type_,
        "size_bytes": file.size_bytes,
        "quantizing_s": round(seconds, 2),
        "perplexity": round(perplexity, 4),
        "per_token_ms": round(1000 * alone["tpotSeconds"]["p50"], 3),
        "tokens_per_second": round(together["answerTokensPerSecond"], 1),
    }


def _asked(url: str, streams: int, options: argparse.Namespace) -> dict[str, Any]:
    """What is measured with so many streams. SystemExit when a request fails."""
    asked = (f"--streams={streams}", f"--duration={options.seconds}", f"--prompts={options.questions}")
    found = load(url, "--api=completions", "--answer-tokens=64", *asked)
    if found["errors"]:
        raise SystemExit(f"Requests failed: {found['errors']}")
    return found


def _print(rows: list[dict[str, Any]], streams: int) -> None:
    first = rows[0]
    print(
        f"| type | size | of {first['type']}'s | perplexity | rise | ms a token, alone | tokens/s, {streams} streams |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        share, rise = row["size_bytes"] / first["size_bytes"], row["perplexity"] / first["perplexity"] - 1
        cost = f"{row['perplexity']:.3f} | {rise:+.1%} | {row['per_token_ms']:.2f} | {row['tokens_per_second']:.0f}"
        print(f"| {row['type']} | {row['size_bytes'] / 2**20:.1f} MiB | {share:.0%} | {cost} |")


if __name__ == "__main__":
    sys.exit(main())
