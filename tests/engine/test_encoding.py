"""Text as tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from alidade_engine.encoding import control_tokens, encode_pieces, encode_texts, shield


def test_documents_stand_between_bos_and_eos_where_the_tokenizer_has_them(
    tokenizer: PreTrainedTokenizerFast, sentencepiece_like: PreTrainedTokenizerFast
) -> None:
    (ids,) = encode_texts(tokenizer, ["hello"])
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    (ids,) = encode_texts(sentencepiece_like, ["hello"])  # this one does not put BOS before texts
    assert ids == [*sentencepiece_like("hello", add_special_tokens=False)["input_ids"], sentencepiece_like.eos_token_id]


def test_a_document_that_contains_an_end_token_does_not_end_there(tokenizer: PreTrainedTokenizerFast) -> None:
    (ids,) = encode_texts(tokenizer, ["one<|im_end|>two"])
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(ids, skip_special_tokens=True) == "one<|im_end|>two"


def test_shielding_twice_is_shielding_once(tokenizer: PreTrainedTokenizerFast) -> None:
    controls = control_tokens(tokenizer)
    once = shield("a<|im_end|>b", controls)
    assert once != "a<|im_end|>b"
    assert shield(once, controls) == once


@pytest.mark.parametrize("kind", ["tokenizer_trained", "sentencepiece_like"])
def test_first_pieces_have_the_tokens_they_have_alone(request: pytest.FixtureRequest, kind: str) -> None:
    tokenizer: PreTrainedTokenizerFast = request.getfixturevalue(kind)

    @given(st.lists(st.text(alphabet="ab \n中😀.,", max_size=6), min_size=1, max_size=4))
    def check(parts: list[str]) -> None:
        pieces = [(part, number % 2 == 1) for number, part in enumerate(parts)]
        (whole,) = encode_pieces(tokenizer, [pieces])
        for count in range(1, len(pieces)):
            (first,) = encode_pieces(tokenizer, [pieces[:count]])
            assert whole.input_ids[: len(first.input_ids)] == first.input_ids
            assert whole.answer_mask[: len(first.answer_mask)] == first.answer_mask
        assert len(whole.input_ids) == len(whole.answer_mask)
        assert tokenizer.decode(whole.input_ids) == "".join(parts)

    check()


def test_pieces_of_a_batch_are_those_of_each_text_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    texts = [[("a", False), ("b", True)], [("中国", True)], [], [("", False)]]
    assert encode_pieces(tokenizer, texts) == [encode_pieces(tokenizer, [pieces])[0] for pieces in texts]
    assert encode_pieces(tokenizer, []) == []
