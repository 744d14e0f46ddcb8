"""A written file must be llama.cpp's equal of the folder: the same tokens of text, the same greedy answer."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from alidade_crds.blocks import ModelInit
from alidade_engine.failures import JobFailure
from alidade_engine.gguf.quantization import QUANTIZATION_TYPES
from alidade_engine.gguf.writing import write_gguf
from alidade_engine.models import init_model
from tests.engine.gguf.running import LlamaCpp

TEXTS = [
    "hello there, how are you?",
    "中国的首都是哪里？  two  spaces\n\nand lines\t1234",
    "What's 12345 in 😀 é?",
    "  leading",
]


def save(folder: Path, tokenizer: PreTrainedTokenizerFast, **changes: Any) -> PreTrainedModel:
    """A Llama whose weights are wide enough that the likeliest token is so by more than rounding."""
    torch.manual_seed(0)
    init = ModelInit(hidden_size=64, layers=2, heads=4, kv_heads=2, vocab_size=420, context_length=256)
    model = init_model(init, tokenizer)
    for name, value in changes.items():
        setattr(model.config, name, value)
    model = type(model)(model.config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def greedy(model: PreTrainedModel, ids: list[int], tokens: int) -> list[int]:
    answer = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, len(ids)), max_new_tokens=tokens, do_sample=False
    )
    return answer[0, len(ids) :].tolist()  # type: ignore[no-any-return]


@pytest.fixture
def closed(sentencepiece_like: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The sentencepiece-like tokenizer with every merge listed, as what is converted from sentencepiece has them."""
    document = json.loads(sentencepiece_like.backend_tokenizer.to_str())
    vocab, merges = document["model"]["vocab"], document["model"]["merges"]
    document["model"]["merges"] = [
        [text[:cut], text[cut:]]
        for text in dict.fromkeys("".join(pair) for pair in merges)
        for cut in range(1, len(text))
        if text[:cut] in vocab and text[cut:] in vocab
    ]
    backend = type(sentencepiece_like.backend_tokenizer).from_str(json.dumps(document))
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return made


@pytest.fixture(params=["byte-level", "sentencepiece"])
def any_tokenizer(request: pytest.FixtureRequest, tokenizer_trained: Any, closed: Any) -> PreTrainedTokenizerFast:
    chosen: PreTrainedTokenizerFast = tokenizer_trained if request.param == "byte-level" else closed
    return chosen


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Any]:
    started: list[LlamaCpp] = []

    def start(path: Path) -> LlamaCpp:
        started.append(LlamaCpp(path))
        return started[-1]

    yield start
    for server in started:
        server.close()


def test_llama_cpp_splits_text_and_answers_as_transformers_do(
    any_tokenizer: PreTrainedTokenizerFast, tmp_path: Path, running: Any
) -> None:
    model = save(tmp_path / "model", any_tokenizer)
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    server = running(tmp_path / "model.gguf")
    for text in TEXTS:
        ids = any_tokenizer(text)["input_ids"]
        assert server.tokenize(text) == ids
        assert server.greedy(ids, 24) == greedy(model, ids, 24)


def test_the_tokenizer_itself_is_in_the_file(any_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    save(tmp_path / "model", any_tokenizer)
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f16")
    field = GGUFReader(tmp_path / "model.gguf").get_field("tokenizer.huggingface.json")
    assert field is not None
    stored = Tokenizer.from_str(field.contents())
    assert [stored.encode(text).ids for text in TEXTS] == [any_tokenizer(text)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize(
    "rotation",
    [
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0},
        {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 64},
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "rope_theta": 10000.0,
            "original_max_position_embeddings": 64,
        },
    ],
    ids=lambda rotation: rotation["rope_type"],
)
def test_scaled_positions_are_scaled_alike(
    rotation: dict[str, Any], tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path, running: Any
) -> None:
    model = save(tmp_path / "model", tokenizer_trained, rope_parameters=rotation)
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    ids = tokenizer_trained(" ".join(TEXTS))["input_ids"]
    assert running(tmp_path / "model.gguf").greedy(ids, 16) == greedy(model, ids, 16)


def test_biases_and_a_head_of_its_own_are_written(
    tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path, running: Any
) -> None:
    changes = {"attention_bias": True, "tie_word_embeddings": False, "head_dim": 32}
    model = save(tmp_path / "model", tokenizer_trained, **changes)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_()
    model.save_pretrained(tmp_path / "model")
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    ids = tokenizer_trained(TEXTS[0])["input_ids"]
    assert running(tmp_path / "model.gguf").greedy(ids, 16) == greedy(model, ids, 16)


def test_an_answer_ends_at_the_end_token(
    tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path, running: Any
) -> None:
    """The token that the greedy answer has third is named as an end of answers: it ends there."""
    model = save(tmp_path / "model", tokenizer_trained)
    ids = tokenizer_trained(TEXTS[0])["input_ids"]
    answer = greedy(model, ids, 8)
    ends = {"eos_token_id": [tokenizer_trained.eos_token_id, answer[2]]}
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(ends))
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", "f32")
    tokens, why = running(tmp_path / "model.gguf").answer(ids, 8)
    assert tokens[:2] == answer[:2]
    assert (len(tokens), why) == (3, "eos")


def test_the_same_model_gives_the_same_bytes_wherever_it_lies(
    tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save(tmp_path / "model", tokenizer_trained)
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    first = write_gguf(tmp_path / "model", tmp_path / "a.gguf", "q4_k_m")
    second = write_gguf(tmp_path / "copy", tmp_path / "below" / "b.gguf", "q4_k_m")
    content = (tmp_path / "a.gguf").read_bytes()
    assert content == (tmp_path / "below" / "b.gguf").read_bytes()
    assert first.sha256 == second.sha256 == hashlib.sha256(content).hexdigest()
    assert first.size_bytes == len(content)


@pytest.mark.parametrize("quantization", QUANTIZATION_TYPES)
def test_llama_cpp_reads_every_type(
    quantization: str, tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path, running: Any
) -> None:
    save(tmp_path / "model", tokenizer_trained)
    write_gguf(tmp_path / "model", tmp_path / "model.gguf", quantization)
    assert len(running(tmp_path / "model.gguf").greedy([1, 50, 60], 4)) == 4


def test_tokens_that_llama_cpp_would_join_differently_are_refused(
    sentencepiece_like: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save(tmp_path / "model", sentencepiece_like)
    with pytest.raises(JobFailure, match="that merge is not listed"):
        write_gguf(tmp_path / "model", tmp_path / "model.gguf")


def test_nothing_is_left_of_a_file_that_could_not_be_written(
    tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = save(tmp_path / "model", tokenizer_trained)
    with torch.no_grad():
        model.get_input_embeddings().weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "out").mkdir()
    with pytest.raises(JobFailure, match=r"model\.embed_tokens\.weight holds numbers that are not finite"):
        write_gguf(tmp_path / "model", tmp_path / "out" / "model.gguf", "q8_0")
    assert list((tmp_path / "out").iterdir()) == []


def refuse_type(folder: Path) -> str:
    return "q1_tiny"


def refuse_architecture(folder: Path) -> None:
    change_config(folder, architectures=["BloomForCausalLM"])


def refuse_window(folder: Path) -> None:
    change_config(folder, architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=32)


def refuse_scaling(folder: Path) -> None:
    change_config(folder, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})


def change_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (refuse_type, r"quantization\.type is 'q1_tiny'; write one of f32, f16, q8_0"),
        (refuse_architecture, "holds a BloomForCausalLM; only LlamaForCausalLM and MistralForCausalLM"),
        (refuse_window, r"sets sliding_window to 32.* max_position_embeddings to 32\."),
        (refuse_scaling, r"scales positions by 'dynamic'; GGUF has linear, yarn and llama3"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_way_out(
    change: Any, message: str, tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    save(tmp_path / "model", tokenizer_trained)
    quantization = change(tmp_path / "model") or "f16"
    with pytest.raises(JobFailure, match=message):
        write_gguf(tmp_path / "model", tmp_path / "model.gguf", quantization)
