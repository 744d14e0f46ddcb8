"""Training, sampling, alignment and quantized serving on one GPU, beside TRL, Hugging Face generate and llama.cpp.

    python -m bench.gpu [--cases sft-7b-lora raft-0.5b] [--small]

Models in the shapes of Qwen2.5-0.5B, Qwen2.5-1.5B and Llama-2-7B with random weights, made here. Every row is measured
in a process of its own under a time limit: one that fails, does not fit or lacks a package says so and costs the others
nothing. When --budget-s is used up, the cases that are left are not begun.

sft: packed rows of 4,096 tokens, bf16, steps 4 to 10 of a job; TFLOPS are 6N + 12·L·H·Q·T operations for a token (PaLM,
appendix B), with LoRA 4N; T is the mean length of samples, by tokens, since packed samples do not see one another. MFU
is their share of the GPU's dense bf16 peak, which bench/gpu/hardware.py has for NVIDIA's usual ones. TRL keeps weights
in fp32 under autocast where it trains all, as the platform keeps exact ones in fp32; with LoRA its base is in bf16.
raft, ppo: 256 answers of at most 128 tokens in an iteration, all weights; a mean over three, with the first. TRL has no
PPO any more; its RLOO, in bf16 throughout, trains no critic. sample: 128 answers of ragged lengths or 64 of full ones,
in 64 slots. serve: 8 streams of 128 tokens each, llama.cpp with q4_k_m against generate with bf16.

--small puts tiny models in place of all, on whatever there is: does it run? The table goes to bench/results/gpu.json,
with --small only where --output says.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.gpu.cases import CASES, Case, Place, Skipped, is_prepared, measure, prepare
from bench.gpu.hardware import Hardware, find_hardware
from bench.trainings import PACKAGES, QUIET, ROOT, TRL_PYTHON, WORK

RESULTS = ROOT / "bench/results/gpu.json"
GROUPS = list(dict.fromkeys(case.group for case in CASES))
Row = dict[str, Any]


def main(argv: Sequence[str]) -> int:
    """Measures, prints a table and writes it. Exit code 1 when a case failed, 2 without a GPU and without --small."""
    if argv[:1] == ["--child"]:
        print(json.dumps(_child(json.loads(argv[1]))))
        return 0
    options = _parser().parse_args(argv)
    started = time.monotonic()
    found = _run({}, options.case_limit_s, sys.executable)
    if "failed" in found:
        print(f"What this machine is cannot be told: {found['failed']}", file=sys.stderr)
        return 1
    hardware = Hardware(**found["hardware"])
    if options.peak_tflops is not None:
        hardware = replace(hardware, peak_tflops=options.peak_tflops)
    if not (hardware.on_gpu or options.small):
        print("There is no GPU that torch can use; --small tries the benchmark on tiny models.", file=sys.stderr)
        return 2
    rows: list[Row] = []
    for case in [case for case in CASES if case.group in options.cases]:
        left = options.budget_s - (time.monotonic() - started)
        rows.append(_row(case, hardware, options, min(left, options.case_limit_s)))
        print(f"{case.group} {case.engine} {_said(rows[-1])}", file=sys.stderr, flush=True)
    _compare(rows)
    print(table(hardware, rows))
    output = options.output or (None if options.small else RESULTS)
    if output is not None:
        output.write_text(json.dumps({"hardware": asdict(hardware), "rows": rows}, indent=2) + "\n")
    return int(any("failed" in row for row in rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", choices=GROUPS, default=GROUPS, metavar="CASE", help=", ".join(GROUPS))
    parser.add_argument("--small", action="store_true", help="tiny models, on whatever there is")
    parser.add_argument("--budget-s", type=float, default=570, help="seconds for all cases (default: 570)")
    parser.add_argument("--case-limit-s", type=float, default=120, help="most seconds of one process (default: 120)")
    parser.add_argument("--peak-tflops", type=float, help="the GPU's dense peak in bf16, where its name tells none")
    parser.add_argument("--folder", type=Path, default=WORK / "gpu", help="of models, 19 GB (default: .bench/gpu)")
    parser.add_argument("--output", type=Path, help="file for the numbers (default: bench/results/gpu.json)")
    return parser


def _row(case: Case, hardware: Hardware, options: argparse.Namespace, seconds: float) -> Row:
    """What is known of a case after it was measured, or why it was not."""
    row: Row = {"case": case.group, "engine": case.engine}
    if seconds <= 0:
        return row | {"skipped": f"the {options.budget_s:.0f} seconds of --budget-s were used up"}
    place = Place(options.folder, options.small, hardware.on_gpu, hardware.memory_gib)
    asked = {"case": asdict(case), "place": asdict(place) | {"folder": str(options.folder)}}
    started = time.monotonic()
    if not is_prepared(case, place):
        # In a process of its own: the case would hold what it took of the GPU.
        row |= _run({"prepare": True, **asked}, seconds, sys.executable)
        if "skipped" in row or "failed" in row:
            return row
    of_trl = case.engine in ("trl", "rloo") and TRL_PYTHON.is_file()
    row |= _run(asked, seconds - (time.monotonic() - started), str(TRL_PYTHON) if of_trl else sys.executable)
    if "tflops" in row and hardware.peak_tflops is not None and not options.small:
        row["mfu"] = row["tflops"] / hardware.peak_tflops
    return row


def _run(asked: dict[str, Any], seconds: float, python: str) -> dict[str, Any]:
    """The answer of a process to what it is asked; `failed` when it has none within so many seconds."""
    environment = os.environ | QUIET
    environment["DS_ACCELERATOR"] = "cuda" if asked.get("place", {}).get("on_gpu") else "cpu"
    environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS") or str(os.cpu_count())
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [PACKAGES, os.environ.get("PYTHONPATH")]))
    command = [python, "-m", "bench.gpu", "--child", json.dumps(asked)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True, **pipes) as process:
        try:
            said, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the servers and loaders that it started
            return {"failed": f"no end after {seconds:.0f} seconds"}
    lines = said.strip().splitlines() or [""]
    # Libraries may have a word to say when they are unloaded.
    answers = [line for line in lines if line.startswith("{")]
    if process.returncode or not answers:
        return {"failed": f"exit code {process.returncode}: {lines[-1][:300]}", "log": said[-4000:]}
    answer: dict[str, Any] = json.loads(answers[-1])
    return answer


def _child(asked: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: what the machine is, or the numbers of a case."""
    if not asked:
        return {"hardware": asdict(find_hardware())}
    place = Place(**asked["place"] | {"folder": Path(asked["place"]["folder"])})
    return outcome(Case(**asked["case"]), place, only_prepare=asked.get("prepare", False))


def outcome(case: Case, place: Place, *, only_prepare: bool = False) -> dict[str, Any]:
    """The numbers of a case, or why there are none: what is not installed, and what does not fit."""
    try:
        if only_prepare:
            prepare(case, place)
            return {}
        return measure(case, place) | _gpu_memory()
    except Skipped as reason:
        return {"skipped": str(reason)}
    except ModuleNotFoundError as error:
        return {"skipped": f"not installed: {error.name}"}
    except RuntimeError as error:
        if "out of memory" not in str(error).lower():
            raise
        return {"skipped": f"does not fit into the {place.memory_gib:.0f} GiB of the GPU"}


def _gpu_memory() -> dict[str, float]:
    import torch

    return {"gpuGib": torch.cuda.max_memory_allocated() / 2**30} if torch.cuda.is_available() else {}


def _compare(rows: list[Row]) -> None:
    """Adds to each group's first engine its ratio to the other one: above 1 it is faster."""
    for ours, theirs in pairwise(rows):
        if ours["case"] == theirs["case"]:
            speeds = [row.get("samplesPerSecond", row.get("tokensPerSecond")) for row in (ours, theirs)]
            if all(speeds):
                ours["ratio"] = speeds[0] / speeds[1]


def _said(row: Row) -> str:
    return str(row.get("skipped") or row.get("failed") or {k: v for k, v in row.items() if k not in ("case", "engine")})


def table(hardware: Hardware, rows: list[Row]) -> str:
    """The rows as Markdown."""
    peak = f"{hardware.peak_tflops:.0f} TFLOPS at most" if hardware.peak_tflops else "peak unknown: --peak-tflops"
    where = f"{hardware.name}, {hardware.memory_gib:.0f} GiB, {peak}" if hardware.on_gpu else hardware.name
    lines = [
        f"{where}; torch {hardware.torch}, transformers {hardware.transformers}",
        "",
        "| case | engine | tokens/s | MFU | s/iteration | GPU GiB | ours to theirs |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        head = f"| {row['case']} | {row['engine']} |"
        reason = row.get("skipped") or row.get("failed")
        if reason is not None:
            lines.append(f"{head} {'' if 'skipped' in row else 'failed: '}{reason} | | | | |")
            continue
        shown = [
            f"{row['tokensPerSecond']:,.0f}" if "tokensPerSecond" in row else "",
            f"{row['mfu']:.1%}" if "mfu" in row else "",
            f"{row['secondsPerIteration']:.2f}" if "secondsPerIteration" in row else "",
            f"{row['gpuGib']:.1f}" if "gpuGib" in row else "",
            f"{row['ratio']:.2f} ×" if "ratio" in row else "",
        ]
        lines.append(f"{head} {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
