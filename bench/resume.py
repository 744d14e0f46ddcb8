"""What a training loses when another number of processes goes on with it: nothing that its loss curve shows.

    python bench/resume.py

A small Llama learns instructions by the trainer's own command under ZeRO 2 and 3, in fp32: from beginning to end with
two processes, and in two attempts, of which the second, with two processes in place of one or with one in
place of two, goes on from a checkpoint at half-way.
Writes bench/results/resume.json with the largest difference of a step's loss; some three minutes on two cores.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

RESULTS = Path(__file__).parent / "results"
STEPS, HALF = 30, 15
WORDS = ["red", "green", "blue", "seven", "eleven", "Oslo", "Lima", "Bern", "tin", "gold", "fox", "owl"]
INIT = {"hiddenSize": 64, "layers": 3, "heads": 4, "vocabSize": 400, "contextLength": 128}


def document(folder: Path, name: str, stage: int) -> Path:
    """Writes the job document."""
    job = {
        "version": "alidade.dev/job/v1",
        "owner": {"kind": "FineTuneJob", "namespace": "bench", "name": name, "uid": name},
        "stage": "sft",
        "model": {"init": INIT},
        "dataset": {"uri": f"file://{folder}/train.jsonl", "maxLength": 96, "packing": False},
        "training": {
            "maxSteps": STEPS,
            "epochs": 1000,
            "learningRate": 0.003,
            "globalBatchSize": 16,
            "microBatchSize": 4,
            "precision": "fp32",
            "gradientCheckpointing": False,
        },
        "deepspeed": {"zeroStage": stage},
        "checkpoint": {"everySteps": HALF},
        "output": f"file://{folder}/{name}",
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(job))
    return path


def attempt(job: Path, *, processes: int, until_half: bool = False) -> dict[int, float]:
    """Runs the command, killed soon after its checkpoint where it is to go half the way. Returns the loss by step."""
    output = job.with_suffix("")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PET_", "ALIDADE_"))}
    told = {"ALIDADE_JOB": str(job), "PET_NPROC_PER_NODE": str(processes), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "alidade_trainer.main", "run"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=inherited | told, **quiet) as process:
        while until_half and process.poll() is None:
            time.sleep(0.02)
            if (output / "checkpoints" / f"step-{HALF}").is_dir():
                for one in [*psutil.Process(process.pid).children(recursive=True), process]:
                    one.kill()
    if until_half:
        assert not (output / "result.json").exists(), "it was to be killed before its end"
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def largest_difference(one: dict[int, float], other: dict[int, float]) -> float:
    """Over all steps; both have to have each of them."""
    assert list(one) == list(other) == list(range(1, STEPS + 1)), "a curve lacks steps"
    return max(abs(one[step] - other[step]) for step in one)


def main() -> int:
    """Runs all, writes the result, prints the table."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        records = [
            {"input": f"What is number {number} {'so ' * (number % 7)}long?", "output": WORDS[number * 5 % len(WORDS)]}
            for number in range(400)
        ]
        (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
        for stage in (2, 3):
            whole = attempt(document(folder, f"whole-{stage}", stage), processes=2)
            row = {"zeroStage": stage, "firstLoss": whole[1], "lastLoss": whole[STEPS]}
            for before, after, field in ((2, 1, "twoThenOne"), (1, 2, "oneThenTwo")):
                job = document(folder, f"{field}-{stage}", stage)
                attempt(job, processes=before, until_half=True)
                row[field] = largest_difference(whole, attempt(job, processes=after))
            rows.append(row)
    (RESULTS / "resume.json").write_text(json.dumps({"steps": STEPS, "half": HALF, "rows": rows}, indent=2) + "\n")
    print("largest difference of a step's loss from that of two processes from beginning to end, in nats per token")
    for row in rows:
        print(
            f"ZeRO {row['zeroStage']}: loss {row['firstLoss']:.3f} to {row['lastLoss']:.3f}; "
            f"two then one {row['twoThenOne']:.1e}, one then two {row['oneThenTwo']:.1e}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
