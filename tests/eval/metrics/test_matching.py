"""Exact match, F1 of words, and expected answers."""

import pytest

from alidade_eval.metrics.matching import exact_match, matches, token_f1


@pytest.mark.parametrize(
    ("answer", "references", "wanted"),
    [
        ("Paris.", ["paris"], 1),
        ("Ｐａｒｉｓ", ["Paris"], 1),
        ("It is Paris", ["Paris"], 0),
        ("三体。", ["活着", "三体"], 1),
        ("", ["Paris"], 0),
    ],
)
def test_exact_match_overlooks_case_width_and_outer_signs(answer: str, references: list[str], wanted: float) -> None:
    assert exact_match([answer], [references])[0] == wanted


@pytest.mark.parametrize(
    ("answer", "references", "wanted"),
    [
        ("the cat sat", ["the cat slept well"], 4 / 7),
        ("the the the", ["the cat"], 2 / 5),  # a word counts as often as both have it
        ("刘慈欣", ["作者刘慈欣"], 6 / 8),
        ("", ["a"], 0),
        ("", [""], 1),
        ("b", ["a", "b"], 1),
    ],
)
def test_f1_counts_common_words(answer: str, references: list[str], wanted: float) -> None:
    assert token_f1([answer], [references])[0] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("kind", "answer", "expected", "wanted"),
    [
        ("exact", "Paris!", "paris", 1),
        ("exact", "in Paris", "paris", 0),
        ("contains", "It is PARIS, of course", "Paris", 1),
        ("contains", "anything", "...", 0),
        ("regex", "It was 1889.", r"\b18\d\d\b", 1),
        ("regex", "It was 1789.", r"\b18\d\d\b", 0),
    ],
)
def test_expected_answers_fit_in_their_way(kind: str, answer: str, expected: str, wanted: float) -> None:
    assert matches([answer], [[expected]], [kind])[0] == wanted
