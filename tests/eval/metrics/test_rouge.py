"""ROUGE is rouge-score's for English, and counts Chinese by sign."""

import pytest
from rouge_score.rouge_scorer import RougeScorer

from alidade_eval.metrics.rouge import KINDS, rouge_scores

PAIRS = [
    ("the quick brown fox jumps over the lazy dog", "the quick brown dog jumps on the log"),
    ("Police killed the gunman.", "The gunman kill police, in 2024"),
    ("", "something"),
    ("nothing alike", "other words"),
]


@pytest.mark.parametrize(("answer", "reference"), PAIRS)
def test_english_has_the_librarys_numbers(answer: str, reference: str) -> None:
    wanted = RougeScorer(list(KINDS)).score(reference, answer)
    found = rouge_scores([answer], [[reference]])
    assert {kind: found[kind][0] for kind in KINDS} == pytest.approx(
        {kind: wanted[kind].fmeasure for kind in KINDS}, abs=1e-12
    )


def test_chinese_counts_by_sign_where_the_library_alone_sees_nothing() -> None:
    answer, reference = "三体是刘慈欣写的", "三体的作者是刘慈欣"
    assert RougeScorer(list(KINDS)).score(reference, answer)["rouge1"].fmeasure == 0
    found = rouge_scores([answer], [[reference]])
    # 8 and 9 signs; 三 体 是 刘 慈 欣 的 are in both, 三体 是刘 刘慈 慈欣 as pairs, and 三体是刘慈欣 in order.
    assert found["rouge1"][0] == pytest.approx(2 * 7 / 17)
    assert found["rouge2"][0] == pytest.approx(2 * 4 / 15)
    assert found["rougeL"][0] == pytest.approx(2 * 6 / 17)


def test_the_best_reference_counts() -> None:
    assert rouge_scores(["a b c"], [["x y z", "a b c"]])["rougeL"][0] == 1
