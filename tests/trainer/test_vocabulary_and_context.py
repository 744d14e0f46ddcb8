"""Whole jobs that add pieces to the tokenizer, or stretch the context; and what no job can ask for."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from alidade_engine.failures import JobFailure
from alidade_engine.models import load_config, load_model, load_tokenizer
from alidade_trainer.jobs import read_job
from alidade_trainer.merge import merge_adapter
from alidade_trainer.starting import refuse_unknown
from tests.trainer.conftest import Run

MakeJob = Callable[..., Path]
RunJob = Callable[..., Run]
LEARNED = {"extendWith": {"trainOnDataset": True, "size": 32}}
# peft asks transformers by a name that it has just replaced.
PEFT_WARNS = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
SHORT = {"maxSteps": 2, "evaluateEverySteps": 2}


def test_two_stages_train_the_embeddings_first_and_the_blocks_then(
    make_job: MakeJob, run_job: RunJob, workplace: Path, documented: Callable[[dict[str, float]], None]
) -> None:
    first = run_job(make_job({"vocabulary": LEARNED | {"train": "embeddings"}, "training": SHORT}))
    assert first.result.outcome == "succeeded", first.result.failure
    over = {"model": {"uri": f"file://{first.output}/model"}, "adapter": {"type": "lora", "trainEmbeddings": True}}
    second = run_job(make_job(over | {"training": SHORT}, output="second"))
    assert second.result.outcome == "succeeded", second.result.failure

    base, one, two = (
        load_model(folder) for folder in (workplace / "base", first.output / "model", second.output / "model")
    )
    rows, table = len(base.get_input_embeddings().weight), one.get_input_embeddings().weight
    assert len(load_tokenizer(first.output / "model")) == one.config.vocab_size == len(table) == rows + 32
    assert not torch.equal(table[:rows], base.get_input_embeddings().weight)
    block = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(one.get_parameter(block), base.get_parameter(block))
    assert not torch.equal(two.get_parameter(block), base.get_parameter(block))
    assert not torch.equal(two.get_input_embeddings().weight, table)
    assert second.result.model is not None
    assert second.result.model.parameters == sum(weight.numel() for weight in two.parameters()), "copies not counted"
    made, metrics = first.result.model, first.result.metrics
    assert made is not None
    assert (made.vocab_size, made.trainable_parameters) == (rows + 32, table.numel())
    documented(metrics)
    assert metrics["vocabularyAdded"] == 32
    assert metrics["tokensPerCharacter"] < 0.8 * metrics["tokensPerCharacterAtStart"]
    assert metrics["charactersPerToken"] == pytest.approx(1 / metrics["tokensPerCharacter"])
    page = (first.output / "report.html").read_text()
    assert "pieces added" in page
    assert "96 → 96 of 96" in page, "48 questions and their answers are read back as they were"


@PEFT_WARNS
def test_lora_leaves_the_longer_embeddings_to_be_trained_whole_and_merges_to_the_same(
    make_job: MakeJob, run_job: RunJob, workplace: Path, tmp_path: Path
) -> None:
    vocabulary = LEARNED | {"padToMultipleOf": 64}
    over = {"vocabulary": vocabulary, "adapter": {"type": "lora"}, "deepspeed": {"zeroStage": 3}}

    run = run_job(make_job(over | {"training": {"maxSteps": 1}, "dataset": {"validation": None}}), processes=2)

    assert run.result.outcome == "succeeded", run.result.failure
    model, base = load_model(run.output / "model"), load_model(workplace / "base")
    table, before = model.get_input_embeddings().weight, base.get_input_embeddings().weight
    assert len(table) == model.config.vocab_size == 384
    assert not torch.equal(table[: len(before)], before), "embeddings are trained"
    assert run.result.model is not None
    assert run.result.model.parameters == sum(weight.numel() for weight in model.parameters())
    merge_adapter(workplace / "base", run.output / "adapter", tmp_path / "merged")
    again = load_model(tmp_path / "merged")
    for name, weight in again.named_parameters():
        assert torch.allclose(weight, model.get_parameter(name), atol=1e-6), name
    assert load_tokenizer(tmp_path / "merged").get_vocab() == load_tokenizer(run.output / "model").get_vocab()


@PEFT_WARNS
def test_a_longer_context_is_trained_saved_and_measured(
    make_job: MakeJob,
    run_job: RunJob,
    workplace: Path,
    tmp_path: Path,
    documented: Callable[[dict[str, float]], None],
) -> None:
    over = {"context": {"length": 256, "scaling": "yarn"}, "adapter": {"type": "lora"}, "training": SHORT}
    run = run_job(make_job(over), processes=2)

    assert run.result.outcome == "succeeded", run.result.failure
    config = load_config(run.output / "model")
    assert config.max_position_embeddings == load_tokenizer(run.output / "model").model_max_length == 256
    assert config.rope_parameters["rope_type"] == "yarn"
    assert config.rope_parameters["factor"] == 2
    metrics = run.result.metrics
    documented(metrics)
    # Two steps have taught something; the windows are of the held-out questions, joined.
    assert 1 < metrics["perplexityAt128"] < metrics["perplexityAt128AtStart"]
    assert 1 < metrics["perplexityAt256"] < metrics["perplexityAt256AtStart"]
    page = (run.output / "report.html").read_text()
    assert "Perplexity by length of context" in page
    assert "sliding windows, stride 64" in page
    merge_adapter(workplace / "base", run.output / "adapter", tmp_path / "merged")
    assert load_config(tmp_path / "merged").rope_parameters == config.rope_parameters


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"context": {"length": 256}, "vocabulary": LEARNED}, "use one job after the other"),
        ({"vocabulary": LEARNED | {"train": "embeddings"}, "adapter": {"type": "lora"}}, "adapter.type is lora; vocab"),
        ({"vocabulary": LEARNED, "stage": "reward"}, "vocabulary is set; it adds to the tokenizer of a model"),
        ({"context": {"length": 256}, "stage": "reward"}, "context is set; it stretches the context of a model"),
        ({"vocabulary": LEARNED, "ghostAttention": {"instructions": ["Be brief."]}}, "with the base's tokenizer"),
    ],
)
def test_what_no_job_can_ask_for_is_refused(make_job: MakeJob, over: dict[str, Any], message: str) -> None:
    with pytest.raises(JobFailure) as refused:
        refuse_unknown(read_job(make_job(over)))

    assert message in str(refused.value)
