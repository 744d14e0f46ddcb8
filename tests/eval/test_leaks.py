"""Test prompts in training data: word for word, nearly, and not."""

import random
from collections.abc import Iterator

import pytest

from alidade_eval.leaks import Leak, find_leaks, ngrams

WORDS = [f"w{number}" for number in range(3000)]


def leaks(prompts: list[str], training: list[str], *, ngram: int = 3, similarity: float = 0.6) -> list[Leak]:
    return find_leaks(
        prompts, ((text, f"train:{line}") for line, text in enumerate(training)), ngram=ngram, similarity=similarity
    )


def test_word_for_word_overlooks_case_width_and_outer_signs() -> None:
    assert leaks(["What is love?", "other"], ["nothing", "WHAT IS LOVE"]) == [Leak(0, "exact", 1.0, "train:1")]


def test_a_near_duplicate_is_found_with_its_true_similarity() -> None:
    prompt = "What is the capital of the large country of France today?"
    text = "What is the capital of the large country of France now?"
    shared, together = ngrams(prompt, 3) & ngrams(text, 3), ngrams(prompt, 3) | ngrams(text, 3)
    assert leaks([prompt], ["x y z a b c", text]) == [Leak(0, "near", len(shared) / len(together), "train:1")]
    assert leaks([prompt], [text], similarity=0.9) == []


def test_chinese_is_compared_by_sign() -> None:
    found = leaks(["请问小说三体的作者到底是谁呢"], ["请问小说三体的作者究竟是谁呢"], similarity=0.4)
    assert [leak.kind for leak in found] == ["near"]
    assert found[0].similarity == pytest.approx(8 / 16)


def test_short_prompts_are_found_word_for_word_only() -> None:
    assert leaks(["Who wrote it?"], ["Who wrote it then?"], ngram=8) == []
    assert [leak.kind for leak in leaks(["Who wrote it?"], ["who wrote it"], ngram=8)] == ["exact"]


def test_the_same_prompt_twice_has_leaked_twice() -> None:
    assert [leak.index for leak in leaks(["Hello there", "Hello there"], ["hello there"])] == [0, 1]


def test_word_for_word_wins_over_nearly_and_the_likest_text_is_named() -> None:
    prompt = " ".join(WORDS[:20])
    worse, better = " ".join([*WORDS[:16], "a", "b"]), " ".join([*WORDS[:19], "a"])
    assert leaks([prompt], [worse, better])[0].place == "train:1"
    assert leaks([prompt], [worse, prompt, better]) == [Leak(0, "exact", 1.0, "train:1")]


@pytest.mark.parametrize("prompts", [[], ["", "..."]])
def test_prompts_without_words_have_not_leaked(prompts: list[str]) -> None:
    assert leaks(prompts, ["", "...", "some text of words"]) == []


def test_all_that_a_comparison_of_everything_finds_is_found() -> None:
    draw = random.Random(0)
    prompts = [" ".join(draw.choices(WORDS, k=draw.randint(15, 40))) for _ in range(150)]
    training = []
    for prompt in prompts:
        units = prompt.split()
        for place in draw.sample(range(len(units)), draw.randint(0, 4)):
            units[place] = draw.choice(WORDS)
        training.append(" ".join(units))
    wanted = set()
    for index, prompt in enumerate(prompts):
        one, other = ngrams(prompt, 3), ngrams(training[index], 3)
        if len(one & other) / len(one | other) >= 0.6:
            wanted.add(index)
    found = {leak.index for leak in leaks(prompts, training)}
    assert 50 < len(wanted) < 150
    assert found == wanted


def test_the_training_data_is_read_once_and_not_kept() -> None:
    read = []

    def texts() -> Iterator[tuple[str, str]]:
        for line in range(1000):
            read.append(line)
            yield f"text number {line} that is like no other", f"line {line}"

    assert find_leaks(["something else"], texts(), ngram=8, similarity=0.8) == []
    assert read == list(range(1000))
