"""Tiny tokenizers and a tiny model, made anew: nothing is fetched."""

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from alidade_crds.blocks import ModelInit
from alidade_engine.models import init_model
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
    """A tokenizer that puts a space in front of every text, with pieces that run over word ends, as Llama 2's does."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special[:3], show_progress=False)
    backend.train_from_iterator([text.replace("\n", " ") for text in CORPUS], trainer)
    backend.add_tokens(special[3:])
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
