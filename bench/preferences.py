"""Reward models beside TRL's RewardTrainer and a bare PyTorch loop, DPO beside its DPOTrainer: speed, memory, quality.

    python bench/preferences.py [--repeats 3] [--methods reward dpo]

The same Llama of 2 million weights, the same tokenised pairs of answers, the same batch of 32 pairs in passes of 8,
AdamW, fp32, one thread, all weights trained. What differs otherwise is as each has it by default, but that TRL is
measured twice with DPO: as it is by default, with a reference model that reads every batch, and with
`precompute_ref_log_probs`, which is how the platform does it. The bare loop pads each pass to its longest row and takes
transformers' sequence classifier: what one writes by hand in an hour.

Who prefers what: each of 64 words has a worth of its own, an answer's is the sum of its words', and of
two answers the one or the other is preferred by chance (Bradley and Terry). So an accuracy that nothing can
surpass is known: that of the worths themselves, on the same held-out pairs.

Speed is pairs per second of processor time, which other load on the machine disturbs little: of a reward model from the
third step's end to the last one's, of DPO all, the reference's log-probabilities included. Medians of runs that take
turns, each with another seed. Memory is the most that the process held, libraries included. Quality is that of the
model after one epoch of 768 pairs, on 512 held-out ones, measured by one and the same code: the share of pairs whose
preferred answer has the higher reward (of DPO: the higher implicit reward), and by how much in the mean.

TRL lives in an environment of its own, .bench/trl, which the first run makes from constraints.txt; it is no dependency
of the project. Results: bench/results/preferences.json.
"""

import argparse
import json
import math
import random
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.servers import processor  # noqa: E402  # the path is set above
from bench.trainings import (  # noqa: E402
    PACKAGES,
    TRL_PYTHON,
    WORK,
    Meter,
    job_document,
    new_run_folder,
    run,
    training_block,
    trl_environment,
    work_here,
    worker_environment,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

RESULTS = ROOT / "bench/results/preferences.json"
FOLDER = WORK / "preferences"
TRAINERS = {"reward": ("alidade", "trl", "bare"), "dpo": ("alidade", "trl", "trl precomputed")}
INIT = {"hiddenSize": 192, "layers": 4, "heads": 6, "kvHeads": 6, "vocabSize": 1024, "contextLength": 512}
WORDS = 64
TRAIN, HELD = 768, 512
"""Pairs."""
BATCH, MICRO_BATCH = 32, 8
STEPS = TRAIN // BATCH
WARM_UP = 3
"""Steps of a reward model that are not measured."""
LEARNING_RATE = 1e-3
BETA = 0.1
START_STEPS = 20
"""Of the start model's fine-tuning on preferred answers."""

Row = dict[str, list[int]]
"""prompt_ids, chosen_ids and rejected_ids of a pair."""


@dataclass(frozen=True)
class Setting:
    """One run of one trainer."""

    method: str
    trainer: str
    seed: int

    @property
    def output(self) -> Path:
        """The folder of its results."""
        return FOLDER / f"{self.method}-{self.trainer}".replace(" ", "-")


def main(argv: Sequence[str]) -> int:
    """Runs everything, prints a table and writes it; exit code 0."""
    if argv[:1] == ["--child"]:
        setting = Setting(**json.loads(argv[1]))
        print(json.dumps(CHILDREN[setting.method, setting.trainer.split()[0]](setting)))
        return 0
    if argv[:1] == ["--prepare"]:
        _write_rows()
        return 0
    options = _parser().parse_args(argv)
    trl_environment()
    _prepare()
    rows = _read_rows()
    known = json.loads(RESULTS.read_text())["compared"] if RESULTS.is_file() else {}
    for method in options.methods:
        known[method] = _compare(method, options)
        _print(method, known[method])
    found = {
        "processor": processor(),
        "repeats": options.repeats,
        "pairsTrainedOn": TRAIN,
        "tokensOfARow": round(_mean_tokens(rows["train"]), 1),
        "accuracyOfTheWorths": rows["accuracyOfTheWorths"],
        "compared": known,
    }
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs that medians are over (default: 3)")
    parser.add_argument("--methods", nargs="+", choices=TRAINERS, default=list(TRAINERS), help="default: both")
    return parser


def _prepare() -> None:
    """Preferences, a start model, and both as every trainer reads them: once."""
    if (FOLDER / "rows.json").is_file():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    pairs, right = preferences(TRAIN + HELD)
    _write("train", pairs[:TRAIN])
    _write("held", pairs[TRAIN:])
    _write("prompts", [{"input": pairs[0]["prompt"]}])
    _write("sft", [{"input": pair["prompt"], "output": pair["chosen"]} for pair in pairs[:TRAIN]])
    (FOLDER / "right.json").write_text(json.dumps(sum(right[TRAIN:]) / HELD))
    training = training_block(learning_rate=LEARNING_RATE, batch=BATCH, seed=0)
    job = {
        **job_document("sft", FOLDER / "start"),
        "model": {"init": INIT},
        "dataset": {"uri": f"file://{FOLDER}/sft.jsonl", "maxLength": 512, "packing": False},
        "training": training | {"epochs": 10_000, "maxSteps": START_STEPS},
    }
    path = FOLDER / "start.json"
    path.write_text(json.dumps(job))
    with new_run_folder() as run_folder:
        run([sys.executable, "-m", "alidade_trainer.worker"], worker_environment(path, run_folder))
    run([sys.executable, __file__, "--prepare"], {})


def preferences(count: int) -> tuple[list[dict[str, str]], list[bool]]:
    """Pairs of answers of which one is preferred, and of each whether it is the one with more worth."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(WORDS)]
    worth = {word: draw.gauss(0, 1) for word in words}
    pairs, right = [], []
    for _ in range(count):
        one, other = (draw.choices(words, k=min(1 + int(draw.expovariate(1 / 16)), 100)) for _ in range(2))
        better = sum(worth[word] for word in one) - sum(worth[word] for word in other)
        wins = draw.random() < 1 / (1 + math.exp(-better))
        chosen, rejected = (one, other) if wins else (other, one)
        prompt = draw.choices(words, k=draw.randint(4, 32))
        pairs.append({"prompt": " ".join(prompt), "chosen": " ".join(chosen), "rejected": " ".join(rejected)})
        right.append(wins == (better > 0))
    return pairs, right


def _write(name: str, rows: Sequence[dict[str, str]]) -> None:
    (FOLDER / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_rows() -> None:
    """Writes the pairs as the platform tokenises them, and the start model with the head that all reward models get."""
    import torch

    from alidade_crds.contract import JobDocument
    from alidade_engine.models import load_tokenizer
    from alidade_engine.reward.network import load_classifier
    from alidade_engine.sources import Locations
    from alidade_trainer.align.dpo import pairs_of
    from alidade_trainer.reward.comparisons import prepare_comparisons
    from alidade_trainer.reward.heads import init_head

    torch.manual_seed(0)
    tokenizer = load_tokenizer(FOLDER / "start/model")
    model = load_classifier(FOLDER / "start/model", dtype=torch.float32, new_head=init_head)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(FOLDER / "classifier")
    tokenizer.save_pretrained(FOLDER / "classifier")
    job = JobDocument.model_validate(_job(Setting("reward", "alidade", 0)))
    data = prepare_comparisons(job, tokenizer, Locations.from_environment())
    assert data.held_out is not None
    rows: dict[str, Any] = {
        name: [
            {"prompt_ids": pair.chosen[0], "chosen_ids": pair.chosen[1], "rejected_ids": pair.rejected[1]}
            for pair in pairs_of(list(part))
        ]
        for name, part in (("train", data.comparisons), ("held", data.held_out))
    }
    worths = json.loads((FOLDER / "right.json").read_text())
    (FOLDER / "rows.json").write_text(
        json.dumps({"pad": tokenizer.pad_token_id, "accuracyOfTheWorths": worths, **rows})
    )


def _read_rows() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "rows.json").read_text())
    return found


def _mean_tokens(rows: Sequence[Row]) -> float:
    return statistics.mean(len(row["prompt_ids"]) + len(row[name]) for row in rows for name in ANSWERS)


ANSWERS = ("chosen_ids", "rejected_ids")


def _job(setting: Setting) -> dict[str, Any]:
    training = training_block(learning_rate=LEARNING_RATE, batch=BATCH, seed=setting.seed)
    training |= {"microBatchSize": MICRO_BATCH, "epochs": 1}
    data = {"uri": f"file://{FOLDER}/train.jsonl", "maxLength": 512}
    if setting.method == "reward":
        return {
            **job_document("reward", setting.output),
            "model": {"uri": f"file://{FOLDER}/classifier"},
            "dataset": data | {"validation": {"uri": f"file://{FOLDER}/held.jsonl"}},
            "loss": {"center": 0},
            "training": training,
        }
    return {
        **job_document("align", setting.output),
        "model": {"uri": f"file://{FOLDER}/start/model"},
        "dataset": {"uri": f"file://{FOLDER}/prompts.jsonl", "maxLength": 512},
        "alignment": {
            "steps": [{"dpo": {"beta": BETA, "dataset": data}}],
            "rewards": [],
            "generation": {"maxNewTokens": 1, "engine": "native"},
        },
        "training": training,
    }


def _compare(method: str, options: argparse.Namespace) -> dict[str, Any]:
    trainers = TRAINERS[method]
    runs: dict[str, list[dict[str, float]]] = {trainer: [] for trainer in trainers}
    for repeat in range(options.repeats):
        # In changing order, so that a slow minute of the machine meets all.
        for trainer in islice(cycle(trainers), repeat, repeat + len(trainers)):
            one = Setting(method, trainer, repeat)
            python = str(TRL_PYTHON) if trainer.startswith("trl") else sys.executable
            output = run([python, __file__, "--child", json.dumps(asdict(one))], {"PYTHONPATH": PACKAGES})
            found = json.loads(output.splitlines()[-1])
            print(f"{one} {json.dumps(found)}", file=sys.stderr, flush=True)
            runs[trainer].append(found)
    medians = {
        trainer: {name: round(statistics.median(one[name] for one in found), 3) for name in found[0]}
        for trainer, found in runs.items()
    }
    return {**medians, "ratios": {f"to {other}": _ratios(runs["alidade"], runs[other]) for other in trainers[1:]}}


def _ratios(ours: Sequence[dict[str, float]], theirs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Medians of ours to theirs, run by run; of the accuracy the difference."""
    both = list(zip(ours, theirs, strict=True))
    return {
        "pairsPerProcessorSecond": round(
            statistics.median(a["pairsPerProcessorSecond"] / b["pairsPerProcessorSecond"] for a, b in both), 3
        ),
        "peakMiB": round(statistics.median(a["peakMiB"] / b["peakMiB"] for a, b in both), 3),
        "accuracyDifference": round(statistics.median(a["accuracy"] - b["accuracy"] for a, b in both), 3),
    }


def _print(method: str, found: dict[str, Any]) -> None:
    for trainer in TRAINERS[method]:
        row = found[trainer]
        print(
            f"{method:8}{trainer:17}{row['pairsPerProcessorSecond']:8.1f} pairs/cpu-s{row['peakMiB']:8.0f} MiB  "
            f"accuracy {row['accuracy']:.3f}  margin {row['margin']:.2f}"
        )
    print(f"{method:8}ratios           {found['ratios']}", flush=True)


def _numbers(meter: Meter, pairs: int) -> dict[str, float]:
    """Of what was measured; peak memory up to now."""
    found = meter.numbers()
    return {
        "pairsPerProcessorSecond": pairs / found["processorSeconds"],
        "pairsPerSecond": pairs / found["seconds"],
        "peakMiB": found["peakMiB"],
    }


class StepMeter:
    """Processor time and time between the ends of two steps of a reward model's training."""

    def __init__(self) -> None:
        self._done = 0
        self._meter = Meter()
        self._inside = self._meter.measured()

    def step_ended(self) -> None:
        """Counts."""
        self._done += 1
        if self._done == WARM_UP:
            self._inside.__enter__()
        if self._done == STEPS:
            self._inside.__exit__(None, None, None)
            self._found = _numbers(self._meter, (STEPS - WARM_UP) * BATCH)

    def numbers(self) -> dict[str, float]:
        """Of a run that has ended."""
        return self._found


def _reward_alidade(setting: Setting) -> dict[str, float]:
    """A job as the platform runs it, with a meter at the end of each step."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from alidade_trainer.training import TrainingRun

    meter = StepMeter()
    record = TrainingRun._record

    def metered(self: Any, metrics: Any) -> None:
        record(self, metrics)
        meter.step_ended()

    TrainingRun._record = metered  # type: ignore[method-assign]
    _work(setting)
    model = AutoModelForSequenceClassification.from_pretrained(setting.output / "model", dtype=torch.float32)
    return meter.numbers() | reward_quality(model)


def _work(setting: Setting) -> None:
    path = setting.output.with_suffix(".json")
    path.write_text(json.dumps(_job(setting)))
    shutil.rmtree(setting.output, ignore_errors=True)
    work_here(path)


def _reward_trl(setting: Setting) -> dict[str, float]:
    """TRL's RewardTrainer, in its environment."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import RewardConfig, RewardTrainer

    meter = StepMeter()

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Sees the ends of steps."""

        def on_step_end(self, *_: Any, **__: Any) -> None:
            meter.step_ended()

    rows = [{name: row["prompt_ids"] + row[name] for name in ANSWERS} for row in _read_rows()["train"]]
    trainer = RewardTrainer(
        model=str(FOLDER / "classifier"),
        args=RewardConfig(**_trl_arguments(setting)),
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(),
        callbacks=[Watch()],
    )
    trainer.train()
    return meter.numbers() | reward_quality(trainer.model)


def _trl_arguments(setting: Setting) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    return {
        "output_dir": str(setting.output),
        "model_init_kwargs": {"dtype": "float32"},
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "per_device_train_batch_size": MICRO_BATCH,
        "gradient_accumulation_steps": BATCH // MICRO_BATCH,
        "max_steps": STEPS,
        "max_length": 512,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "seed": setting.seed,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": STEPS,
        "disable_tqdm": True,
    }


def _tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER / "start/model")


def _reward_bare(setting: Setting) -> dict[str, float]:
    """What one writes by hand: the preferred answers and the others in one pass, padded to the longest."""
    import torch
    from torch.nn.functional import logsigmoid
    from transformers import AutoModelForSequenceClassification

    from alidade_engine.padding import padded

    torch.set_num_threads(1)
    torch.manual_seed(setting.seed)
    read = _read_rows()
    rows = read["train"]
    random.Random(setting.seed).shuffle(rows)
    model = AutoModelForSequenceClassification.from_pretrained(FOLDER / "classifier", dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    meter = StepMeter()
    for step in range(STEPS):
        for first in range(step * BATCH, (step + 1) * BATCH, MICRO_BATCH):
            chosen = rows[first : first + MICRO_BATCH]
            batch = padded([row["prompt_ids"] + row[name] for name in ANSWERS for row in chosen], read["pad"])
            better, worse = model(**batch, use_cache=False).logits.squeeze(-1).chunk(2)
            loss = -logsigmoid(better - worse).sum() / BATCH
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter.step_ended()
    return meter.numbers() | reward_quality(model)


def reward_quality(model: "PreTrainedModel") -> dict[str, float]:
    """Of a reward model, on the held-out pairs."""
    import torch

    from alidade_engine.padding import padded
    from alidade_engine.reward.network import RewardNetwork

    read = _read_rows()
    network = RewardNetwork(model).eval()
    margins: list[float] = []
    with torch.no_grad():
        for first in range(0, HELD, MICRO_BATCH):
            held = read["held"][first : first + MICRO_BATCH]
            batch = padded([row["prompt_ids"] + row[name] for name in ANSWERS for row in held], read["pad"])
            better, worse = network(**batch).chunk(2)
            margins += (better - worse).tolist()
    return _quality(margins)


def _quality(margins: Sequence[float]) -> dict[str, float]:
    return {"accuracy": sum(margin > 0 for margin in margins) / len(margins), "margin": statistics.mean(margins)}


def _dpo_alidade(setting: Setting) -> dict[str, float]:
    """A job as the platform runs it, with a meter around its iterations, of which the first scores the reference."""
    from alidade_engine.models import load_model
    from alidade_trainer.align.dpo import Dpo

    meter = Meter()
    run_once = Dpo.run
    numbers: dict[str, float] = {}

    def metered(self: Any, iteration: Any) -> Any:
        with meter.measured():
            result = run_once(self, iteration)
        numbers.update(_numbers(meter, TRAIN))
        return result

    Dpo.run = metered  # type: ignore[method-assign]
    _work(setting)
    return numbers | dpo_quality(load_model(setting.output / "model"))


def _dpo_trl(setting: Setting) -> dict[str, float]:
    """TRL's DPOTrainer, in its environment."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    meter = Meter()
    inside = meter.measured()
    numbers: dict[str, float] = {}

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Measures from the begin of the first step to the end of the last one."""

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            inside.__enter__()

        def on_step_end(self, _arguments: Any, state: Any, *_: Any, **__: Any) -> None:
            if state.global_step == STEPS:
                inside.__exit__(None, None, None)
                numbers.update(_numbers(meter, TRAIN))

    precompute = DPOTrainer._precompute_ref_logps

    def metered(*arguments: Any) -> Any:
        with meter.measured():
            return precompute(*arguments)

    DPOTrainer._precompute_ref_logps = metered
    DPOTrainer._prepare_dataset = lambda _self, dataset, *_: dataset  # which is in tokens: it would look for text
    shutil.rmtree(setting.output, ignore_errors=True)
    rows = _read_rows()["train"]
    trainer = DPOTrainer(
        model=str(FOLDER / "start/model"),
        args=DPOConfig(
            **_trl_arguments(setting), beta=BETA, precompute_ref_log_probs=setting.trainer.endswith("precomputed")
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(),
        callbacks=[Watch()],
    )
    trainer.train()
    return numbers | dpo_quality(trainer.model)


def dpo_quality(policy: "PreTrainedModel") -> dict[str, float]:
    """Of a policy, on the held-out pairs: differences of implicit rewards, beta x (policy - start model)."""
    from alidade_engine.models import load_model
    from alidade_engine.scoring import sequence_logprobs
    from alidade_engine.templates import Rendered

    read = _read_rows()
    sequences = [
        Rendered(row["prompt_ids"] + row[name], [False] * len(row["prompt_ids"]) + [True] * len(row[name]))
        for name in ANSWERS
        for row in read["held"]
    ]
    after, before = (
        [float(one.sum()) for one in sequence_logprobs(model.eval(), sequences, pad_token_id=read["pad"])]
        for model in (policy, load_model(FOLDER / "start/model"))
    )
    rewards = [BETA * (now - then) for now, then in zip(after, before, strict=True)]
    return _quality([better - worse for better, worse in zip(rewards[:HELD], rewards[HELD:], strict=True)])


CHILDREN: dict[tuple[str, str], Callable[[Setting], dict[str, float]]] = {
    ("reward", "alidade"): _reward_alidade,
    ("reward", "trl"): _reward_trl,
    ("reward", "bare"): _reward_bare,
    ("dpo", "alidade"): _dpo_alidade,
    ("dpo", "trl"): _dpo_trl,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
