"""Tokenizers: trained, stored, loaded."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.models import ensure_pad_token
from alidade_engine.templates import render
from alidade_engine.tokenization import SMALLEST_VOCABULARY, load_tokenizer, train_tokenizer

TEXTS = ["中国的首都是北京。", "The capital of France is Paris.", "emoji 😀 and tabs\t\n"] * 10


@given(st.text() | st.text(alphabet="中国北京abc ABC\n\t😀👩‍🚀é<|im_end|>ߍ", max_size=60))
def test_every_text_is_read_back_unchanged(tokenizer_trained: PreTrainedTokenizerFast, text: str) -> None:
    text = text.encode("utf-8", "ignore").decode()  # lone surrogates are no text
    ids = tokenizer_trained(text, add_special_tokens=False)["input_ids"]
    assert tokenizer_trained.decode(ids) == text


def test_the_same_texts_give_the_same_tokenizer() -> None:
    one, other = (train_tokenizer(iter(TEXTS), 400).backend_tokenizer.to_str() for _ in range(2))
    assert one == other


def test_special_tokens_are_distinct_and_bos_is_put_first() -> None:
    tokenizer = train_tokenizer(TEXTS, 400)
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert special == [0, 1, 2]
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    assert len(tokenizer) <= 400


def test_chinese_signs_are_not_run_together_into_phrases() -> None:
    tokenizer = train_tokenizer(["中国的首都是北京。"] * 100, 400)
    assert [tokenizer.decode([token]) for token in tokenizer("首都是北京", add_special_tokens=False)["input_ids"]] == [
        *"首都是北京"
    ]


def test_a_stored_tokenizer_is_loaded_as_it_was(tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer_trained.save_pretrained(tmp_path)
    # The configuration of a Llama beside it must not make another tokenizer of it.
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    loaded = load_tokenizer(tmp_path)
    messages = [{"role": "user", "content": "你好 hello  😀\n"}, {"role": "assistant", "content": " fine"}]
    assert render(loaded, messages) == render(tokenizer_trained, messages)
    assert loaded.chat_template == tokenizer_trained.chat_template
    assert loaded.special_tokens_map == tokenizer_trained.special_tokens_map
    assert loaded("hello")["input_ids"] == tokenizer_trained("hello")["input_ids"]


def test_a_vocabulary_too_small_for_bytes_is_refused_with_the_smallest() -> None:
    with pytest.raises(JobFailure, match=f"vocabSize is 200; .* needs at least {SMALLEST_VOCABULARY}") as caught:
        train_tokenizer(TEXTS, 200)
    assert caught.value.reason is FailureReason.CONFIG_INVALID


def test_no_text_to_train_on_is_said() -> None:
    with pytest.raises(JobFailure, match="no text to train a tokenizer on") as caught:
        train_tokenizer(["", ""], 400)
    assert caught.value.reason is FailureReason.DATA_EMPTY


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="has no tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.reason is FailureReason.MODEL_NOT_FOUND


def test_a_damaged_tokenizer_is_refused(tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer_trained.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(JobFailure, match="cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert caught.value.reason is FailureReason.MODEL_INVALID


def test_pad_is_never_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer.pad_token = tokenizer.eos_token
    assert ensure_pad_token(tokenizer) is False  # an entry made for padding was there
    assert tokenizer.pad_token == "<|pad|>"
    assert ensure_pad_token(tokenizer) is False


def test_a_pad_token_is_added_where_there_is_none(sentencepiece_like: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    sentencepiece_like.save_pretrained(tmp_path)
    own = load_tokenizer(tmp_path)
    size = len(own)
    assert ensure_pad_token(own) is True
    assert (own.pad_token_id, len(own)) == (size, size + 1)
    assert own.pad_token_id != own.eos_token_id
