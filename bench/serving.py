"""The embedded server against `transformers serve` and llama.cpp's own server: 1, 8 and 32 streams.

    python bench/serving.py [--streams 1 8 32 --rounds 3 --tokens 128 --engines alidade llama.cpp transformers]

A Llama of 40 million parameters with random weights that never ends an answer; chat completions of about 85 prompt
tokens, all different, streamed, the likeliest token. Every stream asks once and all begin together. The two servers on
llama.cpp compute with the same weights in the same type; `transformers serve` with float32, which is faster than
bfloat16 on processors without matrix units for it, and with continuous batching. All get as many threads.

Each round starts every server anew, one after the other in changing order, asks once to warm it, and then measures each
number of streams. Medians over the rounds, and the ratios of ours to theirs within each round, are printed and written
to bench/results/serving.json. Memory is the peak of the server's process with its children. `transformers serve` needs
packages that the project does not: they are installed into .bench/serving.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.servers import embedded, free_port, processor, running  # noqa: E402  # the path is set above

WORK = ROOT / ".bench/serving"
RESULTS = ROOT / "bench/results/serving.json"
ENGINES = ("alidade", "llama.cpp", "transformers")
PROMPT_WORDS = 64
SLOTS = 32
CONTEXT = 512

# llama.cpp's own server as xllamacpp starts it, with as many slots as streams.
LLAMA_CPP = """
import sys, threading, xllamacpp
model, port, slots, context, threads = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path = model
params.port = port
params.n_parallel = slots
params.n_ctx = slots * context
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.cache_ram_mib = 0
params.verbosity = -1
server = xllamacpp.Server(params)
threading.Event().wait()
"""


def main() -> int:
    """Measures, prints a table and writes it; exit code 1 when a server does not answer."""
    options = _parser().parse_args()
    _prepare(options)
    rounds: list[dict[str, Any]] = []
    for number in range(options.rounds):
        order = options.engines[number % len(options.engines) :] + options.engines[: number % len(options.engines)]
        rounds.append({engine: _measure(engine, options) for engine in order})
        print(f"round {number + 1} of {options.rounds} is done", file=sys.stderr)
    results = {
        "machine": {"processor": processor(), "threads": options.threads, "load": os.getloadavg()[0]},
        "settings": {"rounds": options.rounds, "tokens": options.tokens, "quantization": options.quantization},
        "medians": _medians(rounds, options),
        "ratios": _ratios(rounds, options),
    }
    _print(results, options)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32], help="streams at once (default: 1 8 32)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of which medians are taken (default: 3)")
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer (default: 128)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads that compute (default: all CPUs)")
    parser.add_argument("--quantization", default="q8_0", help="type of the weights under llama.cpp (default: q8_0)")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="servers (default: all)")
    parser.add_argument("--timeout", type=float, default=300, help="most seconds of one measurement (default: 300)")
    return parser


def _prepare(options: argparse.Namespace) -> None:
    """The model, and what `transformers serve` needs."""
    model_file(options.quantization)
    if "transformers" in options.engines and not (WORK / "packages").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([*pip, "--target", str(WORK / "packages"), "fastapi", "uvicorn"], check=True)


def model_file(quantization: str) -> Path:
    """The model as a .gguf file of a type; the folder that it is made of lies beside it."""
    from alidade_engine.gguf.writing import write_gguf

    folder, file = WORK / "model", WORK / f"model-{quantization}.gguf"
    if not (folder / "config.json").is_file():
        _write_model(folder)
    if not file.is_file():
        write_gguf(folder, file, quantization)
    return file


def _write_model(folder: Path) -> None:
    """Random weights; tokens that end an answer, or are no text, are never the likeliest."""
    import torch

    from alidade_crds.blocks import ModelInit
    from alidade_engine.models import init_model
    from alidade_engine.tokenization import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer([" ".join(_words(seed, 400)) for seed in range(400)], 16384)
    init = ModelInit(
        hidden_size=512, layers=8, heads=8, kv_heads=4, vocab_size=16384, context_length=2048, tie_embeddings=False
    )
    model = init_model(init, tokenizer)
    texts = [tokenizer.decode([number]) for number in range(len(tokenizer))]
    silent = [number for number, text in enumerate(texts) if not text.strip().isalpha() or "\ufffd" in text]
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(4)
        model.get_output_embeddings().weight[[*silent, *tokenizer.all_special_ids]] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(
        f"the model has {sum(weight.numel() for weight in model.parameters()) / 1e6:.1f}M parameters", file=sys.stderr
    )


def _words(seed: int, count: int) -> list[str]:
    """Made-up words, so that the tokenizer has something to merge and prompts have nothing in common."""
    import random

    draw = random.Random(seed)
    syllables = ["ka", "lo", "mi", "ren", "tos", "u", "vel", "sha", "qui", "dor", "bra", "ne", "ist", "po", "gan", "ly"]
    return ["".join(draw.choices(syllables, k=draw.randint(2, 4))) for _ in range(count)]


def _prompt(seed: int) -> str:
    return " ".join(_words(10_000 + seed, PROMPT_WORDS))


def _measure(engine: str, options: argparse.Namespace) -> dict[str, Any]:
    """Every number of streams against one server, which is started and ended here."""
    with _running(engine, options) as (url, model, process):
        asyncio.run(_ask_together(url, model, 1, options, seed=999))
        measured = {
            str(streams): asyncio.run(_ask_together(url, model, streams, options, seed=1000 * streams))
            for streams in options.streams
        }
        return {"streams": measured, "peak_mib": _peak_mib(process)}


@contextmanager
def _running(engine: str, options: argparse.Namespace) -> Iterator[tuple[str, str, psutil.Process]]:
    """A server that answers, its model's name, and its process."""
    port = free_port()
    folder, file = WORK / "model", WORK / f"model-{options.quantization}.gguf"
    threads = str(options.threads)
    environment = os.environ | {"OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    if engine == "alidade":
        limits = (f"--max-total-tokens={CONTEXT}", f"--max-input-tokens={CONTEXT - 1}")
        command = embedded(file, port, f"--slots={SLOTS}", f"--threads={threads}", *limits)
        model = "bench"
    elif engine == "llama.cpp":
        command = [sys.executable, "-c", LLAMA_CPP, str(file), str(port), str(SLOTS), str(CONTEXT), threads]
        model = "bench"
    else:
        environment["PYTHONPATH"] = str(WORK / "packages")
        command = [str(Path(sys.executable).with_name("transformers")), "serve", str(folder), "--port", str(port)]
        command += ["--host", "127.0.0.1", "--dtype", "float32", "--device", "cpu", "--continuous-batching"]
        model = str(folder)
    with running(command, port, WORK / f"{engine}.log", environment) as (url, pid):
        yield url, model, psutil.Process(pid)


async def _ask_together(url: str, model: str, streams: int, options: argparse.Namespace, seed: int) -> dict[str, float]:
    """Seconds to the first token and between tokens (medians over the streams), and tokens a second of all together."""
    timeout = aiohttp.ClientTimeout(total=options.timeout)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        begun = time.perf_counter()
        asked = [_ask(session, url, model, seed + number, options.tokens) for number in range(streams)]
        answers = await asyncio.gather(*asked)
        wall = time.perf_counter() - begun
    return {
        "tokens_per_second": streams * options.tokens / wall,
        "first_token_s": statistics.median(first for first, _ in answers),
        "per_token_s": statistics.median((last - first) / (options.tokens - 1) for first, last in answers),
    }


async def _ask(session: aiohttp.ClientSession, url: str, model: str, seed: int, tokens: int) -> tuple[float, float]:
    """Seconds from asking to the first and to the last text. No answer ends before its limit, so tokens are known."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": _prompt(seed)}],
        "max_tokens": tokens,
        "temperature": 0,
        "stream": True,
    }
    begun = time.perf_counter()
    first = last = 0.0
    finish = None
    async with session.post(f"{url}/v1/chat/completions", json=body) as answer:
        answer.raise_for_status()
        async for line in answer.content:
            if not line.startswith(b"data: {"):
                continue
            (choice,) = json.loads(line[6:])["choices"] or [{"delta": {}}]
            finish = choice.get("finish_reason") or finish
            if choice["delta"].get("content"):
                last = time.perf_counter() - begun
                first = first or last
    if finish != "length":
        raise SystemExit(
            f"An answer of {url} ended with {finish!r} instead of at its limit; its tokens cannot be counted."
        )
    return first, last


def _peak_mib(process: psutil.Process) -> float:
    """Highest resident memory of a process and its children, each at its own peak."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        status = Path(f"/proc/{one.pid}/status").read_text("ascii")
        total += int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
    return total / 1024


def _medians(rounds: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    return {
        engine: {
            "peak_mib": statistics.median(one[engine]["peak_mib"] for one in rounds),
            **{
                str(streams): {
                    name: statistics.median(one[engine]["streams"][str(streams)][name] for one in rounds)
                    for name in ("tokens_per_second", "first_token_s", "per_token_s")
                }
                for streams in options.streams
            },
        }
        for engine in options.engines
    }


def _ratios(rounds: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Medians of ours to theirs within a round: throughput above 1 and times below 1 are in our favour."""
    if "alidade" not in options.engines:
        return {}
    return {
        other: {
            str(streams): {
                name: statistics.median(
                    one["alidade"]["streams"][str(streams)][name] / one[other]["streams"][str(streams)][name]
                    for one in rounds
                )
                for name in ("tokens_per_second", "first_token_s", "per_token_s")
            }
            for streams in options.streams
        }
        for other in options.engines
        if other != "alidade"
    }


def _print(results: dict[str, Any], options: argparse.Namespace) -> None:
    print(
        "| streams | server | tokens/s | first token, ms | per token, ms | ours to theirs: tokens/s, first, per token |"
    )
    print("|---|---|---|---|---|---|")
    for streams in map(str, options.streams):
        for engine in options.engines:
            row = results["medians"][engine][streams]
            ratio = results["ratios"].get(engine, {}).get(streams)
            compared = " × / ".join(f"{value:.2f}" for value in ratio.values()) + " ×" if ratio else ""
            times = f"{1000 * row['first_token_s']:.0f} | {1000 * row['per_token_s']:.1f}"
            print(f"| {streams} | {engine} | {row['tokens_per_second']:.0f} | {times} | {compared} |")
    peaks = (f"{engine} {results['medians'][engine]['peak_mib']:.0f} MiB" for engine in options.engines)
    print(f"\nPeak memory: {', '.join(peaks)}.")


if __name__ == "__main__":
    sys.exit(main())
