"""Every family of models trains, is written, read again and generates; and is packed only where that is right."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
)

from alidade_trainer.data.packing import PACKABLE
from tests.trainer.conftest import Run

MakeJob = Callable[..., Path]
RunJob = Callable[..., Run]

# peft asks transformers by a name that is about to change, and says of GPT-2's layers what it does about them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

GPT: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}
WIDE: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
LLAMA: dict[str, Any] = WIDE | {"num_key_value_heads": 1, "intermediate_size": 64, "max_position_embeddings": 128}
NO_TEXT: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "mistral": LLAMA | {"sliding_window": 64},
    "qwen2": LLAMA,
    "qwen3": LLAMA | {"head_dim": 16},
    "gemma": LLAMA | {"head_dim": 16},
    "gemma2": LLAMA | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64},
    "gemma3_text": LLAMA | {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 64},
    "phi3": LLAMA | {"pad_token_id": 0},
    "olmo2": LLAMA,
    "gpt2": GPT,
    "opt": WIDE | {"ffn_dim": 64, "max_position_embeddings": 128, "word_embed_proj_dim": 32},
    "gpt_neox": WIDE | {"intermediate_size": 64, "max_position_embeddings": 128},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
    "falcon": WIDE | {"num_kv_heads": 1, "max_position_embeddings": 128},
}


def config(family: str, vocabulary: int) -> PretrainedConfig:
    made: PretrainedConfig = AutoConfig.for_model(family, vocab_size=vocabulary, **FAMILIES[family])
    return made


@pytest.mark.parametrize(
    ("family", "adapter"),
    # Those that are built unlike Llama are trained whole as well: scaled embeddings, learned positions, ALiBi.
    [*((family, "lora") for family in FAMILIES), *((family, "none") for family in ("gemma2", "gpt2", "opt", "bloom"))],
)
def test_a_family_trains_is_written_read_again_and_generates(
    make_job: MakeJob, run_job: RunJob, workplace: Path, tmp_path: Path, family: str, adapter: str
) -> None:
    base = tmp_path / "base"
    tokenizer = AutoTokenizer.from_pretrained(workplace / "base")
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config(family, len(tokenizer) + 8)).save_pretrained(base)
    tokenizer.save_pretrained(base)

    run = run_job(make_job({
        "model": {"uri": f"file://{base}"},
        "adapter": {"type": adapter},
        "training": {"maxSteps": 2, "learningRate": 0.02, "gradientCheckpointing": True},
        "dataset": {"packing": True},
    }))  # fmt: skip

    assert run.result.outcome == "succeeded", run.result.failure
    assert any("would see one another" in said for said in run.result.warnings) == (family not in PACKABLE)
    before = AutoModelForCausalLM.from_pretrained(base)
    after = AutoModelForCausalLM.from_pretrained(run.output / "model")
    assert after.config.model_type == before.config.model_type
    changed = {name for name, weight in after.named_parameters() if not torch.equal(weight, before.get_parameter(name))}
    inner = [name for name, module in before.named_modules() if _is_linear(module) and "head" not in name]
    assert inner
    assert {f"{name}.weight" for name in inner} <= changed, "every linear layer of the blocks has learned"
    ids = torch.tensor([tokenizer("What is number").input_ids])
    generated = after.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    assert generated.shape[1] > ids.shape[1]


MORE: dict[str, dict[str, Any]] = {
    "qwen2_moe": {"moe_intermediate_size": 16, "num_experts": 4, "shared_expert_intermediate_size": 32},
    "qwen3_moe": {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2},
    "mixtral": {"num_local_experts": 2},
    "gptj": GPT | {"rotary_dim": 8},
    "gpt_neo": {
        "hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
        "max_position_embeddings": 128,
    },
}  # fmt: skip


def _packed_and_alone(family: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a sample behind another one and by itself; and the gradient that the other one's tokens get from it."""
    settings = (FAMILIES | MORE).get(family, LLAMA | {"head_dim": 16})
    if family in MORE and not family.startswith("gpt"):
        settings = LLAMA | settings
    torch.manual_seed(0)
    made = AutoConfig.for_model(family, vocab_size=300, **NO_TEXT | settings)
    model = AutoModelForCausalLM.from_config(made).float().eval()
    first, second = torch.randint(5, 300, (1, 9)), torch.randint(5, 300, (1, 7))
    positions = torch.cat([torch.arange(9), torch.arange(7)])[None]
    embedded = model.get_input_embeddings()(torch.cat([first, second], 1)).detach().requires_grad_()
    known = "position_ids" in inspect.signature(type(model).forward).parameters
    more = {"position_ids": positions} if known else {}
    behind = model(inputs_embeds=embedded, use_cache=False, **more).logits[:, 9:]
    (gradient,) = torch.autograd.grad(behind.square().sum(), embedded)
    return behind, model(input_ids=second, use_cache=False).logits, gradient[:, :9]


@pytest.mark.parametrize("family", sorted(PACKABLE))
def test_samples_that_share_a_sequence_do_not_see_one_another(family: str) -> None:
    behind, alone, gradient = _packed_and_alone(family)
    assert torch.allclose(behind, alone, atol=1e-5)
    assert not gradient.any()


@pytest.mark.parametrize("family", ["opt", "falcon", "bloom"])
def test_a_family_that_is_not_packed_would_let_them(family: str) -> None:
    _, _, gradient = _packed_and_alone(family)
    assert gradient.any()


def _is_linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
