"""Tokenizers of both kinds, small, and a vocabulary that sentencepiece itself has made."""

import json
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alidade_engine.sources import Locations
from alidade_engine.tokenization import train_tokenizer

ENGLISH = ["The river runs past the old mill.", "Who owns the old mill by the river?", "Nobody owns the mill."] * 8
CHINESE = [
    f"{city}的首都{word}在哪里？{city}的首都{word}在河边。"
    for city in ("法国", "德国", "西班牙")
    for word in ("旧城", "新城", "老磨坊")
] * 4
TEXTS = [*CHINESE, *ENGLISH, "emoji 😀 and \n\n spaces   kept"]


@pytest.fixture(scope="session")
def gpt2_like() -> PreTrainedTokenizerBase:
    """Byte-level, with a few merges of English, its control tokens the first entries."""
    return train_tokenizer(ENGLISH, 320)


@pytest.fixture(scope="session")
def llama3_like() -> PreTrainedTokenizerBase:
    """Byte-level with a splitting expression, words taken whole where they are entries, control tokens behind all."""
    backend = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(ENGLISH, trainer)
    backend.add_special_tokens([AddedToken(name) for name in ("<|begin|>", "<|end|>", "<|spare|>")])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|begin|>", eos_token="<|end|>")


@pytest.fixture(scope="session")
def llama2_like(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    """Sentencepiece's kind with bytes for what it lacks, as transformers makes one of a sentencepiece model."""
    path = train_sentencepiece(tmp_path_factory.mktemp("base"), ENGLISH, kind="bpe", size=320, byte_fallback=True)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    vocab = {processor.id_to_piece(number): number for number in range(processor.get_piece_size())}
    merges = [
        (piece[:at], piece[at:])
        for piece, number in vocab.items()
        if not (processor.is_byte(number) or processor.is_control(number) or processor.is_unknown(number))
        for at in range(1, len(piece))
        if piece[:at] in vocab and piece[at:] in vocab
    ]
    return LlamaTokenizer(vocab=vocab, merges=merges)


def train_sentencepiece(folder: Path, texts: list[str], *, kind: str, size: int, byte_fallback: bool = False) -> Path:
    """A sentencepiece model of the library's own trainer."""
    (folder / "texts.txt").write_text("\n".join(text.replace("\n", " ") for text in texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "texts.txt"),
        model_prefix=str(folder / "pieces"),
        model_type=kind,
        vocab_size=size,
        byte_fallback=byte_fallback,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return folder / "pieces.model"


@pytest.fixture
def locations(tmp_path: Path) -> Locations:
    """Volumes with one claim, `data`."""
    (tmp_path / "volumes" / "data").mkdir(parents=True)
    return Locations(tmp_path / "volumes", tmp_path / "scratch")


def write_tokenizer(path: Path, entries: list[str]) -> None:
    """A sentencepiece-like tokenizer.json of Unigram kind with the entries named, the likeliest first."""
    scored = [("<unk>", 0.0), *((entry, -1.0 - number) for number, entry in enumerate(entries))]
    Tokenizer(models.Unigram(scored, unk_id=0)).save(str(path))
    assert json.loads(path.read_text())["model"]["type"] == "Unigram"
