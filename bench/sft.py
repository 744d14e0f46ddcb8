"""Fine-tuning beside TRL's SFTTrainer and a bare PyTorch loop: tokens per second and peak memory.

    python bench/sft.py [--repeats 3] [--steps 12]

The same Llama of 9 million weights, the same tokenised samples of 23 to 415 tokens, the same batch of 32 samples or 8
packed rows of 512 tokens, AdamW, fp32, one thread, no checkpoint, no evaluation; with all weights and with LoRA of rank
16 on all linear layers; each sample in a row of its own and packed. What differs otherwise is as each has it by
default. The bare loop pads each micro-batch to its longest sample, lets transformers take the loss, clips the gradient
and steps torch's fused AdamW: what one writes by hand in an hour.

Speed is tokens, without padding, per second of processor time between the ends of the third and the last step, which
other load on the machine disturbs little; medians of runs that take turns. Memory is the most that the process held,
libraries included.

TRL lives in an environment of its own, .bench/trl, which the first run makes from constraints.txt; it is no dependency
of the project. Results: bench/results/sft.json.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.servers import processor  # noqa: E402  # the path is set above
from bench.trainings import (  # noqa: E402
    PACKAGES,
    TRL_PYTHON,
    WORK,
    MeasuredError,
    Meter,
    job_document,
    new_run_folder,
    run,
    training_block,
    trl_environment,
    work_here,
    worker_environment,
)

RESULTS = ROOT / "bench/results/sft.json"
FOLDER = WORK / "sft"
TRAINERS = ("alidade", "trl", "bare")
INIT = {"hiddenSize": 256, "layers": 6, "heads": 8, "kvHeads": 8, "vocabSize": 8192, "contextLength": 512}
MAX_LENGTH = 512
BATCH = {False: 32, True: 8}
"""Rows of a step, unpacked and packed: about as many tokens."""
MICRO_BATCH = {False: 8, True: 2}
SAMPLES = 4096
WARM_UP = 3
"""Steps that are not measured."""
LEARNING_RATE = 1e-4
RANK = 16


@dataclass(frozen=True)
class Setting:
    """One run of one trainer."""

    trainer: str
    lora: bool
    packed: bool
    steps: int
    batch: int
    """Rows of a step."""
    micro_batch: int
    folder: str = str(FOLDER)
    """Of records, rows of tokens and start model."""
    max_length: int = MAX_LENGTH
    on_gpu: bool = False
    """There, both compute in bf16, and whoever trains all weights keeps them in fp32, too."""
    to_the_model: bool = True
    """Whether a job goes on after its last step, to a checkpoint and a model."""

    @property
    def place(self) -> Path:
        """The folder."""
        return Path(self.folder)


def main(argv: Sequence[str]) -> int:
    """Runs everything, prints a table and writes it; exit code 0."""
    if argv[:1] == ["--child"]:
        setting = Setting(**json.loads(argv[1]))
        print(json.dumps(CHILDREN[setting.trainer](setting)))
        return 0
    if argv[:1] == ["--prepare"]:
        write_rows(FOLDER, MAX_LENGTH)
        return 0
    options = _parser().parse_args(argv)
    trl_environment()
    _prepare()
    compared = {}
    for lora in (False, True):
        for packed in (False, True):
            name = f"{'LoRA' if lora else 'all weights'}, {'packed' if packed else 'unpacked'}"
            compared[name] = _compare(options, lora=lora, packed=packed)
            _print(name, compared[name])
    RESULTS.write_text(
        json.dumps({"processor": processor(), "repeats": options.repeats, "compared": compared}, indent=2) + "\n"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="runs that medians are over (default: 3)")
    parser.add_argument("--steps", type=int, default=12, help="optimizer steps of a run (default: 12)")
    return parser


def _prepare() -> None:
    """Records, a start model, and both as every trainer reads them: rows of tokens; once."""
    if (FOLDER / "rows.json").is_file():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records(SAMPLES)))
    one_step = Setting("alidade", False, False, 1, BATCH[False], MICRO_BATCH[False])
    _work(_job(one_step, "start") | {"model": {"init": INIT}}, "start")
    run([sys.executable, __file__, "--prepare"], {})


def records(samples: int, *, longest: int = 40, answer: int = 60) -> list[dict[str, str]]:
    """Questions of 4 to `longest` words, and answers whose lengths fall off as people's do, of `answer` in the mean."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(4000)]
    return [
        {
            "input": " ".join(draw.choices(words, k=draw.randint(4, longest))),
            "output": " ".join(draw.choices(words, k=min(1 + int(draw.expovariate(1 / answer)), 200))),
        }
        for _ in range(samples)
    ]


def _job(setting: Setting, output: str) -> dict[str, Any]:
    training = training_block(learning_rate=LEARNING_RATE, batch=setting.batch, seed=0)
    training |= {"microBatchSize": setting.micro_batch, "epochs": 10_000, "maxSteps": setting.steps}
    lora = {"type": "lora", "rank": RANK, "alpha": 2 * RANK, "dropout": 0}
    data = {"uri": f"file://{setting.folder}/records.jsonl", "maxLength": setting.max_length}
    return {
        **job_document("sft", setting.place / output),
        "model": {"uri": f"file://{setting.folder}/start/model"},
        "dataset": data | {"packing": setting.packed},
        "adapter": lora if setting.lora else {"type": "none"},
        "training": training | ({"precision": "bf16"} if setting.on_gpu else {}),
    }


def _work(job: dict[str, Any], name: str) -> None:
    """Runs a job as the launcher starts it, in a process of its own."""
    path = FOLDER / f"{name}.json"
    path.write_text(json.dumps(job))
    with new_run_folder() as run_folder:
        run([sys.executable, "-m", "alidade_trainer.worker"], worker_environment(path, run_folder))


def write_rows(folder: Path, max_length: int) -> dict[str, list[dict[str, list[int]]]]:
    """Writes the folder's records as the platform tokenises and packs them, for the others to train on."""
    from alidade_crds.contract import JobDocument
    from alidade_engine.models import load_tokenizer
    from alidade_engine.sources import Locations
    from alidade_trainer.data.dataset import prepare

    tokenizer = load_tokenizer(folder / "start/model")
    rows = {}
    for packed in (False, True):
        setting = Setting("alidade", False, packed, 1, 1, 1, folder=str(folder), max_length=max_length)
        job = JobDocument.model_validate(_job(setting, "rows"))
        data = prepare(
            job, tokenizer, Locations.from_environment(), context_length=max_length, model_type="llama"
        ).train
        rows["packed" if packed else "unpacked"] = [
            {name: list(map(int, values)) for name, values in data[index].items()} for index in range(len(data))
        ]
    (folder / "rows.json").write_text(json.dumps({"pad": tokenizer.pad_token_id, **rows}))
    return rows


def _compare(options: argparse.Namespace, *, lora: bool, packed: bool) -> dict[str, Any]:
    runs: dict[str, list[dict[str, float]]] = {trainer: [] for trainer in TRAINERS}
    for repeat in range(options.repeats):
        # In changing order, so that a slow minute of the machine meets all.
        for trainer in islice(cycle(TRAINERS), repeat, repeat + len(TRAINERS)):
            one = Setting(trainer, lora, packed, options.steps, BATCH[packed], MICRO_BATCH[packed])
            python = str(TRL_PYTHON) if trainer == "trl" else sys.executable
            told = {"PYTHONPATH": PACKAGES}
            found = json.loads(run([python, __file__, "--child", json.dumps(asdict(one))], told).splitlines()[-1])
            print(f"{one} {json.dumps(found)}", file=sys.stderr, flush=True)
            runs[trainer].append(found)
    medians = {
        trainer: {name: round(statistics.median(one[name] for one in found), 1) for name in found[0]}
        for trainer, found in runs.items()
    }
    ratios = {
        f"to {other}": round(
            statistics.median(
                ours["tokensPerProcessorSecond"] / theirs["tokensPerProcessorSecond"]
                for ours, theirs in zip(runs["alidade"], runs[other], strict=True)
            ),
            3,
        )
        for other in TRAINERS[1:]
    }
    return {**medians, "ratios": ratios}


def _print(name: str, found: dict[str, Any]) -> None:
    for trainer in TRAINERS:
        row = found[trainer]
        print(
            f"{name:24}{trainer:10}{row['tokensPerProcessorSecond']:8.0f} tokens/cpu-s{row['tokensPerSecond']:8.0f} "
            f"tokens/s{row['peakMiB']:8.0f} MiB  loss {row['loss']:.1f}"
        )
    print(f"{name:24}ratios    {found['ratios']}", flush=True)


class StepMeter:
    """Processor time, time and tokens between the ends of two steps."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._done = 0
        self._meter = Meter()
        self._inside = self._meter.measured()
        self._tokens = 0
        self._loss = 0.0

    def step_ended(self, tokens: int, loss: float) -> None:
        """tokens: of this step, without padding."""
        self._done += 1
        if self._done > WARM_UP:
            self._tokens += tokens
        self._loss = loss
        if self._done == WARM_UP:
            self._inside.__enter__()
        if self._done == self._steps:
            self._inside.__exit__(None, None, None)

    def numbers(self) -> dict[str, float]:
        """Of a run that has ended."""
        if self._done != self._steps:
            raise RuntimeError(f"{self._done} steps were seen, {self._steps} asked for")
        found = self._meter.numbers()
        return {
            "tokensPerProcessorSecond": self._tokens / found["processorSeconds"],
            "tokensPerSecond": self._tokens / found["seconds"],
            "peakMiB": found["peakMiB"],
            "loss": self._loss,
        }


def _train_alidade(setting: Setting) -> dict[str, float]:
    """A job as the platform runs it, with a meter at the end of each step."""
    from alidade_trainer.training import TrainingRun

    path = setting.place / "alidade.json"
    path.write_text(json.dumps(_job(setting, "alidade")))
    meter = StepMeter(setting.steps)
    record = TrainingRun._record

    def metered(self: Any, metrics: Any) -> None:
        record(self, metrics)
        meter.step_ended(metrics.tokens, metrics.loss)
        if metrics.step == setting.steps and not setting.to_the_model:
            raise MeasuredError

    TrainingRun._record = metered  # type: ignore[method-assign]
    shutil.rmtree(setting.place / "alidade", ignore_errors=True)
    work_here(path)
    return meter.numbers()


def _train_trl(setting: Setting) -> dict[str, float]:
    """TRL's SFTTrainer, in its environment, with its own packing."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(1)
    rows = json.loads((setting.place / "rows.json").read_text())["unpacked"]
    data = Dataset.from_list(
        [
            {"input_ids": row["input_ids"], "completion_mask": [int(label != -100) for label in row["labels"]]}
            for row in rows
        ]
    )
    meter = StepMeter(setting.steps)

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Reads what the trainer has counted."""

        seen = 0

        def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
            meter.step_ended(int(state.num_input_tokens_seen) - self.seen, 0.0)
            self.seen = int(state.num_input_tokens_seen)

    arguments = SFTConfig(
        output_dir=str(setting.place / "trl"),
        model_init_kwargs={"dtype": "bfloat16" if setting.on_gpu and setting.lora else "float32"},
        use_cpu=not setting.on_gpu,
        bf16=setting.on_gpu,
        gradient_checkpointing=False,
        per_device_train_batch_size=setting.micro_batch,
        gradient_accumulation_steps=setting.batch // setting.micro_batch,
        max_steps=setting.steps,
        max_length=setting.max_length,
        packing=setting.packed,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        include_num_input_tokens_seen="non_padding",
        report_to=[],
        save_strategy="no",
        logging_steps=setting.steps,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=str(setting.place / "start/model"),
        args=arguments,
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(setting.place / "start/model"),
        peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear") if setting.lora else None,
        callbacks=[Watch()],
    )
    trainer.train()
    return meter.numbers() | {"loss": trainer.state.log_history[-1]["train_loss"]}


def _train_bare(setting: Setting) -> dict[str, float]:
    """What one writes by hand: padded micro-batches, or the platform's packed rows with positions that start anew."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    read = json.loads((setting.place / "rows.json").read_text())
    rows = read["packed" if setting.packed else "unpacked"]
    random.Random(0).shuffle(rows)
    model: Any = AutoModelForCausalLM.from_pretrained(setting.place / "start/model", dtype=torch.float32)
    if setting.lora:
        model = get_peft_model(model, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear"))
    model.train()
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0, fused=True)
    collate = _packed_batch if setting.packed else _padded_batch
    micro, batch = setting.micro_batch, setting.batch
    meter = StepMeter(setting.steps)
    for step in range(setting.steps):
        chosen = list(islice(cycle(rows), step * batch, (step + 1) * batch))
        loss_sum = 0.0
        for first in range(0, batch, micro):
            loss = model(**collate(chosen[first : first + micro], read["pad"]), use_cache=False).loss * micro / batch
            loss.backward()
            loss_sum += float(loss)
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        meter.step_ended(sum(len(row["input_ids"]) for row in chosen), loss_sum)
    return meter.numbers()


def _padded_batch(rows: Sequence[dict[str, list[int]]], pad: int) -> dict[str, Any]:
    import torch

    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name: str, filler: int) -> list[list[int]]:
        return [row[name] + [filler] * (longest - len(row[name])) for row in rows]

    mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    return {
        "input_ids": torch.tensor(padded("input_ids", pad)),
        "labels": torch.tensor(padded("labels", -100)),
        "attention_mask": torch.tensor(mask),
    }


def _packed_batch(rows: Sequence[dict[str, list[int]]], _pad: int) -> dict[str, Any]:
    """The rows one after another as a single one: so transformers knows from the positions where a sample begins."""
    import torch

    joined = {name: [value for row in rows for value in row[name]] for name in rows[0]}
    return {name: torch.tensor([values]) for name, values in joined.items()}


CHILDREN: dict[str, Callable[[Setting], dict[str, float]]] = {
    "alidade": _train_alidade,
    "trl": _train_trl,
    "bare": _train_bare,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
