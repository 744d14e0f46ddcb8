"""What is shown of a dataset is what a job would train on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alidade_crds.contract import JobDocument
from alidade_crds.preview import PreviewRecord, PreviewRequest
from alidade_engine.sources import Locations
from alidade_trainer.data.dataset import prepare
from alidade_trainer.data.preview import preview
from alidade_trainer.data.preview_tokens import pieces_of
from alidade_trainer.data.sequences import NO_LOSS
from alidade_trainer.failures import JobFailure

Job = Callable[..., JobDocument]
Write = Callable[[str, Any], Path]
PAIRS = [
    {"input": "中国的首都是哪里？", "output": "北京"},
    {"input": "What?", "output": ""},
    {"input": "a", "output": "b"},
]


@pytest.fixture
def base(tokenizer: PreTrainedTokenizerFast, locations: Locations) -> None:
    """A folder at pvc://models/base with a tokenizer and a configuration, and no weights."""
    folder = locations.volumes / "models" / "base"
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes).save_pretrained(folder)


def ids_of(record: PreviewRecord) -> list[int]:
    return [token for piece in record.pieces for token in piece.ids]


def labels_of(record: PreviewRecord) -> list[int]:
    return [token if piece.learned else NO_LOSS for piece in record.pieces for token in piece.ids]


def test_tokens_and_masks_are_those_that_are_trained_on(
    job: Job, write: Write, tokenizer: PreTrainedTokenizerFast, locations: Locations, base: None
) -> None:
    write("train.json", PAIRS)
    described = job("train.json", packing=False, maxLength=64)
    answer = preview(PreviewRequest(job=described), locations)
    prepared = prepare(described, tokenizer, locations, context_length=64, model_type="llama")
    trained = {
        tuple(item["input_ids"].tolist()): item["labels"].tolist() for item in map(prepared.train.__getitem__, (0, 1))
    }
    first, second, third = answer.shown
    for record in (first, third):
        assert labels_of(record) == trained[tuple(ids_of(record))]
    assert first.place == "train.json, instance 1"
    assert [piece.text for piece in first.pieces if piece.learned] == ["北", "京", "<|im_end|>"]
    assert (first.fault, second.fault) == ("", "no turn of the assistant with text in it")
    assert answer.data == prepared.report
    assert answer.failure == ""


def test_a_part_of_the_records_is_shown_and_counted(job: Job, write: Write, locations: Locations, base: None) -> None:
    write("train.json", [{"input": f"q{number}", "output": "a"} for number in range(9)])
    answer = preview(PreviewRequest(job=job("train.json"), first=3, records=2, limit=4), locations)
    assert [record.place for record in answer.shown] == ["train.json, instance 3", "train.json, instance 4"]
    assert answer.data is not None
    assert answer.data["sources"][0]["records"] == 4


def test_every_text_is_learned_in_pretraining(job: Job, write: Write, locations: Locations, base: None) -> None:
    write("corpus.json", [{"text": "question answer"}])
    answer = preview(PreviewRequest(job=job("corpus.json", stage="pretrain")), locations)
    (record,) = answer.shown
    # Before the first token stands nothing to predict it from.
    assert [piece.learned for piece in record.pieces] == [False] + [True] * (len(record.pieces) - 1)


def test_answers_of_a_preference_are_shown_apart(job: Job, write: Write, locations: Locations, base: None) -> None:
    write("pairs.jsonl", '{"prompt": "q", "chosen": "good", "rejected": "bad"}')
    described = job("pairs.jsonl", stage="reward", maxLength=64)
    answer = preview(PreviewRequest(job=described), locations)
    said = ["".join(piece.text for piece in record.pieces if piece.learned) for record in answer.shown]
    assert said == ["good<|im_end|>", "bad<|im_end|>"]
    assert answer.data is not None
    assert answer.data["sources"][0]["kept"] == 1


def test_without_a_model_turns_are_shown(job: Job, write: Write, locations: Locations) -> None:
    write("train.json", PAIRS[:1])
    described = job("train.json").model_copy(update={"model": job("train.json").model.model_copy(update={"uri": None})})
    answer = preview(PreviewRequest(job=described), locations)
    assert [(piece.text, piece.learned) for piece in answer.shown[0].pieces] == [
        ("user: 中国的首都是哪里？", False),
        ("assistant: 北京", True),
    ]
    assert answer.data is None


def test_what_would_fail_is_said_beside_the_records_that_can_be_shown(
    job: Job, write: Write, locations: Locations, base: None
) -> None:
    write("train.jsonl", '{"input": "a", "output": "b"}\n{"input": "a"')
    answer = preview(PreviewRequest(job=job("train.jsonl"), records=1), locations)
    assert len(answer.shown) == 1
    assert answer.failure.startswith("dataset.uri: train.jsonl, line 2, column 14: not JSON")
    assert answer.data is None
    with pytest.raises(JobFailure, match=r"train.jsonl, line 2"):
        preview(PreviewRequest(job=job("train.jsonl"), records=2), locations)
    template = "{% if messages[0].content == 'a' %}{{ raise_exception('not a') }}{% endif %}"
    (record,) = preview(PreviewRequest(job=job("train.jsonl", template=template), records=1), locations).shown
    assert record.pieces[0].text == "[dataset.template cannot render train.jsonl, line 1: not a]"


@pytest.fixture(scope="module")
def llama_tokenizer() -> LlamaTokenizer:
    """Sentencepiece's kind: a space before the first word, and bytes for characters that are no piece."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "中", "▁a", "ab"]
    vocab = {piece: number for number, piece in enumerate(pieces)}
    return LlamaTokenizer(vocab=vocab, merges=[("▁", "a"), ("a", "b")])


@pytest.mark.parametrize("name", ["tokenizer_trained", "llama_tokenizer"])
@given(text=st.text(alphabet="ab 中国é🙂\n", max_size=30), data=st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])  # reads only
def test_pieces_are_all_tokens_and_the_whole_text(
    request: pytest.FixtureRequest, name: str, text: str, data: st.DataObject
) -> None:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(name)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    learned = data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    pieces = list(pieces_of(tokenizer, ids, learned))
    assert [token for piece in pieces for token in piece.ids] == ids
    ends = [sum(len(piece.ids) for piece in pieces[: number + 1]) for number in range(len(pieces))]
    assert [piece.learned for piece in pieces] == [end > 1 and learned[end - 1] for end in ends]
    joined = "".join(piece.text for piece in pieces)
    assert joined == tokenizer.decode(ids)
    assert joined.strip(" ") == text.strip(" ")  # sentencepiece's kind forgets spaces at the beginning
    assert all("\ufffd" not in piece.text for piece in pieces)


def test_the_work_grows_with_the_tokens_and_not_with_their_square(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "What is 中国 é🙂 the capital\n" * 2200
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) > 32_000
    decoded, decode = [0], tokenizer.decode

    def counted(some: list[int], **options: Any) -> str:
        decoded[0] += len(some)
        return decode(some, **options)

    monkeypatch.setattr(tokenizer, "decode", counted)
    assert "".join(piece.text for piece in pieces_of(tokenizer, ids, [True] * len(ids))) == text
    # Each token twice, with and as the piece before, and those of a character again with every byte.
    assert decoded[0] < 6 * len(ids)
