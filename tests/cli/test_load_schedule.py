"""When requests arrive and how long they are: against the laws they are to follow."""

import json
import math
import random
from itertools import islice, pairwise
from pathlib import Path

import pytest
from scipy import stats

from alidade_cli.loadtest.arrivals import ARRIVALS, Arrivals, arrival_times
from alidade_cli.loadtest.lengths import parse_lengths
from alidade_cli.loadtest.prompts import Scale, questions_of, random_questions, read_prompts


def test_constant_arrivals_are_evenly_apart() -> None:
    assert arrival_times("constant", 4, 1, seed=0) == [0, 0.25, 0.5, 0.75]


def test_gaps_of_poisson_arrivals_are_exponential() -> None:
    times = arrival_times("poisson", 20, 500, seed=1)
    gaps = [after - before for before, after in pairwise([0.0, *times])]
    assert stats.kstest(gaps, "expon", args=(0, 1 / 20)).pvalue > 0.01


def test_counts_of_poisson_arrivals_vary_as_much_as_their_mean() -> None:
    """Counts in windows of one second follow Poisson's law: chi-squared over 0 to 9 and more."""
    windows, rate = 4000, 4
    counts = [0] * windows
    for at in arrival_times("poisson", rate, windows, seed=2):
        counts[int(at)] += 1
    seen = [sum(count == number for count in counts) for number in range(10)]
    expected = [windows * stats.poisson.pmf(number, rate) for number in range(10)]
    seen.append(windows - sum(seen))
    expected.append(windows - sum(expected))
    assert stats.chisquare(seen, expected).pvalue > 0.01


def test_bursts_arrive_together_at_the_same_mean_rate() -> None:
    times = arrival_times("burst", 20, 1000, seed=3, burst_size=5)
    moments = sorted(set(times))
    assert all(times.count(moment) == 5 for moment in moments[:50])
    # 4,000 bursts are expected; their number has a deviation of its square root.
    assert abs(len(moments) - 4000) < 4 * math.sqrt(4000)


@pytest.mark.parametrize("kind", ARRIVALS)
def test_arrivals_are_repeatable_ascending_and_within_the_duration(kind: Arrivals) -> None:
    times = arrival_times(kind, 7.5, 20, seed=4)
    assert times == arrival_times(kind, 7.5, 20, seed=4)
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < 20
    if kind != "constant":
        assert times != arrival_times(kind, 7.5, 20, seed=5)


def test_a_number_is_a_fixed_length() -> None:
    lengths = parse_lengths("64")
    assert {lengths.draw(random.Random(seed)) for seed in range(20)} == {64}


def test_uniform_lengths_are_even_with_both_ends() -> None:
    lengths, generator = parse_lengths("uniform:3-6"), random.Random(0)
    drawn = [lengths.draw(generator) for _ in range(4000)]
    assert stats.chisquare([drawn.count(number) for number in (3, 4, 5, 6)]).pvalue > 0.01


def test_log_normal_lengths_have_their_median_and_deviation() -> None:
    lengths, generator = parse_lengths("lognormal:1000:0.5"), random.Random(0)
    logarithms = [math.log(lengths.draw(generator)) for _ in range(4000)]
    assert stats.kstest(logarithms, "norm", args=(math.log(1000), 0.5)).pvalue > 0.01


def test_log_normal_lengths_stop_at_a_bound() -> None:
    lengths, generator = parse_lengths("lognormal:10:2:15"), random.Random(0)
    drawn = [lengths.draw(generator) for _ in range(200)]
    assert (min(drawn), max(drawn)) == (1, 15)


@pytest.mark.parametrize("text", ["", "0", "-3", "uniform:9-3", "lognormal:64", "lognormal:64:0", "normal:3:1", "1e3"])
def test_what_is_no_length_is_answered_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 64, uniform:32-128|the smaller number first|take one above 0"):
        parse_lengths(text)


def test_the_words_for_a_number_of_tokens_follow_from_measured_prompts() -> None:
    """7 tokens of a template and 2 a word: 4 words are 15 tokens, 30 words 67, one token more or less."""
    scale = Scale.fitted([(4, 14), (4, 16), (30, 66), (30, 68)])
    assert (scale.overhead, scale.per_word) == pytest.approx((7, 2))
    assert scale.words(67) == 30
    assert scale.words(3) == 1


@pytest.mark.parametrize("points", [[(4, 20)], [(4, 18), (4, 22)], [(4, 22), (6, 28), (6, 6)]])
def test_prompts_of_one_length_tell_no_overhead(points: list[tuple[int, int]]) -> None:
    scale = Scale.fitted(points)
    words, tokens = (sum(values) for values in zip(*points, strict=True))
    assert scale.overhead == 0
    assert scale.per_word == pytest.approx(tokens / words)


def test_questions_are_the_same_for_the_same_seed_and_begin_differently() -> None:
    def make(seed: int) -> list[str]:
        questions = random_questions(
            Scale(0, 1), parse_lengths("uniform:20-40"), parse_lengths("uniform:1-9"), seed=seed
        )
        return [f"{question.text} {question.answer_tokens}" for question in islice(questions, 20)]

    assert make(0) == make(0)
    assert make(0) != make(1)
    assert len({text[:20] for text in make(0)}) == 20


def test_prompts_of_a_file_are_all_asked_before_one_is_asked_again(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    rows = [
        "one",
        {"prompt": "two"},
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "三"}]},
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n", encoding="utf-8")
    prompts = read_prompts(file)
    assert [[turn["content"] for turn in prompt] for prompt in prompts] == [["one"], ["two"], ["s", "三"]]
    asked = [question.text for question in islice(questions_of(prompts, parse_lengths("5"), seed=0), 6)]
    assert sorted(asked[:3]) == sorted(asked[3:]) == ["one", "s\n三", "two"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"a"\n{"question": "b"}\n', 'line 2: write "TEXT"'),
        ('"a"\nb\n', "line 2 is not JSON"),
        ('{"messages": []}\n', "line 1: write"),
        ('{"messages": [{"role": "user"}]}\n', "line 1: write"),
        ("\n\n", "has no prompts"),
    ],
)
def test_a_line_that_is_no_prompt_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_prompts(file)
