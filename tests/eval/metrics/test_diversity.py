"""Diversity of sets of texts: hand-worked cases."""

import pytest

from alidade_eval.metrics.diversity import distinct, lengths, msttr, unique
from alidade_eval.metrics.words import is_chinese, words

TEXTS = [words("a b a c"), words("a b"), words("d")]


def test_distinct_is_different_over_all_ngrams() -> None:
    assert distinct(TEXTS, 1) == 4 / 7
    assert distinct(TEXTS, 2) == 3 / 4  # ab ba ac ab; none reaches into the next text


def test_unique_counts_what_comes_once() -> None:
    assert unique(TEXTS, 1) == 2  # c d
    assert unique(TEXTS, 2) == 2  # ba ac


def test_segments_run_over_texts_and_a_rest_is_left_out() -> None:
    assert msttr(TEXTS, segment=3) == pytest.approx((2 / 3 + 3 / 3) / 2)  # aba, cab; d is left over


def test_texts_shorter_than_a_segment_count_as_one() -> None:
    assert msttr(TEXTS) == 4 / 7


@pytest.mark.parametrize("texts", [[], [[]], [[], []]])
def test_without_words_nothing_is_diverse(texts: list[list[str]]) -> None:
    assert (msttr(texts), distinct(texts, 1), distinct(texts, 2), unique(texts, 1)) == (0, 0, 0, 0)


def test_lengths_are_in_words_and_signs() -> None:
    assert lengths([words("Hello, world!"), words("你好 world"), []]) == [2, 3, 0]


def test_words_of_mixed_scripts() -> None:
    assert words("Don't 看《Three-Body》，2008年!") == ["don", "t", "看", "three", "body", "2008", "年"]
    assert is_chinese(["你好 world"])
    assert not is_chinese(["hello world 好", ""])
