"""Rows for new entries: the mean of what they replace, in embeddings and head, tied or not."""

from pathlib import Path

import pytest
import torch
from transformers import (
    GPTJConfig,
    GPTJForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alidade_crds.blocks import VocabularySource
from alidade_engine.gguf.writing import write_gguf
from alidade_engine.models import ensure_pad_token
from alidade_engine.sources import Locations
from alidade_trainer.vocabulary.embeddings import extend_embeddings, train_only_embeddings
from alidade_trainer.vocabulary.extension import extend_tokenizer
from tests.engine.gguf.running import LlamaCpp
from tests.trainer.vocabulary.conftest import CHINESE, ENGLISH, TEXTS

WIDTH = 16


def llama(rows: int, *, tied: bool) -> PreTrainedModel:
    torch.manual_seed(1)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=rows,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=tied,
        )
    )


KINDS = ("gpt2_like", "llama3_like", "llama2_like")


@pytest.fixture(params=KINDS)
def tokenizers(
    request: pytest.FixtureRequest, locations: Locations
) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
    base: PreTrainedTokenizerBase = request.getfixturevalue(request.param)
    longer, _ = extend_tokenizer(base, VocabularySource(train_on_dataset=True, size=40), lambda: TEXTS, locations)
    return base, longer


@pytest.mark.parametrize("tied", [True, False])
def test_a_new_row_is_the_mean_of_the_rows_it_replaces(
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase], tied: bool
) -> None:
    base, longer = tokenizers
    model = llama(len(base), tied=tied)
    tables = {"in": model.get_input_embeddings().weight.clone(), "out": model.get_output_embeddings().weight.clone()}

    extend_embeddings(model, base, longer)

    now = {"in": model.get_input_embeddings().weight, "out": model.get_output_embeddings().weight}
    assert (now["in"] is now["out"]) is tied
    assert model.config.vocab_size == len(longer) == len(now["in"]) == len(now["out"])
    for name, table in tables.items():
        assert torch.equal(now[name][: len(base)], table), "old rows stay"
        for number in range(len(base), len(longer)):
            old = [one.id for one in base.backend_tokenizer.model.tokenize(longer.convert_ids_to_tokens(number))]
            assert len(old) > 1
            assert torch.allclose(now[name][number], table[old].mean(0), atol=1e-7)


def test_rows_that_a_base_had_to_spare_are_taken_first_and_rows_are_padded_by_choice(
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase],
) -> None:
    base, longer = tokenizers
    rows = len(base) + 10
    model = llama(rows, tied=False)
    before = model.get_input_embeddings().weight.clone()

    extend_embeddings(model, base, longer, multiple=64)

    table = model.get_input_embeddings().weight
    assert len(table) == model.config.vocab_size == -(-len(longer) // 64) * 64
    old = [one.id for one in base.backend_tokenizer.model.tokenize(longer.convert_ids_to_tokens(len(base)))]
    assert torch.allclose(table[len(base)], before[old].mean(0), atol=1e-7)
    assert torch.allclose(table[len(longer) :], before.mean(0), atol=1e-6)
    ensure_pad_token(longer, model)
    assert len(model.get_input_embeddings().weight) == -(-len(longer) // 64) * 64, "a later stage does not cut them off"


def test_a_heads_bias_has_rows_too(tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]) -> None:
    base, longer = tokenizers
    model = GPTJForCausalLM(
        GPTJConfig(vocab_size=len(base), n_embd=WIDTH, n_layer=1, n_head=2, rotary_dim=4, n_positions=32)
    )
    torch.nn.init.normal_(model.lm_head.bias)
    bias = model.lm_head.bias.clone()

    extend_embeddings(model, base, longer)

    number = len(longer) - 1
    old = [one.id for one in base.backend_tokenizer.model.tokenize(longer.convert_ids_to_tokens(number))]
    assert torch.allclose(model.lm_head.bias[number], bias[old].mean(), atol=1e-7)


def test_the_first_stage_trains_embeddings_and_head_alone(gpt2_like: PreTrainedTokenizerBase) -> None:
    model = llama(len(gpt2_like), tied=False)

    train_only_embeddings(model)

    trained = [name for name, weight in model.named_parameters() if weight.requires_grad]
    assert trained == ["model.embed_tokens.weight", "lm_head.weight"]


# Not of llama3_like: llama.cpp has no name for the expression by which this test's own tokenizer splits text.
@pytest.mark.parametrize("tokenizers", ["gpt2_like", "llama2_like"], indirect=True)
def test_llama_cpp_splits_text_as_the_longer_tokenizer_does(
    tokenizers: tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase], tmp_path: Path
) -> None:
    base, longer = tokenizers
    model = llama(len(base), tied=True)
    extend_embeddings(model, base, longer, multiple=64)
    model.save_pretrained(tmp_path / "model")
    longer.save_pretrained(tmp_path / "model")

    served = LlamaCpp(write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32").path)

    try:
        for text in [*CHINESE[:3], ENGLISH[0], f"{CHINESE[0]} {ENGLISH[1]}", "法旧城国河的磨", "12 mills, 3 rivers!"]:
            assert served.tokenize(text) == longer(text)["input_ids"], text
    finally:
        served.close()
