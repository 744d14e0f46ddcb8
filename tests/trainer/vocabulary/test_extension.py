"""A tokenizer with more pieces: nothing lost, nothing doubled, every piece reached, every text read back."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from alidade_crds.blocks import VocabularySource
from alidade_engine.failures import JobFailure
from alidade_engine.sources import Locations
from alidade_trainer.vocabulary.extension import extend_tokenizer
from tests.trainer.vocabulary.conftest import CHINESE, ENGLISH, TEXTS, train_sentencepiece, write_tokenizer

KINDS = ("gpt2_like", "llama3_like", "llama2_like")
LEARNED = VocabularySource(train_on_dataset=True, size=60)


@pytest.fixture(params=KINDS)
def base(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    tokenizer: PreTrainedTokenizerBase = request.getfixturevalue(request.param)
    return tokenizer


def given(folder: Path, name: str = "pieces.model") -> VocabularySource:
    return VocabularySource(uri=f"file://{folder}/{name}")


def ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_pieces_learned_on_the_dataset_shorten_it_and_change_nothing_else(
    base: PreTrainedTokenizerBase, locations: Locations
) -> None:
    longer, report = extend_tokenizer(base, LEARNED, lambda: TEXTS, locations)

    assert len(longer) == len(base) + 60 == report["entries"]
    assert base.get_vocab().items() <= longer.get_vocab().items()
    assert sorted(longer.get_vocab().values()) == list(range(len(longer)))
    assert all(longer.decode(ids(longer, text)) == text for text in TEXTS)
    assert report["exact_after"] == report["exact_before"] == report["texts"] == len(TEXTS)
    counted = {name: sum(len(ids(one, text)) for text in TEXTS) for name, one in (("old", base), ("new", longer))}
    assert (report["tokens_before"], report["tokens_after"]) == (counted["old"], counted["new"])
    assert counted["new"] < 0.5 * counted["old"]
    assert report["characters"] == sum(map(len, TEXTS))


def test_the_same_texts_give_the_same_pieces(gpt2_like: PreTrainedTokenizerBase, locations: Locations) -> None:
    one, other = (extend_tokenizer(gpt2_like, LEARNED, lambda: TEXTS, locations)[0] for _ in range(2))

    # A job that is resumed learns them again.
    assert one.backend_tokenizer.to_str() == other.backend_tokenizer.to_str()


def test_a_text_without_new_pieces_keeps_its_tokens(base: PreTrainedTokenizerBase, locations: Locations) -> None:
    longer, _ = extend_tokenizer(base, LEARNED, lambda: CHINESE, locations)

    for text in ENGLISH:
        assert ids(longer, text) == ids(base, text)
    assert longer(ENGLISH[0])["input_ids"] == base(ENGLISH[0])["input_ids"], "what is put around a text stays, too"


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_every_piece_of_a_sentencepiece_model_becomes_one_token(
    base: PreTrainedTokenizerBase, kind: str, locations: Locations, tmp_path: Path
) -> None:
    import sentencepiece

    path = train_sentencepiece(tmp_path, CHINESE, kind=kind, size=90)

    longer, report = extend_tokenizer(base, given(tmp_path), lambda: TEXTS, locations)

    processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
    pieces = [processor.id_to_piece(one) for one in range(processor.get_piece_size()) if not processor.is_control(one)]
    texts = [piece.replace("▁", " ") for piece in pieces if piece != "<unk>"]
    whole = [text for text in texts if len(longer.backend_tokenizer.model.tokenize(written(longer, text))) == 1]
    assert report["pieces"] + report["known"] + report["left_out"] == len(texts)
    assert len(whole) == len(texts) - report["left_out"]
    assert (
        len(set(longer.get_vocab().values()))
        == len(longer.get_vocab())
        == len(base) + report["pieces"] + report["joints"]
    )
    assert report["digest"].startswith("sha256:")
    # Splitting of GPT-2's kind parts letters from punctuation, which sentencepiece may join with a space before.
    assert report["left_out"] <= 3


def written(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """A text in the letters of a tokenizer's entries."""
    if json.loads(tokenizer.backend_tokenizer.to_str())["model"]["byte_fallback"]:
        return text.replace(" ", "▁")
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return "".join(bytes_to_unicode()[byte] for byte in text.encode())


def test_another_tokenizer_of_byte_level_kind_is_added(
    base: PreTrainedTokenizerBase, locations: Locations, tmp_path: Path
) -> None:
    from alidade_engine.tokenization import train_tokenizer

    train_tokenizer(CHINESE, 330).save_pretrained(tmp_path / "other")

    longer, report = extend_tokenizer(base, given(tmp_path, "other"), lambda: TEXTS, locations)

    assert len(ids(longer, "法国")) < len(ids(base, "法国"))
    assert report["exact_after"] == len(TEXTS)
    assert "<|im_start|>" not in set(longer.get_vocab()) - set(base.get_vocab()), "its control tokens are its own"


def test_the_longer_tokenizer_is_read_back_as_it_was_written(
    base: PreTrainedTokenizerBase, locations: Locations, tmp_path: Path
) -> None:
    longer, _ = extend_tokenizer(base, LEARNED, lambda: TEXTS, locations)
    longer.save_pretrained(tmp_path / "saved")

    again = AutoTokenizer.from_pretrained(tmp_path / "saved")

    assert all(again(text)["input_ids"] == longer(text)["input_ids"] for text in TEXTS)
    assert again.add_special_tokens({"additional_special_tokens": ["<|later|>"]}) == 1
    assert again.convert_tokens_to_ids("<|later|>") == len(longer), "a token added later takes nobody's place"


def test_size_is_the_most_entries_that_are_added(
    base: PreTrainedTokenizerBase, locations: Locations, tmp_path: Path
) -> None:
    train_sentencepiece(tmp_path, CHINESE, kind="bpe", size=90)
    source = given(tmp_path).model_copy(update={"size": 20})

    longer, report = extend_tokenizer(base, source, lambda: TEXTS, locations)

    assert len(base) + 17 <= len(longer) <= len(base) + 20
    assert report["over"] > 0
    assert any("has no room" in warning for warning in report["warnings"])


def test_a_piece_written_like_a_control_token_is_refused_by_name(
    gpt2_like: PreTrainedTokenizerBase, locations: Locations, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path / "tokenizer.json", ["▁mill", "<|im_end|>", "法国"])

    with pytest.raises(JobFailure, match=r"1 clash with tokens .*: '<\|im_end\|>'\. Take them out"):
        extend_tokenizer(gpt2_like, given(tmp_path, "tokenizer.json"), lambda: TEXTS, locations)


def test_pieces_that_the_base_would_split_are_left_out_by_name(
    gpt2_like: PreTrainedTokenizerBase, locations: Locations, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path / "tokenizer.json", ["法国", "国？", "法▁国"])

    longer, report = extend_tokenizer(gpt2_like, given(tmp_path, "tokenizer.json"), lambda: TEXTS, locations)

    assert report["left_out"] == 2
    assert report["warnings"][0].endswith("splits them: '国？', '法 国'.")
    assert len(ids(longer, "法国")) == 1


def test_a_joint_leads_to_a_piece_that_no_pair_of_tokens_makes(
    llama2_like: PreTrainedTokenizerBase, locations: Locations, tmp_path: Path
) -> None:
    write_tokenizer(tmp_path / "tokenizer.json", ["法国的"])

    longer, report = extend_tokenizer(llama2_like, given(tmp_path, "tokenizer.json"), lambda: TEXTS, locations)

    new = sorted(set(longer.get_vocab()) - set(llama2_like.get_vocab()))
    assert new == sorted(["法", "国", "的", "法国", "法国的"])
    assert (report["pieces"], report["joints"]) == (1, 4)


def test_nothing_new_is_refused(llama2_like: PreTrainedTokenizerBase, locations: Locations, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer.json", ["▁the"])

    with pytest.raises(JobFailure, match=r"vocabulary adds nothing: of 1 pieces .* 1 are entries"):
        extend_tokenizer(llama2_like, given(tmp_path, "tokenizer.json"), lambda: TEXTS, locations)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("pieces.model", b"not a model", "sentencepiece cannot read it"),
        ("tokenizer.json", b"{}", "it is not a tokenizer.json"),
        ("tokenizer.json", b'{"model": {"type": "WordPiece"}}', "its kind is WordPiece"),
        ("", b"", "it is a folder without tokenizer.json"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_refused(
    gpt2_like: PreTrainedTokenizerBase, locations: Locations, tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    if name:
        (folder / name).write_bytes(content)

    with pytest.raises(JobFailure, match=why) as caught:
        extend_tokenizer(gpt2_like, given(folder, name), lambda: TEXTS, locations)
    assert caught.value.reason == "VocabularyInvalid"


def test_an_absent_vocabulary_is_told_with_what_is_there(
    gpt2_like: PreTrainedTokenizerBase, locations: Locations
) -> None:
    with pytest.raises(
        JobFailure, match=r"vocabulary\.extendWith\.uri is pvc://data/none\.model, which does not exist"
    ):
        extend_tokenizer(gpt2_like, VocabularySource(uri="pvc://data/none.model"), lambda: TEXTS, locations)


def test_tokenizers_of_other_kinds_are_refused(locations: Locations) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    )

    with pytest.raises(JobFailure, match="is of kind WordLevel; extended are byte-level BPE"):
        extend_tokenizer(words, LEARNED, lambda: TEXTS, locations)
