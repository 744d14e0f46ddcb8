"""Corpus BLEU from sums of statistics is sacrebleu's own."""

import random
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from alidade_eval.metrics.bleu import bleu, bleu_statistics, tokenizer_for

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "red", "big", "runs", "fast", "."]


def own_score(answers: list[str], references: list[list[str]]) -> float:
    return float(bleu(bleu_statistics(answers, references).sum(0), len(answers)))


def library_score(answers: list[str], references: list[list[str]], tokenizer: str = "13a") -> float:
    most = max(map(len, references))
    # None stands for a reference that is not there, which the library takes though its types do not say so.
    streams: Any = [[own[place] if place < len(own) else None for own in references] for place in range(most)]
    return float(BLEU(tokenize=tokenizer).corpus_score(answers, streams).score)


def test_sums_make_the_librarys_corpus_score_in_a_thousand_random_cases() -> None:
    draw = random.Random(0)

    def sentence(fewest: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(fewest, 9)))

    for _ in range(1000):
        texts = draw.randint(1, 6)
        answers = [sentence(0) for _ in range(texts)]
        references = [[sentence(1) for _ in range(draw.randint(1, 3))] for _ in range(texts)]
        assert own_score(answers, references) == pytest.approx(library_score(answers, references), abs=1e-9)


def test_the_published_example_has_its_published_score() -> None:
    answers = ["The dog bit the man.", "It wasn't surprising.", "The man had just bitten him."]
    references = [
        ["The dog bit the man.", "The dog had bit the man."],
        ["It was not unexpected.", "No one was surprised."],
        ["The man bit him first.", "The man had bitten the dog."],
    ]
    assert own_score(answers, references) == pytest.approx(48.530827, abs=1e-6)  # README of sacrebleu


def test_chinese_is_scored_by_sign() -> None:
    answers, references = ["三体是刘慈欣写的"], [["三体是刘慈欣的小说"]]
    assert tokenizer_for(references) == "zh"
    assert own_score(answers, references) == pytest.approx(library_score(answers, references, "zh"), abs=1e-9)
    assert own_score(answers, references) > 30 > library_score(answers, references, "13a")


def test_mostly_english_references_are_split_at_spaces() -> None:
    assert tokenizer_for([["Three-Body is 三体"], ["by Liu Cixin"]]) == "13a"


@pytest.mark.parametrize(("answer", "reference"), [("", "a cat sat on mat"), ("a cat", ""), ("", ""), ("x y z w", "a")])
def test_what_matches_nothing_scores_0_as_in_the_library(answer: str, reference: str) -> None:
    assert own_score([answer], [[reference]]) == library_score([answer], [[reference]]) == 0


def test_many_sums_are_scored_at_once() -> None:
    statistics = bleu_statistics(["the cat sat on mat", "a dog runs"], [["the cat sat on a mat"], ["a dog runs fast"]])
    together = bleu(np.stack([statistics.sum(0), 2 * statistics[0]]), 2)
    assert together[0] == pytest.approx(float(bleu(statistics.sum(0), 2)))
    assert together[1] == pytest.approx(float(bleu(2 * statistics[0], 2)))
