"""Tiny tokenizers and a tiny model, made anew: nothing is fetched."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from alidade_crds.blocks import ModelInit
from alidade_engine.models import init_model
from alidade_engine.sources import Locations
from alidade_engine.tokenization import train_tokenizer

CORPUS = [
    "What is the capital of France? Paris is the capital of France.",
    "中国的首都是哪里？中国的首都是北京。",
    "Below is an instruction that describes a task. Write a response.",
    "hello there, how are you?\n\nfine, thank you 😀",
    "[INST] <<SYS>> ### Instruction: ### Response:",
] * 5


@pytest.fixture(scope="session")
def tokenizer_trained() -> PreTrainedTokenizerFast:
    return train_tokenizer(CORPUS, 420)


@pytest.fixture
def tokenizer(tokenizer_trained: PreTrainedTokenizerFast, tmp_path: Path) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of the test's own, which it may change."""
    tokenizer_trained.save_pretrained(tmp_path / "tokenizer")
    copy: PreTrainedTokenizerFast = PreTrainedTokenizerFast.from_pretrained(tmp_path / "tokenizer")
    return copy


@pytest.fixture(scope="session")
def sentencepiece_like() -> PreTrainedTokenizerFast:
    """A tokenizer that puts a space in front of every text and writes what it lacks in bytes, as Llama 2's does."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    trained.train_from_iterator([text.replace("\n", " ") for text in CORPUS], trainer)
    model = json.loads(trained.to_str())["model"]
    pieces = [*model["vocab"], *(f"<0x{byte:02X}>" for byte in range(256))]
    merges = [tuple(pair) for pair in model["merges"]]
    numbered = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(numbered, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = trained.normalizer
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
    )


@pytest.fixture(scope="session")
def model(tokenizer_trained: PreTrainedTokenizerFast) -> PreTrainedModel:
    torch.manual_seed(0)
    init = ModelInit(hidden_size=32, layers=2, heads=4, kv_heads=2, vocab_size=420, context_length=128)
    made = init_model(init, tokenizer_trained)
    # Wider weights than a fresh model's, so that the next tokens differ in likelihood by more than rounding.
    with torch.no_grad():
        for weight in made.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    return made.eval()


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    """Volumes with one claim, `data`, and a scratch folder."""
    for name in ("volumes/data", "scratch"):
        (tmp_path / name).mkdir(parents=True)
    return Locations(tmp_path / "volumes", tmp_path / "scratch")
