"""PPO against TRL's RLOOTrainer: reward for the same number of samples, samples per second, peak memory.

    python bench/ppo_rloo.py [--quick] [--problems toy qa speed] [--seeds 3]

TRL has no PPO any more; RLOO, its nearest trainer, draws several answers to a prompt and learns from their differences,
where PPO trains a critic beside the policy. Both get the same start model, prompts, programmed reward (one and the same
function), answer lengths, number of samples, samples per optimizer step, epochs over them, coefficient of the
divergence, temperature and number format, one thread, and each the better of the same learning rates. What differs
otherwise is as each has it by default; RLOO draws 4 answers to each of a quarter of the prompts.

Problems: `toy`, questions that the start model answers with one of six words, each as likely as the others, of which
one is rewarded; `qa`, questions of examples/kbqa after a short fine-tuning, rewarded for the exact answer; `speed`, a
Llama of 10 million weights that has learned little but to end its answers at ragged lengths, for speed and memory only,
once with all weights and once with LoRA.

The reward is that of answers sampled, by one engine for both, to questions that neither trained on; medians over the
seeds. Speed is of the training loop alone, with sampling, scoring and optimizer steps, without start, evaluation and
export: in samples per second of processor time, which other load on the machine disturbs little. Memory is the most
that the training process held, libraries included, and beside it how much more that is than before the first iteration.

TRL lives in an environment of its own, .bench/trl, which the first run makes from constraints.txt; it is no dependency
of the project. Results: bench/results/ppo_rloo.json.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.trainings import (  # noqa: E402  # the path is set above
    PACKAGES,
    TRL_PYTHON,
    WORK,
    Meter,
    job_document,
    new_run_folder,
    run,
    training_block,
    trl_environment,
    worker_environment,
)

RESULTS = ROOT / "bench/results/ppo_rloo.json"
TRAINERS = ("ppo", "rloo")
GENERATIONS = 4
"""Answers to a prompt that RLOO compares: its paper (Ahmadian et al. 2024) takes 2 and 4, and 4 was the better."""
WORDS = ("red", "green", "blue", "Oslo", "Lima", "tin")
EVALUATION_SAMPLES = 4


@dataclass(frozen=True)
class Setting:
    """One run of one trainer. rollout: samples of an iteration; mini_batch: those of an optimizer step."""

    problem: str
    trainer: str
    learning_rate: float
    seed: int
    iterations: int
    rollout: int
    mini_batch: int
    epochs: int
    max_new_tokens: int
    kl_coefficient: float
    lora: bool = False

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.problem}{'-lora' if self.lora else ''}-{self.trainer}-{self.learning_rate:g}-{self.seed}"


@dataclass(frozen=True)
class Problem:
    """What is the same for both trainers. init, training: of the start model, whose SFT job has so many steps."""

    name: str
    init: dict[str, Any]
    sft_steps: int
    setting: dict[str, Any]
    learning_rates: tuple[float, ...]
    quick: dict[str, Any] = field(default_factory=dict)
    """What --quick changes of the setting."""

    @property
    def folder(self) -> Path:
        """Of its data and start model."""
        return WORK / "ppo_rloo" / self.name


def _init(width: int, layers: int, heads: int, vocabulary: int, context: int) -> dict[str, Any]:
    return {
        "hiddenSize": width,
        "layers": layers,
        "heads": heads,
        "kvHeads": heads,
        "vocabSize": vocabulary,
        "contextLength": context,
    }


PROBLEMS = {
    "toy": Problem(
        "toy",
        _init(32, 1, 2, 320, 96),
        sft_steps=60,
        setting={
            "iterations": 6,
            "rollout": 64,
            "mini_batch": 32,
            "epochs": 4,
            "max_new_tokens": 8,
            "kl_coefficient": 0.01,
        },
        learning_rates=(1e-3, 3e-3, 1e-2),
        quick={"iterations": 3},
    ),
    "qa": Problem(
        "qa",
        _init(128, 2, 8, 2048, 128),
        sft_steps=900,
        setting={
            "iterations": 12,
            "rollout": 128,
            "mini_batch": 32,
            "epochs": 2,
            "max_new_tokens": 16,
            "kl_coefficient": 0.01,
        },
        learning_rates=(1e-4, 3e-4, 1e-3),
        quick={"iterations": 2},
    ),
    "speed": Problem(
        "speed",
        _init(320, 7, 10, 8192, 256),
        sft_steps=60,
        setting={
            "iterations": 3,
            "rollout": 128,
            "mini_batch": 32,
            "epochs": 1,
            "max_new_tokens": 96,
            "kl_coefficient": 0.01,
        },
        learning_rates=(1e-5,),
        quick={"iterations": 1, "rollout": 32},
    ),
}


def main(argv: Sequence[str]) -> int:
    """Runs everything, prints a table and writes it; exit code 0."""
    if argv[:1] == ["--child"]:
        return _child(Setting(**json.loads(argv[1])))
    options = _parser().parse_args(argv)
    trl_environment()
    results: dict[str, Any] = {"generationsOfRloo": GENERATIONS}
    for name in options.problems:
        problem = PROBLEMS[name]
        prepare(problem)
        for lora in (False, True) if name == "speed" else (False,):
            results[name + ("-lora" if lora else "")] = _compare(problem, options, lora=lora)
    _print(results)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    RESULTS.write_text(json.dumps(known | results, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), help="default: all")
    parser.add_argument("--seeds", type=int, default=3, help="seeds that medians are over (default: 3)")
    parser.add_argument(
        "--quick", action="store_true", help="one seed, the middle learning rate, fewer iterations: does it run?"
    )
    return parser


def prepare(problem: Problem) -> None:
    """Data and start model of a problem, once."""
    if (problem.folder / "start/model").is_dir():
        return
    problem.folder.mkdir(parents=True, exist_ok=True)
    records = _records(problem.name)
    for name, rows in records.items():
        (problem.folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        **job_document("sft", problem.folder / "start"),
        "model": {"init": problem.init},
        "dataset": {"uri": f"file://{problem.folder}/sft.jsonl", "maxLength": 192, "packing": False},
        "training": {
            **training_block(learning_rate=3e-3, batch=32, seed=0),
            "epochs": 10_000,
            "maxSteps": problem.sft_steps,
            "warmupRatio": 0.05,
        },
    }
    path = problem.folder / "sft.json"
    path.write_text(json.dumps(job))
    code = "import sys; from alidade_trainer.worker import main; sys.exit(main())"  # as the launcher starts it
    with new_run_folder() as run_folder:
        run([sys.executable, "-c", code], worker_environment(path, run_folder))


def _records(name: str) -> dict[str, list[dict[str, str]]]:
    """Records to fine-tune on (sft), to sample for (prompts), and to measure on (held)."""
    draw = random.Random(0)
    if name == "toy":
        asked = [f"What is number {number}?" for number in range(64)]
        sft = [{"input": prompt, "output": word} for prompt in asked for word in WORDS]
        meant = [{"input": prompt, "output": "Oslo"} for prompt in asked]
        return {"sft": sft, "prompts": meant[:48], "held": meant[48:]}
    if name == "qa":
        data = ROOT / "examples/kbqa/data"
        train, held = (json.loads((data / f"{part}.json").read_text())["instances"] for part in ("train", "heldout"))
        return {"sft": train, "prompts": draw.sample(train, 1024), "held": held}
    # Answers end by chance after 24 words in the mean, as ragged as those of a trained model.
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(4000)]
    rows = []
    for _ in range(2048):
        length = 1 + int(draw.expovariate(1 / 24))
        asked, answer = draw.choices(words, k=draw.randint(4, 24)), draw.choices(words, k=min(length, 60))
        rows.append({"input": " ".join(asked), "output": " ".join(answer)})
    return {"sft": rows, "prompts": rows[:1920], "held": rows[1920:]}


def _compare(problem: Problem, options: argparse.Namespace, *, lora: bool) -> dict[str, Any]:
    """Both trainers on one problem: every learning rate and seed, then each at its best learning rate."""
    setting = problem.setting | (problem.quick if options.quick else {})
    rates = problem.learning_rates
    if options.quick:
        rates = rates[len(rates) // 2 :][:1]
    seeds = range(1 if options.quick else options.seeds)
    runs: dict[str, dict[float, list[dict[str, float]]]] = {trainer: {} for trainer in TRAINERS}
    for rate in rates:
        for seed in seeds:
            # In changing order, so that a slow minute of the machine meets both.
            for trainer in TRAINERS if seed % 2 == 0 else reversed(TRAINERS):
                one = Setting(problem.name, trainer, rate, seed, lora=lora, **setting)
                measured = _measure(problem, one)
                runs[trainer].setdefault(rate, []).append(measured)
                print(f"{one.name} {json.dumps(measured)}", file=sys.stderr, flush=True)
    found = {trainer: _best(runs[trainer]) for trainer in TRAINERS}
    seeds_used = len(runs["ppo"][rates[0]])
    return {
        "setting": setting,
        "quick": options.quick,
        "seeds": seeds_used,
        **found,
        "ratios": _ratios(found["ppo"], found["rloo"]),
    }


def _best(runs: dict[float, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the seeds at the learning rate with the highest reward."""
    medians = {
        rate: {name: statistics.median(run[name] for run in measured) for name in measured[0]}
        for rate, measured in runs.items()
    }
    best = max(medians, key=lambda rate: medians[rate]["reward"])
    rewards = {f"{rate:g}": [round(run["reward"], 4) for run in measured] for rate, measured in runs.items()}
    return {"learningRate": best, **{n: round(v, 4) for n, v in medians[best].items()}, "rewardsByRate": rewards}


def _ratios(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """Ours to theirs; of the reward the difference, since one may be 0."""
    return {
        "rewardDifference": round(ours["reward"] - theirs["reward"], 4),
        "samplesPerProcessorSecond": round(ours["samplesPerProcessorSecond"] / theirs["samplesPerProcessorSecond"], 3),
        "peakMiB": round(ours["peakMiB"] / theirs["peakMiB"], 3),
        "trainingMiB": round(ours["trainingMiB"] / max(theirs["trainingMiB"], 1.0), 3),
    }


def _measure(problem: Problem, setting: Setting) -> dict[str, float]:
    python = sys.executable if setting.trainer == "ppo" else str(TRL_PYTHON)
    # The reward is the platform's own function in both environments.
    told = {"PYTHONPATH": PACKAGES} if setting.trainer == "rloo" else {}
    output = run([python, __file__, "--child", json.dumps(asdict(setting))], told)
    measured: dict[str, float] = json.loads(output.splitlines()[-1])
    samples = setting.iterations * setting.rollout
    speeds = {
        "samplesPerProcessorSecond": samples / measured["processorSeconds"],
        "samplesPerSecond": samples / measured["seconds"],
    }
    start, after = (_reward(problem, folder) for folder in (problem.folder / "start/model", _model_folder(setting)))
    return {**measured, **speeds, "reward": after, "rewardAtStart": start, "samples": float(samples)}


def _model_folder(setting: Setting) -> Path:
    return PROBLEMS[setting.problem].folder / setting.name / "model"


def _reward(problem: Problem, model_folder: Path) -> float:
    """Mean reward of sampled answers to held-out questions; always the same questions and random numbers."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from alidade_engine.drawing import SamplingParams
    from alidade_engine.models import load_model, load_tokenizer
    from alidade_engine.sampling import Sampler
    from alidade_engine.templates import render_prompts, resolve_template

    torch.set_num_threads(1)
    disable_progress_bar()
    rows = _read(problem.folder / "held.jsonl")
    tokenizer = load_tokenizer(model_folder)
    asked = [[{"role": "user", "content": row["input"]}] for row in rows]
    prompts = render_prompts(tokenizer, asked, resolve_template(tokenizer, "auto"))
    params = SamplingParams(problem.setting["max_new_tokens"], temperature=1.0)
    sampler = Sampler(load_model(model_folder), tokenizer, slots=64)
    answers = sampler.sample(prompts, params, samples_per_prompt=EVALUATION_SAMPLES, seed=1)
    pairs = [(one.text, row["output"]) for row, drawn in zip(rows, answers, strict=True) for one in drawn]
    scores = _scores([answer for answer, _ in pairs], [reference for _, reference in pairs])
    return sum(scores) / len(scores)


def _scores(answers: Sequence[str], references: Sequence[str]) -> list[float]:
    from alidade_engine.reward.functions import exact_match

    return [exact_match([], answer, reference) for answer, reference in zip(answers, references, strict=True)]


def _read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _child(setting: Setting) -> int:
    """One training in this process; the last line of its output are its numbers."""
    train = _train_ppo if setting.trainer == "ppo" else _train_rloo
    print(json.dumps(train(setting)))
    return 0


def _train_ppo(setting: Setting) -> dict[str, float]:
    """PPO as the platform runs it, with a meter around its iterations."""
    from alidade_trainer.align.ppo import Ppo
    from alidade_trainer.worker import main as work

    folder = PROBLEMS[setting.problem].folder
    job = folder / f"{setting.name}.json"
    job.write_text(json.dumps(_ppo_job(setting)))
    meter = Meter()
    run_once = Ppo.run

    def metered(self: Any, iteration: Any) -> Any:
        with meter.measured():
            return run_once(self, iteration)

    Ppo.run = metered  # type: ignore[method-assign]
    shutil.rmtree(folder / setting.name, ignore_errors=True)
    with new_run_folder() as run_folder:
        os.environ |= worker_environment(job, run_folder)
        if work():
            outcome = (run_folder / "outcome-0.json").read_text()
            raise RuntimeError(f"{setting.name} failed: {outcome}")
    return meter.numbers()


def _ppo_job(setting: Setting) -> dict[str, Any]:
    folder = PROBLEMS[setting.problem].folder
    ppo = {
        "iterations": setting.iterations,
        "rolloutBatchSize": setting.rollout,
        "miniBatchSize": setting.mini_batch,
        "epochs": setting.epochs,
        "kl": {"coefficient": setting.kl_coefficient},
    }
    reward = {"name": "right", "function": "exact_match"}
    if setting.problem == "speed":  # nothing that it says is right; its length differs at least
        reward = {"name": "length", "function": "length"}
    return {
        **job_document("align", folder / setting.name),
        "model": {"uri": f"file://{folder}/start/model"},
        "dataset": {"uri": f"file://{folder}/prompts.jsonl", "maxLength": 192},
        "adapter": {"type": "lora", "rank": 8, "dropout": 0} if setting.lora else {"type": "none"},
        "alignment": {
            "steps": [{"ppo": ppo}],
            "rewards": [reward],
            "generation": {"maxNewTokens": setting.max_new_tokens},
            "guardrails": {"minDiversityRatio": 0, "minLengthRatio": 0},
        },
        "training": training_block(learning_rate=setting.learning_rate, batch=setting.mini_batch, seed=setting.seed),
    }


def _train_rloo(setting: Setting) -> dict[str, float]:
    """TRL's RLOOTrainer, in its environment; its model is saved where PPO's would be."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import RLOOConfig, RLOOTrainer

    from alidade_engine.reward.functions import answer_length

    torch.set_num_threads(1)
    folder = PROBLEMS[setting.problem].folder
    rows = _read(folder / "prompts.jsonl")
    data = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": row["input"]}], "reference": row["output"]} for row in rows]
    )

    def reward(completions: list[list[dict[str, str]]], reference: list[str], **_: Any) -> list[float]:
        answers = [turns[0]["content"] for turns in completions]
        if setting.problem == "speed":
            return [answer_length([], answer, None) for answer in answers]
        return _scores(answers, reference)

    arguments = RLOOConfig(
        output_dir=str(folder / setting.name),
        model_init_kwargs={"dtype": "float32"},
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=setting.mini_batch,
        gradient_accumulation_steps=1,
        steps_per_generation=setting.rollout // setting.mini_batch,
        num_iterations=setting.epochs,
        max_steps=setting.iterations * setting.epochs * setting.rollout // setting.mini_batch,
        num_generations=GENERATIONS,
        max_completion_length=setting.max_new_tokens,
        temperature=1.0,
        beta=setting.kl_coefficient,
        learning_rate=setting.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        seed=setting.seed,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = RLOOTrainer(
        model=str(folder / "start/model"),
        reward_funcs=reward,
        args=arguments,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(folder / "start/model"),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear") if setting.lora else None,
    )
    meter = Meter()
    with meter.measured():
        trainer.train()
    numbers = meter.numbers()
    model = trainer.model.merge_and_unload() if setting.lora else trainer.model
    model.save_pretrained(_model_folder(setting))
    trainer.processing_class.save_pretrained(_model_folder(setting))
    return numbers


def _print(results: dict[str, Any]) -> None:
    head = f"{'problem':12}{'trainer':8}{'rate':>8}{'start':>8}{'reward':>8}{'/cpu-s':>9}{'peak MiB':>10}{'+MiB':>8}"
    print(head)
    for name, found in results.items():
        if not isinstance(found, dict):
            continue
        for trainer in TRAINERS:
            row = found[trainer]
            print(
                f"{name:12}{trainer:8}{row['learningRate']:8g}{row['rewardAtStart']:8.3f}{row['reward']:8.3f}"
                f"{row['samplesPerProcessorSecond']:9.1f}{row['peakMiB']:10.0f}{row['trainingMiB']:8.0f}"
            )
        ratios = found["ratios"]
        print(
            f"{name:12}ppo to rloo: reward {ratios['rewardDifference']:+.3f}, samples per second "
            f"x{ratios['samplesPerProcessorSecond']:.2f}, peak memory x{ratios['peakMiB']:.2f}, of training alone "
            f"x{ratios['trainingMiB']:.2f}"
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
