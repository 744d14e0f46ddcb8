"""Decoders, against the forward of transformers for each row alone and whole."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alidade_engine.decoding import Decoder, ForwardDecoder, compaction
from alidade_engine.llama_decoding import LlamaDecoder, supports
from alidade_engine.sampling import make_decoder

# Most that logits (here up to 3) may differ by in float32, which sums in another order for other shapes: 2e-6 was seen,
# and 1e-5 under the adapter, whose weights are large.
TOLERANCE = 2e-5

# peft asks transformers by a name that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
MAKERS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama with grouped queries": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "llama with a head for each query": lambda: LlamaForCausalLM(LlamaConfig(**SIZES | {"num_key_value_heads": 4})),
    "llama with one key-value head": lambda: LlamaForCausalLM(LlamaConfig(**SIZES | {"num_key_value_heads": 1})),
    "llama with tied embeddings": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True)),
    "llama with biases": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "llama with wide heads": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=16)),
    "llama 3's rotary scaling": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=LLAMA3)),
    "llama with an adapter": lambda: with_adapter(LlamaForCausalLM(LlamaConfig(**SIZES))),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
}
GENERIC: dict[str, Callable[[], PreTrainedModel]] = {
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=97, n_positions=128, n_embd=32, n_layer=3, n_head=4)),
    "mistral with a sliding window": lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **SIZES, head_dim=8, sliding_window=8, layer_types=[*["sliding_attention"] * 2, "full_attention"]
        )
    ),
}


def with_adapter(model: PreTrainedModel) -> PreTrainedModel:
    """The model under a LoRA adapter that changes what it computes."""
    wrapped = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"]))
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.3)
    adapted: PreTrainedModel = wrapped
    return adapted


def made(maker: Callable[[], PreTrainedModel], dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model with weights so wide that logits spread over several units and rounding shows."""
    torch.manual_seed(0)
    model = maker()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "lora_" not in name:
                weight.mul_(8)
            elif name.endswith("bias"):
                weight.normal_(std=0.3)
    return model.to(dtype).eval()


@torch.no_grad()
def alone(model: PreTrainedModel, tokens: Sequence[int]) -> Tensor:
    """Logits behind the last token, by the model's forward over the row alone, without a cache."""
    logits: Tensor = model(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0, -1]
    return logits


class Rows:
    """A decoder beside the tokens that its rows hold, with random next tokens."""

    def __init__(self, model: PreTrainedModel, decoder: Decoder) -> None:
        self.model = model
        self.decoder = decoder
        self.tokens: list[list[int]] = []
        self.worst = 0.0
        self.chance = torch.Generator().manual_seed(1)

    def prompt(self, length: int) -> list[int]:
        return torch.randint(1, 97, (length,), generator=self.chance).tolist()

    def append(self, lengths: Sequence[int], rows: Sequence[int]) -> None:
        prompts = [self.prompt(length) for length in lengths]
        prefilled = self.decoder.prefill(prompts)
        self._compare(prefilled.logits, prompts)
        self.decoder.append(prefilled, rows)
        self.tokens += [list(prompts[row]) for row in rows]

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            drawn = self.prompt(len(self.tokens))
            logits = self.decoder.step(drawn)
            for row, token in zip(self.tokens, drawn, strict=True):
                row.append(token)
            self._compare(logits, self.tokens)

    def release(self, ended: Sequence[int]) -> None:
        self.decoder.release(ended)
        for source, target in compaction(len(self.tokens), ended):
            self.tokens[target] = self.tokens[source]
        del self.tokens[len(self.tokens) - len(ended) :]

    def _compare(self, logits: Tensor, rows: Sequence[Sequence[int]]) -> None:
        expected = torch.stack([alone(self.model, row) for row in rows])
        assert logits.shape == expected.shape
        self.worst = max(self.worst, float((logits.float() - expected.float()).abs().max()))


def exercise(rows: Rows) -> float:
    """Rows come, grow, leave from the middle and the end, and others come; the worst difference of logits."""
    rows.append([5, 17, 1], [0, 0, 1, 2, 2])
    rows.step(3)
    rows.release([1, 4])
    rows.step(2)
    if rows.decoder.grows:
        rows.append([30], [0, 0])  # longer than what runs, so that the rows before must make room
        rows.step(2)
        rows.append([2, 3], [1, 0])
    rows.step(10)  # over a block of the cache, and over the sliding windows
    rows.release(range(len(rows.tokens)))
    rows.append([4], [0])
    rows.step(2)
    return rows.worst


@pytest.mark.parametrize("name", MAKERS)
def test_the_decode_path_of_its_own_gives_the_forwards_logits(name: str) -> None:
    model = made(MAKERS[name])
    decoder = make_decoder(model, slots=8, length=64)
    assert isinstance(decoder, LlamaDecoder)
    assert exercise(Rows(model, decoder)) < TOLERANCE


@pytest.mark.parametrize("name", GENERIC)
def test_other_models_run_through_their_own_forward(name: str) -> None:
    model = made(GENERIC[name])
    decoder = make_decoder(model, slots=8, length=64)
    assert isinstance(decoder, ForwardDecoder)
    assert decoder.grows == (name == "gpt2")
    assert exercise(Rows(model, decoder)) < TOLERANCE


def test_both_decoders_give_the_same_for_the_same_model() -> None:
    model = made(MAKERS["llama with an adapter"])
    assert exercise(Rows(model, ForwardDecoder(model))) < TOLERANCE


def test_in_bfloat16_the_decode_path_is_as_near_to_float32_as_the_forward_is() -> None:
    exact = made(MAKERS["llama with grouped queries"])
    rounded = made(MAKERS["llama with grouped queries"], torch.bfloat16)
    prompts = [[5, 6, 7, 8], [9] * 20, [11, 12]]
    decoder = LlamaDecoder(rounded, slots=4, length=64)
    prefilled = decoder.prefill(prompts)
    decoder.append(prefilled, [0, 1, 2])
    found = decoder.step([3, 3, 3])
    assert found.dtype is torch.bfloat16
    expected = torch.stack([alone(exact, [*prompt, 3]) for prompt in prompts])
    theirs = torch.stack([alone(rounded, [*prompt, 3]) for prompt in prompts]).float()
    assert (found.float() - expected).abs().max() < 1.5 * (theirs - expected).abs().max()


def test_weights_are_read_anew_at_each_step() -> None:
    model = made(MAKERS["llama with tied embeddings"])
    decoder = make_decoder(model, slots=1, length=32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    rows = Rows(model, decoder)
    rows.append([3], [0])
    rows.step(2)
    assert rows.worst < TOLERANCE


@pytest.mark.parametrize(
    ("model", "length", "supported"),
    [
        (lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)), 9, False),
        (lambda: MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)), 8, True),
        (
            lambda: LlamaForCausalLM(
                LlamaConfig(**SIZES, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0})
            ),
            8,
            False,
        ),
        (MAKERS["llama with an adapter"], 8, True),
        (GENERIC["gpt2"], 8, False),
    ],
)
def test_the_decode_path_is_taken_only_where_it_computes_the_same(
    model: Callable[[], PreTrainedModel], length: int, supported: bool
) -> None:
    assert supports(model(), length) == supported


@given(st.integers(0, 12).flatmap(lambda rows: st.tuples(st.just(rows), st.sets(st.integers(0, max(0, rows - 1))))))
def test_compaction_leaves_every_row_that_goes_on_without_gaps(case: tuple[int, set[int]]) -> None:
    rows, gone = case[0], {place for place in case[1] if place < case[0]}
    places = list(range(rows))
    for source, target in compaction(rows, sorted(gone)):
        places[target] = source
    assert sorted(places[: rows - len(gone)]) == [place for place in range(rows) if place not in gone]
