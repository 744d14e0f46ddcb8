"""The chain of examples/kbqa, from pretraining to RAFT and PPO, over several seeds on a local cluster of its own.

    python bench/kbqa_alignment.py --seeds 0 1 2

Applies the example's manifests with kubectl, each seed under names of its own, waits for them, and measures every model
on questions worded as none that was trained on. Writes the table to bench/results/kbqa_alignment.json. Some six
minutes for each seed on two cores; --keep leaves the cluster and its models, and what is there already is used.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml

from alidade_engine.models import load_model, load_tokenizer
from alidade_engine.reward.learned import LearnedReward
from alidade_engine.sampling import generate
from alidade_engine.scoring import sequence_logprobs
from alidade_engine.templates import render_batch, resolve_template

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "kbqa"
RESULTS = ROOT / "bench" / "results"
CLUSTER = "bench-kbqa"
RUNS = {"RAFT": "align-raft.yaml", "PPO": "align-ppo.yaml", "RAFT, two rewards": "align-two-rewards.yaml"}
SAMPLES = 4  # answers of each question at temperature 1
LONGEST_ANSWER = 24  # tokens, as in the manifests
RESAMPLES = 2000  # of the bootstrap: its intervals' ends are then stable to two digits
LONGEST_WAIT_S = 3600


@dataclass(frozen=True)
class Measures:
    """What a model is worth on held-out questions, one number for each of them.

    sampled: share of SAMPLES answers drawn at temperature 1 that are exactly right, the true reward. greedy: whether
    the likeliest answer is. learned: mean of the reward model's scores of the same samples. nats, tokens: of the right
    answer.
    """

    sampled: list[float]
    greedy: list[float]
    learned: list[float]
    nats: list[float]
    tokens: list[int]


def run(*command: str, stdin: str | None = None, quiet: bool = False) -> str:
    """What a command printed; its error ends the benchmark."""
    if not quiet:
        print("$", " ".join(command), flush=True)
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def seeded(document: dict[str, Any], seed: int) -> dict[str, Any]:
    """A manifest with another seed in each of its stages, and names that end with it."""
    copy: dict[str, Any] = json.loads(json.dumps(document))
    copy["metadata"]["name"] += f"-{seed}"
    for block in _blocks(copy["spec"]):
        if "learningRate" in block:  # only blocks named training have one
            block["seed"] = seed
        if block.get("kind") == "FineTuneJob" and "name" in block:
            block["name"] += f"-{seed}"
    return copy


def _blocks(value: object) -> Iterable[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _blocks(part)


@dataclass(frozen=True)
class Chain:
    """Manifests: of the pretrained model, and of the runs that start from it by the names of their rows."""

    pretrain: dict[str, Any]
    runs: dict[str, dict[str, Any]]

    @classmethod
    def of_example(cls, runs: Iterable[str]) -> "Chain":
        """The example's own."""
        return cls(read_manifest("pretrain.yaml"), {name: read_manifest(RUNS[name]) for name in runs})


def read_manifest(name: str) -> dict[str, Any]:
    """A manifest of the example."""
    document: dict[str, Any] = yaml.safe_load((EXAMPLE / name).read_text(encoding="utf-8"))
    return document


def apply_and_wait(document: dict[str, Any]) -> dict[str, Any]:
    """The status of a manifest's resource once it has succeeded."""
    run("kubectl", "apply", "--server-side", "-f", "-", stdin=yaml.safe_dump(document))
    short = {"FineTuneJob": "ftj", "AlignmentRun": "ar"}[document["kind"]]
    target = f"{short}/{document['metadata']['name']}"
    waited = run("alidade", "wait", target, "--timeout", str(LONGEST_WAIT_S), "-o", "json")
    status: dict[str, Any] = json.loads(waited.splitlines()[-1])
    return status


def seconds_of(status: dict[str, Any]) -> float:
    """From the start of a job or stage to its end, with the start of its processes."""
    started, finished = (datetime.fromisoformat(status[name]) for name in ("startedAt", "finishedAt"))
    return (finished - started).total_seconds()


def stage_status(status: dict[str, Any], name: str) -> dict[str, Any]:
    """The status of the resource that a run's stage has made."""
    stage = next(stage for stage in status["stages"] if stage["name"] == name)
    found = run("kubectl", "get", stage["kind"].lower(), stage["ref"], "-o", "json", quiet=True)
    answer: dict[str, Any] = json.loads(found)["status"]
    return answer


def model_folder(volumes: Path, status: dict[str, Any]) -> Path:
    """Where the model of a status lies on this machine."""
    uri: str = status["model"]["uri"]
    return volumes / uri.removeprefix("pvc://")


def train(chain: Chain, seed: int, volumes: Path) -> dict[str, Any]:
    """Models by name, the reward model's folder and metrics, seconds and iterations of one seed."""
    base = apply_and_wait(seeded(chain.pretrain, seed))
    models, seconds = {"base": model_folder(volumes, base)}, {"pretraining": seconds_of(base)}
    status: dict[str, Any] = {}
    iterations: dict[str, float] = {}
    for name, document in chain.runs.items():
        status = apply_and_wait(seeded(document, seed))
        models[name] = model_folder(volumes, status)
        aligned = next(stage for stage in reversed(status["stages"]) if stage["kind"] == "Alignment")
        seconds[name] = seconds_of(aligned)
        iterations[name] = status["metrics"]["iterations"]
    sft, judge = stage_status(status, "sft"), stage_status(status, "correctness")
    models["SFT"] = model_folder(volumes, sft)
    seconds |= {"SFT": seconds_of(sft), "reward model": seconds_of(judge)}
    return {
        "models": models,
        "reward": model_folder(volumes, judge),
        "reward_metrics": judge["metrics"],
        "seconds": seconds,
        "iterations": iterations,
    }


def measure(folder: Path, judge: LearnedReward, pairs: Sequence[tuple[str, str]], *, seed: int) -> Measures:
    """Draws and scores answers of the model in a folder. pairs: question and right answer."""
    model, tokenizer = load_model(folder, dtype=torch.float32), load_tokenizer(folder)
    asked, right = [question for question, _ in pairs], [answer for _, answer in pairs]

    def answers(temperature: float, draw: int) -> list[str]:
        drawn = generate(
            model, tokenizer, asked, max_new_tokens=LONGEST_ANSWER, temperature=temperature, seed=draw, batch_size=64
        )
        return [one.text.strip() for one in drawn]

    turns = [[{"role": "user", "content": question}] for question in asked]
    samples = [answers(1.0, seed * SAMPLES + number) for number in range(SAMPLES)]
    scores = [judge.score(turns, drawn, right).tolist() for drawn in samples]
    whole = [[*turn, {"role": "assistant", "content": answer}] for turn, answer in zip(turns, right, strict=True)]
    rendered = render_batch(tokenizer, whole, resolve_template(tokenizer, "auto"))
    likelihoods = sequence_logprobs(model, rendered, pad_token_id=tokenizer.pad_token_id, batch_size=64)
    return Measures(
        sampled=_means([_matches(drawn, right) for drawn in samples]),
        greedy=_matches(answers(0.0, 0), right),
        learned=_means(scores),
        nats=[-float(one.sum()) for one in likelihoods],
        tokens=[len(one) for one in likelihoods],
    )


def _matches(answers: Sequence[str], right: Sequence[str]) -> list[float]:
    return [float(answer == wanted) for answer, wanted in zip(answers, right, strict=True)]


def _means(rows: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(column) for column in zip(*rows, strict=True)]


Statistic = Callable[[Sequence[Measures], Sequence[int]], float]


def mean_of(name: str) -> Statistic:
    """The mean of a measure over seeds and the given questions."""
    return lambda measured, places: statistics.fmean(getattr(one, name)[place] for one in measured for place in places)


def perplexity(measured: Sequence[Measures], places: Sequence[int]) -> float:
    """Of the right answers to the given questions, over all seeds."""
    nats = sum(one.nats[place] for one in measured for place in places)
    return math.exp(nats / sum(one.tokens[place] for one in measured for place in places))


def estimate(statistic: Statistic, measured: Sequence[Measures]) -> dict[str, Any]:
    """A statistic over all questions and seeds, its value for each seed, and its 95 % interval.

    Bootstrap over questions (percentiles of RESAMPLES): a question's answers of all samples and seeds stay together.
    """
    count = len(measured[0].sampled)
    rng = random.Random(0)
    drawn = sorted(statistic(measured, rng.choices(range(count), k=count)) for _ in range(RESAMPLES))
    return {
        "value": round(statistic(measured, range(count)), 4),
        "interval": [round(drawn[round(share * (RESAMPLES - 1))], 4) for share in (0.025, 0.975)],
        "seeds": [round(statistic([one], range(count)), 4) for one in measured],
        "n": count,
    }


STATISTICS: dict[str, Statistic] = {
    "true_reward": mean_of("sampled"),
    "learned_reward": mean_of("learned"),
    "exact_match": mean_of("greedy"),
    "perplexity": perplexity,
}


def table(measured: dict[str, list[Measures]]) -> dict[str, dict[str, Any]]:
    """Every statistic of every model."""
    return {
        model: {name: estimate(statistic, found) for name, statistic in STATISTICS.items()}
        for model, found in measured.items()
    }


def print_table(rows: dict[str, dict[str, Any]]) -> None:
    """The table for people: value and interval."""
    print(f"{'':18}" + "".join(f"{name:>28}" for name in STATISTICS))
    for model, found in rows.items():
        cells = [f"{one['value']:.3f} [{one['interval'][0]:.3f}, {one['interval'][1]:.3f}]" for one in found.values()]
        print(f"{model:18}" + "".join(f"{cell:>28}" for cell in cells))


def read_pairs(file: Path) -> list[tuple[str, str]]:
    """Question and answer of a text2text file."""
    instances = json.loads(file.read_text(encoding="utf-8"))["instances"]
    return [(instance["input"], instance["output"]) for instance in instances]


def main(argv: list[str]) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(description="The chain of examples/kbqa over several seeds.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS), help="which runs; default: all")
    parser.add_argument("--keep", action="store_true", help="leave the cluster running, with its models")
    options = parser.parse_args(argv)
    pairs = read_pairs(EXAMPLE / "data" / "questions.json")
    with local_cluster(CLUSTER, keep=options.keep) as volumes:
        run("kubectl", "apply", "--server-side", "-k", str(EXAMPLE / "data"))
        result = benchmark(Chain.of_example(options.runs), options.seeds, pairs, volumes)
    report(result, "kbqa_alignment.json")
    return 0


@contextmanager
def local_cluster(name: str, *, keep: bool) -> Iterator[Path]:
    """The folder of the volumes of a cluster that runs meanwhile, to which kubectl and alidade are pointed."""
    run("alidade", "up", "--name", name)
    kubeconfig = Path(json.loads(run("alidade", "status", "--name", name, "-o", "json"))["kubeconfig"])
    os.environ["KUBECONFIG"] = str(kubeconfig)
    try:
        yield kubeconfig.parent / "volumes" / "default"
    finally:
        if not keep:
            run("alidade", "down", "--name", name, "--purge")


def report(result: dict[str, Any], file: str) -> None:
    """Writes a result and prints its tables."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / file).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print_table(result["models"])
    print(json.dumps(result["reward_model"]))


def benchmark(chain: Chain, seeds: Sequence[int], pairs: Sequence[tuple[str, str]], volumes: Path) -> dict[str, Any]:
    """Trains and measures all seeds. pairs: held-out questions with their right answers."""
    torch.set_num_threads(1)
    measured: dict[str, list[Measures]] = {name: [] for name in ("base", "SFT", *chain.runs)}
    reward_metrics, seconds, iterations = [], [], []
    for seed in seeds:
        trained = train(chain, seed, volumes)
        judge = LearnedReward.load(
            trained["reward"], dtype=torch.float32, device=torch.device("cpu"), digest=None, field="the reward model"
        )
        for name, found in measured.items():
            found.append(measure(trained["models"][name], judge, pairs, seed=seed))
        reward_metrics.append(trained["reward_metrics"])
        seconds.append(trained["seconds"])
        iterations.append(trained["iterations"])
        print_table(table(measured))
    kept = ("accuracy", "expectedCalibrationError", "meanMargin", "lengthBias", "heldOutPairs")
    return {
        "seeds": list(seeds),
        "questions": len(pairs),
        "samples_per_question": SAMPLES,
        "models": table(measured),
        "reward_model": {name: [round(one[name], 4) for one in reward_metrics] for name in kept},
        "iterations": iterations,
        "seconds": seconds,
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
