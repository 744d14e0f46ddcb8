"""RAFT and PPO on two workers against one: time of an iteration, equality of the metrics, time lost to a kill.

    python bench/alignment_scaling.py [--quick] [--steps raft ppo]

The start model, the questions and the reward are those of bench/ppo_rloo.py's problem `qa` (with --quick: `toy`); every
worker is a process group of its own with one thread, as the pods of a PyTorchJob are. One worker without ZeRO is
compared with two under ZeRO-2 and under ZeRO-3. On a CPU with two cores two workers cannot be twice as fast: the memory
bandwidth is shared, and gloo's copies are paid for by the same cores.

Iterations are timed by the progress that rank 0 answers over HTTP, from the moment at which one is counted to the next,
evaluation and checkpoint included; the median is told. Metrics: the greatest relative difference in the first
iteration, in which only rounding differs, and the held-out rewards at the end, which random numbers near a boundary
between two tokens may drive apart.

Kills: both workers of a ZeRO-2 run are killed with SIGKILL while the middle iteration samples, in another run while it
trains, and both are started again at once. The time lost is that from the end of the iteration before to the end of the
one that was killed, over both attempts, less what an iteration takes; told apart are the start of the second attempt,
up to the moment at which it samples or trains again, and the rest, work done twice. Whether it ends with the same
metrics, to the last digit, is told too. Results: bench/results/alignment_scaling.json.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.ppo_rloo import PROBLEMS, Problem, prepare  # noqa: E402
from bench.trainings import QUIET, job_document, training_block  # noqa: E402

RESULTS = ROOT / "bench/results/alignment_scaling.json"
POLL_S = 0.01
"""Between two looks at the progress; iterations take seconds."""
STEPS: dict[str, dict[str, Any]] = {
    "raft": {"promptsPerIteration": 32, "samplesPerPrompt": 4, "klCoefficient": 0.01},
    "ppo": {"rolloutBatchSize": 128, "miniBatchSize": 32, "epochs": 2},
}
LAYOUTS = {"one worker": (1, 0), "two, ZeRO-2": (2, 2), "two, ZeRO-3": (2, 3)}
"""Workers and ZeRO stage."""
KILLED = "two, ZeRO-2"
ACTIVITIES = ("sampling", "training")


@dataclass
class Observed:
    """What was seen of a run. seconds: from its start to its end; counted: when an iteration was, by its number;
    active: when the run was first seen busy with sampling or training."""

    seconds: float = 0.0
    counted: dict[int, float] = field(default_factory=dict)
    active: float | None = None

    @property
    def iteration_seconds(self) -> list[float]:
        """Of each iteration but the first, before which the step is set up."""
        times = [self.counted[number] for number in sorted(self.counted)]
        return [later - earlier for earlier, later in pairwise(times)]


def main(argv: Sequence[str]) -> int:
    """Runs everything, prints a table and writes it; exit code 0."""
    options = _parser().parse_args(argv)
    problem = PROBLEMS["toy" if options.quick else "qa"]
    prepare(problem)
    iterations = 3 if options.quick else 6
    results: dict[str, Any] = {"problem": problem.name, "iterations": iterations}
    with tempfile.TemporaryDirectory(prefix="alignment-scaling-") as folder:
        for step in options.steps:
            results[step] = _measure(problem, step, iterations, Path(folder))
    _print(results, options.steps)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="default: both")
    parser.add_argument("--quick", action="store_true", help="a tiny model and few iterations: does it run?")
    return parser


def _measure(problem: Problem, step: str, iterations: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    rows: dict[str, list[dict[str, float]]] = {}
    whole: dict[str, Observed] = {}
    for layout, (workers, stage) in LAYOUTS.items():
        job = _job(problem, step, iterations, stage, folder / f"{step}-{workers}-{stage}")
        whole[layout] = _attempt(job, workers)
        rows[layout] = _iterations(job)
        found[layout] = {
            "secondsPerIteration": round(statistics.median(whole[layout].iteration_seconds), 3),
            "seconds": round(whole[layout].seconds, 2),
            "rewardAtEnd": rows[layout][-1]["evalReward"],
        }
        _say(f"{step} {layout} {found[layout]}")
    alone = rows["one worker"]
    for layout in LAYOUTS:
        differences = [_difference(rows[layout][number], alone[number]) for number in (0, 1)]
        found[layout]["relativeDifferenceInFirstIteration"] = max(differences)
        seconds = found["one worker"]["secondsPerIteration"]
        found[layout]["speedup"] = round(seconds / found[layout]["secondsPerIteration"], 2)
    workers, stage = LAYOUTS[KILLED]
    for activity in ACTIVITIES:
        job = _job(problem, step, iterations, stage, folder / f"{step}-killed-{activity}")
        killed = _killed(
            job,
            workers,
            activity,
            iteration=iterations // 2,
            delay_s=0.0 if activity == "sampling" or problem.name == "toy" else 0.1,
        )
        lost = killed["seconds"] - statistics.median(whole[KILLED].iteration_seconds)
        found[f"killed while {activity}"] = {
            "secondsLost": round(lost, 2),
            "secondsToStartAgain": round(killed["start"], 2),
            "secondsOfWorkDoneTwice": round(lost - killed["start"], 2),
            "sameMetrics": _iterations(job) == rows[KILLED],
        }
        _say(f"{step} killed while {activity} {found[f'killed while {activity}']}")
    return found


def _job(problem: Problem, step: str, iterations: int, stage: int, output: Path) -> Path:
    """Writes the job document; answers its path."""
    folder = problem.folder
    document = {
        **job_document("align", output),
        "model": {"uri": f"file://{folder}/start/model"},
        "dataset": {
            "uri": f"file://{folder}/prompts.jsonl",
            "maxLength": 64,
            "validation": {"uri": f"file://{folder}/held.jsonl"},
        },
        "alignment": {
            "steps": [{step: {**STEPS[step], "iterations": iterations}}],
            "rewards": [{"name": "right", "function": "exact_match"}],
            "generation": {"maxNewTokens": problem.setting["max_new_tokens"]},
            "guardrails": {"minDiversityRatio": 0, "minLengthRatio": 0},
        },
        "training": {**training_block(learning_rate=problem.learning_rates[1], batch=32, seed=0), "microBatchSize": 16},
        "deepspeed": {"zeroStage": stage},
        "checkpoint": {"everySteps": 1, "keep": 1},
    }
    path = output.with_suffix(".json")
    path.write_text(json.dumps(document))
    return path


def _output(job: Path) -> Path:
    return Path(json.loads(job.read_text())["output"].removeprefix("file://"))


def _iterations(job: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (_output(job) / "metrics.jsonl").read_text().splitlines()]
    return [line["metrics"] for line in lines if "iteration" in line]


def _difference(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """The greatest relative difference of a measure; of measures near 0 the absolute one."""
    return max(abs(ours[name] - value) / max(abs(value), 0.1) for name, value in theirs.items())


@contextmanager
def _workers(job: Path, count: int) -> Iterator[tuple[list[subprocess.Popen[bytes]], int]]:
    """A job's workers, each with folders of its own, and the port of its progress."""
    ports = _free_ports(2)
    run_folders = [Path(tempfile.mkdtemp(prefix="worker-")) for _ in range(count)]
    started = []
    log = job.with_suffix(".log").open("ab")
    for rank, run_folder in enumerate(run_folders):
        told = {
            "RANK": str(rank),
            "LOCAL_RANK": "0",
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(ports[0]),
            "ALIDADE_JOB": str(job),
            "ALIDADE_RUN_FOLDER": str(run_folder),
            "ALIDADE_SCRATCH": str(run_folder),
            **({"ALIDADE_PORT": str(ports[1])} if rank == 0 else {}),
        }
        command = [sys.executable, "-m", "alidade_trainer.worker"]
        environment = {**os.environ, **QUIET, **told}
        started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    try:
        yield started, ports[1]
    finally:
        for process in started:
            process.kill()
            process.wait()
        log.close()
        for run_folder in run_folders:
            shutil.rmtree(run_folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _attempt(job: Path, count: int, *, until: Callable[[dict[str, Any]], bool] | None = None) -> Observed:
    """A run to its end, or until a look at its progress says that it is to be killed.

    Raises RuntimeError with the end of the log when a worker fails.
    """
    observed = Observed()
    began = time.monotonic()
    with _workers(job, count) as (started, port):
        while any(process.poll() is None for process in started):
            progress = _progress(port)
            now = time.monotonic() - began
            if progress.get("iteration") is not None:
                observed.counted.setdefault(int(progress["iteration"]), now)
            if observed.active is None and progress.get("activity") in ACTIVITIES:
                observed.active = now
            if until is not None and until(progress):
                for process in started:
                    process.kill()
                break
            time.sleep(POLL_S)
        codes = [process.wait() for process in started]
    observed.seconds = time.monotonic() - began
    if until is None and any(codes):
        raise RuntimeError(f"{job} ended with {codes}: {job.with_suffix('.log').read_text()[-2000:]}")
    return observed


def _progress(port: int) -> dict[str, Any]:
    """What rank 0 answers; nothing before it listens and after it has gone."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
    except OSError:
        return {}
    return found


def _killed(job: Path, count: int, activity: str, *, iteration: int, delay_s: float) -> dict[str, float]:
    """A run that is killed so long after an activity of an iteration began, and started again. seconds:
    from the end of the iteration before to the end of that one. start: until it was at work again."""
    seen: list[float] = []

    def is_in_the_middle(progress: dict[str, Any]) -> bool:
        if progress.get("iteration") != iteration or progress.get("activity") != activity:
            return False
        seen.append(time.monotonic())
        return time.monotonic() - seen[0] >= delay_s

    first = _attempt(job, count, until=is_in_the_middle)
    if (_output(job) / "result.json").exists():
        raise RuntimeError(f"{job} ended before it could be killed while {activity}.")
    second = _attempt(job, count)
    assert second.active is not None, "a second attempt samples or trains"
    between = first.seconds - first.counted[iteration] + second.counted[iteration + 1]
    return {"seconds": between, "start": second.active}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(results: dict[str, Any], steps: Sequence[str]) -> None:
    for step in steps:
        print(f"{step:26}{'s/iteration':>12}{'speed':>8}{'difference':>12}{'reward':>8}")
        for layout in LAYOUTS:
            row = results[step][layout]
            print(
                f"  {layout:24}{row['secondsPerIteration']:12.2f}{row['speedup']:8.2f}"
                f"{row['relativeDifferenceInFirstIteration']:12.1e}{row['rewardAtEnd']:8.3f}"
            )
        for activity in ACTIVITIES:
            row = results[step][f"killed while {activity}"]
            print(
                f"  killed while {activity:11}{row['secondsLost']:12.1f} s lost, {row['secondsToStartAgain']:.1f} of "
                f"them to start again; {'the same' if row['sameMetrics'] else 'other'} metrics"
            )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
