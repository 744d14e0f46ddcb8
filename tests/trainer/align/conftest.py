"""A model that answers every question with one of a few words, each as likely as the others, and aligning jobs on it.

What alignment can reach on it is known: always the word that is rewarded.
"""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alidade_crds.blocks import ModelInit
from alidade_engine.models import init_model
from alidade_engine.templates import render_batch, resolve_template
from alidade_engine.tokenization import train_tokenizer
from tests.trainer.blocks import merged

ANSWERS = ["red", "green", "blue", "Oslo", "Lima", "tin"]
PROMPTS = [f"What is number {number}?" for number in range(40)]


@pytest.fixture(scope="session")
def guessing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny Llama fine-tuned to guess."""
    return _made_apart(tmp_path_factory.mktemp("guessing"), heads=2)


@pytest.fixture(scope="session")
def guessing_model_of_one_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with one attention head of 32, the smallest that vLLM's CPU kernels take."""
    return _made_apart(tmp_path_factory.mktemp("guessing-of-one-head"), heads=1)


def _made_apart(folder: Path, *, heads: int) -> Path:
    # In a process of its own: jobs run in forks of this one, which must not have computed gradients before.
    child = multiprocessing.get_context("fork").Process(target=_train_to_guess, args=(folder, heads))
    child.start()
    child.join()
    assert child.exitcode == 0
    return folder


def _train_to_guess(folder: Path, heads: int) -> None:
    tokenizer = train_tokenizer([*PROMPTS, *ANSWERS] * 3, 320, model_max_length=96)
    torch.manual_seed(1)
    init = ModelInit(hidden_size=32, layers=1, heads=heads, kv_heads=1, vocab_size=320, context_length=96)
    model = init_model(init, tokenizer)
    source = resolve_template(tokenizer, "auto")
    chats = [
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        for prompt in PROMPTS[::4]
        for answer in ANSWERS
    ]
    rows = [(one.input_ids, one.answer_mask) for one in render_batch(tokenizer, chats, source)]
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([[*row, *[tokenizer.pad_token_id] * (width - len(row))] for row, _ in rows])
    labels = torch.full_like(ids, -100)
    for place, (row, mask) in enumerate(rows):
        labels[place, : len(row)] = torch.tensor(
            [token if learned else -100 for token, learned in zip(row, mask, strict=True)]
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(40):
        loss = model(input_ids=ids, labels=labels, attention_mask=(ids != tokenizer.pad_token_id).long()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture
def align_job(guessing_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a job document; takes its steps, what else differs from the usual one, and the name of its output."""
    for name, prompts in (("prompts", PROMPTS[:32]), ("held", PROMPTS[32:])):
        records = [{"input": prompt, "output": "Oslo"} for prompt in prompts]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    def make(steps: list[dict[str, Any]], over: dict[str, Any] | None = None, *, output: str = "out") -> Path:
        job = {
            "version": "alidade.dev/job/v1",
            "owner": {"kind": "AlignmentRun", "namespace": "team", "name": "tiny", "uid": "0123"},
            "stage": "align",
            "model": {"uri": f"file://{guessing_model}"},
            "dataset": {
                "uri": f"file://{tmp_path}/prompts.jsonl",
                "maxLength": 64,
                "validation": {"uri": f"file://{tmp_path}/held.jsonl"},
            },
            "alignment": {
                "steps": steps,
                "rewards": [{"name": "right", "function": "exact_match"}],
                "generation": {"maxNewTokens": 8},
            },
            "training": {
                "learningRate": 0.006,
                "schedule": "constant",
                "warmupRatio": 0,
                "weightDecay": 0,
                "globalBatchSize": 16,
                "microBatchSize": 16,
                "precision": "fp32",
                "gradientCheckpointing": False,
                "seed": 3,
            },
            "deepspeed": {"zeroStage": 0},
            "checkpoint": {"everySteps": 1, "keep": 2},
            "output": f"file://{tmp_path / output}",
        }
        path = tmp_path / f"{output}.json"
        path.write_text(json.dumps(merged(job, over or {})))
        return path

    return make


@pytest.fixture
def iterations() -> Callable[[Path], list[dict[str, float]]]:
    """The metrics of each iteration in an output folder."""

    def read(output: Path) -> list[dict[str, float]]:
        lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        return [line["metrics"] for line in lines if "iteration" in line]

    return read
