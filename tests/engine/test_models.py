"""Models: made, stored, loaded; every way in which a folder is not a model has its sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from alidade_crds.blocks import ModelInit
from alidade_crds.reasons import FailureReason
from alidade_engine.digests import model_digest
from alidade_engine.failures import JobFailure
from alidade_engine.models import check_sizes, ensure_pad_token, init_model, load_config, load_model


@pytest.fixture
def folder(model: PreTrainedModel, tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    model.save_pretrained(path)
    tokenizer_trained.save_pretrained(path)
    return path


def test_a_new_model_is_what_its_fields_say(tokenizer_trained: PreTrainedTokenizerFast) -> None:
    init = ModelInit(hidden_size=48, layers=3, heads=4, kv_heads=2, vocab_size=420, context_length=64)
    config = init_model(init, tokenizer_trained).config
    assert (config.hidden_size, config.num_hidden_layers, config.num_key_value_heads) == (48, 3, 2)
    assert config.intermediate_size == 128
    assert config.vocab_size == len(tokenizer_trained)
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (
        tokenizer_trained.bos_token_id,
        tokenizer_trained.eos_token_id,
        tokenizer_trained.pad_token_id,
    )


def test_the_feed_forward_width_is_rounded_up_to_a_multiple_of_8(tokenizer_trained: PreTrainedTokenizerFast) -> None:
    init = ModelInit(hidden_size=64, layers=1, heads=4, vocab_size=420)
    assert init_model(init, tokenizer_trained).config.intermediate_size == 176  # 170.67


def test_a_stored_model_is_loaded_as_it_was(folder: Path, model: PreTrainedModel) -> None:
    loaded = load_model(folder)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight)
    assert load_model(folder, dtype=torch.bfloat16).dtype is torch.bfloat16
    assert load_config(folder).model_type == "llama"


def without_config(path: Path) -> Path:
    (path / "config.json").unlink()
    return path


def with_pickles_only(path: Path) -> Path:
    torch.save({}, path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    return path


def without_weights(path: Path) -> Path:
    (path / "model.safetensors").unlink()
    return path


def cut_short(path: Path) -> Path:
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    return path


def without_a_shard(path: Path) -> Path:
    index = {"metadata": {}, "weight_map": {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    return path


def with_broken_index(path: Path) -> Path:
    (path / "model.safetensors.index.json").write_text("{")
    return path


def with_more_layers(path: Path) -> Path:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    return path


def with_wider_vocabulary(path: Path) -> Path:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 8}))
    return path


def with_broken_config(path: Path) -> Path:
    (path / "config.json").write_text("{")
    return path


def with_unknown_architecture(path: Path) -> Path:
    (path / "config.json").write_text('{"model_type": "abacus"}')
    return path


def with_own_code(path: Path) -> Path:
    code = {"model_type": "abacus", "auto_map": {"AutoConfig": "abacus.AbacusConfig"}}
    (path / "config.json").write_text(json.dumps(code))
    (path / "abacus.py").write_text("raise SystemExit('this ran')")
    return path


def adapter_alone(path: Path) -> Path:
    (path / "config.json").unlink()
    (path / "adapter_config.json").write_text("{}")
    return path


def missing(path: Path) -> Path:
    return path / "absent"


def a_file(path: Path) -> Path:
    return path / "config.json"


@pytest.mark.parametrize(
    ("damage", "reason", "message"),
    [
        (missing, FailureReason.MODEL_NOT_FOUND, "does not exist; check model.uri"),
        (a_file, FailureReason.MODEL_NOT_FOUND, "is a file; model.uri names the folder that holds config.json"),
        (without_config, FailureReason.MODEL_NOT_FOUND, r"has no config.json \(it holds .*model.safetensors"),
        (adapter_alone, FailureReason.MODEL_INVALID, "holds a LoRA adapter without its base model; merge the two"),
        (with_broken_config, FailureReason.MODEL_INVALID, "config.json in .* cannot be used"),
        (with_unknown_architecture, FailureReason.MODEL_INVALID, "config.json in .* cannot be used.*abacus"),
        (with_own_code, FailureReason.MODEL_UNSAFE, "brings code of its own; read it, then set model.trustRemoteCode"),
        (with_pickles_only, FailureReason.MODEL_UNSAFE, r"only as pickles \(pytorch_model.bin\).*save_pretrained"),
        (without_weights, FailureReason.MODEL_NOT_FOUND, r"has no weights \(\*.safetensors\)"),
        (cut_short, FailureReason.MODEL_INVALID, "model.safetensors is damaged or incomplete .*; copy it again"),
        (
            without_a_shard,
            FailureReason.MODEL_INVALID,
            "lacks 1 of the 2 files its index names, such as model-00002-of",
        ),
        (with_broken_index, FailureReason.MODEL_INVALID, "model.safetensors.index.json is damaged"),
        (with_more_layers, FailureReason.MODEL_INVALID, "lacks 9 of its weights, such as model.layers.2"),
        (with_wider_vocabulary, FailureReason.MODEL_INVALID, "cannot be loaded"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_what_is_no_model_is_refused_with_what_to_do(
    folder: Path, damage: Callable[[Path], Path], reason: FailureReason, message: str
) -> None:
    with pytest.raises(JobFailure, match=message) as caught:
        load_model(damage(folder))
    assert caught.value.reason is reason
    assert "\n" not in caught.value.message


def test_a_pad_token_gets_an_embedding_only_when_there_is_none_to_spare(
    folder: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    loaded = load_model(folder)
    rows = loaded.get_input_embeddings().weight.shape[0]
    ensure_pad_token(tokenizer, loaded)
    assert loaded.get_input_embeddings().weight.shape[0] == rows
    tokenizer.add_special_tokens({"pad_token": "<|new|>"})
    ensure_pad_token(tokenizer, loaded)
    assert loaded.get_input_embeddings().weight.shape[0] == rows + 1
    assert loaded.config.pad_token_id == loaded.generation_config.pad_token_id == tokenizer.pad_token_id


def test_the_digest_is_of_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b" / "c.txt").write_text("y")
    # What `sha256sum a.txt b/c.txt | sha256sum` prints.
    first = model_digest(tmp_path)
    assert first == "sha256:85456c99cb0b9d28a2e5ff41a8b825d5c75355c0f41f07a6719b4795a2f0d400"
    (tmp_path / "README.md").write_text("speaks about it")
    assert model_digest(tmp_path) == first
    (tmp_path / "a.txt").rename(tmp_path / "d.txt")
    assert model_digest(tmp_path) != first
    (tmp_path / "d.txt").rename(tmp_path / "a.txt")
    assert model_digest(tmp_path) == first
    (tmp_path / "a.txt").write_text("z")
    assert model_digest(tmp_path) != first


def test_a_tokenizer_with_entries_beyond_the_embedding_is_refused(
    tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel
) -> None:
    check_sizes(tokenizer, model.config, Path("model"))
    tokenizer.add_special_tokens({"pad_token": "<|new pad|>"})
    check_sizes(tokenizer, model.config, Path("model"))  # a pad token gets its row later
    tokenizer.add_tokens(["zwei", "drei"])

    with pytest.raises(JobFailure, match=r"model's embedding \d+ rows: 2 entries, such as 'zwei', have none"):
        check_sizes(tokenizer, model.config, Path("model"))


def test_a_new_model_in_bf16_turns_by_exact_frequencies(tokenizer_trained: PreTrainedTokenizerFast) -> None:
    init = ModelInit(hidden_size=64, layers=1, heads=2, vocab_size=420)

    exact, half = (init_model(init, tokenizer_trained, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))

    assert half.dtype == torch.bfloat16
    assert torch.equal(half.model.rotary_emb.inv_freq, exact.model.rotary_emb.inv_freq)
