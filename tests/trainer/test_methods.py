"""QLoRA, rsLoRA, DoRA and frozen weights: what is trained, what is written, and that both are the same model."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig

from alidade_crds.blocks import AdapterType
from alidade_engine.models import load_model, load_tokenizer
from alidade_trainer.failures import JobFailure
from alidade_trainer.merge import merge_adapter
from alidade_trainer.quantized_bases import keep_as_loaded, loading_options, nf4, refuse_quantized
from tests.trainer.conftest import Run, in_child, kill_after_step

MakeJob = Callable[..., Path]
RunJob = Callable[..., Run]

# peft asks transformers by a name that is about to change.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

IDS = torch.arange(20)[None] + 5


def adapter(**over: Any) -> dict[str, Any]:
    return {"adapter": {"type": "qlora", "rank": 4, "alpha": 32} | over}


def logits(folder: Path) -> torch.Tensor:
    found: torch.Tensor = load_model(folder)(input_ids=IDS).logits
    return found


def quantized_logits(base: Path, adapter_folder: Path) -> torch.Tensor:
    """Of the adapter on the base in 4 bits, as it was in training."""
    return torch.tensor(in_child(_quantized_logits, base, adapter_folder))


def _quantized_logits(base: Path, adapter_folder: Path) -> Any:
    model = load_model(base, **loading_options(base, nf4(torch.float32)))
    keep_as_loaded(model)
    return PeftModel.from_pretrained(model, str(adapter_folder))(input_ids=IDS).logits.tolist()


@pytest.mark.parametrize("dora", [False, True])
def test_a_qlora_model_as_it_is_written_is_the_one_that_was_trained(
    make_job: MakeJob, run_job: RunJob, workplace: Path, tmp_path: Path, dora: bool
) -> None:
    run = run_job(make_job(adapter(dora=dora)), processes=2)

    assert run.result.outcome == "succeeded"
    assert run.losses[-1] < run.losses[0]
    written = logits(run.output / "model")
    trained = quantized_logits(workplace / "base", run.output / "adapter")
    assert torch.allclose(written, trained, atol=1e-4)
    # On the base's own weights, which training never saw, it is another model.
    merge_adapter(workplace / "base", run.output / "adapter", tmp_path / "merged")
    assert torch.allclose(logits(tmp_path / "merged"), trained, atol=1e-4)
    (run.output / "adapter" / "base_quantization.json").unlink()
    merge_adapter(workplace / "base", run.output / "adapter", tmp_path / "whole")
    assert not torch.allclose(logits(tmp_path / "whole"), trained, atol=1e-2)


def test_qlora_counts_the_weights_of_the_whole_model_and_says_nothing_of_4_bits_in_what_it_writes(
    make_job: MakeJob, run_job: RunJob, workplace: Path
) -> None:
    run = run_job(make_job(adapter() | {"training": {"maxSteps": 1}}))

    assert run.result.model is not None
    assert run.result.model.parameters == sum(weight.numel() for weight in load_model(workplace / "base").parameters())
    assert "quantization_config" not in json.loads((run.output / "model" / "config.json").read_text())


def test_qlora_goes_with_a_longer_vocabulary(make_job: MakeJob, run_job: RunJob, workplace: Path) -> None:
    run = run_job(make_job(adapter() | {"vocabulary": {"extendWith": {"trainOnDataset": True, "size": 40}}}))

    assert run.result.outcome == "succeeded", run.result.failure
    config = json.loads((run.output / "model" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["vocab_size"] > json.loads((workplace / "base" / "config.json").read_text())["vocab_size"]
    assert logits(run.output / "model").shape[-1] == config["vocab_size"]


def test_a_killed_qlora_run_goes_on_with_the_same_losses(make_job: MakeJob, run_job: RunJob) -> None:
    whole = run_job(make_job(adapter(dropout=0), output="whole"))
    job = make_job(adapter(dropout=0), output="killed")
    run_job(job, prepare=kill_after_step(4))
    again = run_job(job)
    assert again.losses == whole.losses


def test_a_base_that_is_stored_in_4_bits_is_trained_on_as_it_is(
    make_job: MakeJob, run_job: RunJob, workplace: Path, tmp_path: Path
) -> None:
    base = tmp_path / "stored"
    in_child(_store_quantized, workplace / "base", base)

    run = run_job(make_job(adapter() | {"model": {"uri": f"file://{base}"}}))

    assert run.result.outcome == "succeeded"
    trained = quantized_logits(base, run.output / "adapter")
    assert torch.allclose(logits(run.output / "model"), trained, atol=1e-4)


def _store_quantized(source: Path, target: Path) -> None:
    load_model(source, **loading_options(source, nf4(torch.float32))).save_pretrained(target)
    load_tokenizer(source).save_pretrained(target)


@pytest.mark.parametrize(
    ("stored", "adapter_type", "said"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "lora", "set adapter.type: qlora, or name the model"),
        ({"quant_method": "gptq"}, "qlora", "stored quantized (gptq), and adapter.type is qlora"),
    ],
)
def test_bases_of_other_formats_are_refused(stored: dict[str, Any], adapter_type: str, said: str) -> None:
    config = LlamaConfig(quantization_config=stored)
    with pytest.raises(JobFailure, match=said.replace("(", r"\(").replace(")", r"\)")):
        refuse_quantized(config, AdapterType(adapter_type))


def test_rslora_divides_by_the_ranks_root(make_job: MakeJob, run_job: RunJob, workplace: Path) -> None:
    """Kalajdzievski 2023: W + alpha / sqrt(rank) * B A."""
    run = run_job(make_job(adapter(type="lora", rslora=True, rank=4, alpha=8) | {"training": {"maxSteps": 2}}))

    adapted = PeftModel.from_pretrained(load_model(workplace / "base"), str(run.output / "adapter"))
    layer = adapted.get_base_model().model.layers[0].mlp.up_proj
    additions = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = layer.base_layer.weight + 8 / math.sqrt(4) * additions
    merged = load_model(run.output / "model").model.layers[0].mlp.up_proj.weight
    assert torch.allclose(merged, expected, atol=1e-6)


def test_dora_trains_magnitudes_beside_directions(make_job: MakeJob, run_job: RunJob, workplace: Path) -> None:
    """Liu et al. 2024, equation 5: m * (W + s B A) / ||W + s B A||, the norm over each row of outputs."""
    run = run_job(make_job(adapter(type="lora", dora=True, rank=4, alpha=8) | {"training": {"maxSteps": 2}}))

    adapted = PeftModel.from_pretrained(load_model(workplace / "base"), str(run.output / "adapter"))
    layer = adapted.get_base_model().model.layers[0].mlp.up_proj
    magnitude = layer.lora_magnitude_vector["default"].weight
    before = layer.base_layer.weight
    assert not torch.allclose(magnitude, before.norm(dim=1), atol=1e-4)
    direction = before + 8 / 4 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    expected = magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
    merged = load_model(run.output / "model").model.layers[0].mlp.up_proj.weight
    assert torch.allclose(merged, expected, atol=1e-5)


def test_frozen_weights_stay_as_they_are_and_all_others_move(
    make_job: MakeJob, run_job: RunJob, workplace: Path
) -> None:
    freeze = ["model.layers.0.*", "*embed_tokens*"]
    run = run_job(make_job({"training": {"freeze": freeze, "maxSteps": 2}}), processes=2)

    before = dict(load_model(workplace / "base").named_parameters())
    for name, weight in load_model(run.output / "model").named_parameters():
        is_frozen = name.startswith("model.layers.0.") or "embed_tokens" in name
        assert torch.equal(weight, before[name]) == is_frozen, name
    assert run.result.model is not None
    assert run.result.model.trainable_parameters < run.result.model.parameters


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        (
            ["model.layers.7.*"],
            "has model.layers.7.*, which no weight of the model is named like; its weights are model.",
        ),
        (["*"], "leaves no weight of the model to train"),
    ],
)
def test_patterns_of_no_use_are_refused(make_job: MakeJob, run_job: RunJob, patterns: list[str], said: str) -> None:
    run = run_job(make_job({"training": {"freeze": patterns}}))
    assert said in str(run.result.failure)
