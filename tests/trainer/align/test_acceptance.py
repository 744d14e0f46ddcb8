"""RAFT's acceptance, replay and the measure of diversity on hand-worked samples."""

from hypothesis import given
from hypothesis import strategies as st

from alidade_trainer.align.acceptance import Sample, best_of_all, best_of_each, pool_with, replayed
from alidade_trainer.align.diversity import distinct_ngrams


def sample(prompt: int, reward: float, answer: int = 0, *, finished: bool = True) -> Sample:
    return Sample(prompt, [1], [answer], str(answer), finished, reward, reward)


def test_best_of_k_keeps_the_best_answer_of_each_prompt() -> None:
    samples = [sample(1, 0.5, 1), sample(0, 0.1, 2), sample(1, 0.9, 3), sample(0, 0.3, 4)]
    assert [(kept.prompt, kept.reward) for kept in best_of_each(samples)] == [(0, 0.3), (1, 0.9)]


def test_global_top_keeps_the_best_share_of_the_whole_batch() -> None:
    samples = [sample(0, 0.1), sample(0, 0.9), sample(1, 0.8), sample(1, 0.2)]
    assert [kept.reward for kept in best_of_all(samples, 0.5)] == [0.9, 0.8]
    assert len(best_of_all([sample(place, place) for place in range(30)], 0.1)) == 3
    assert len(best_of_all(samples, 0.01)) == 1


def test_an_answer_that_was_cut_off_is_never_accepted() -> None:
    samples = [sample(0, 9.0, finished=False), sample(0, 1.0), sample(1, 5.0, finished=False)]
    assert [kept.reward for kept in best_of_each(samples)] == [1.0]
    assert [kept.reward for kept in best_of_all(samples, 1.0)] == [1.0]


@given(
    st.permutations(
        [sample(prompt, reward, answer) for prompt in range(3) for reward in (0.0, 1.0) for answer in (1, 2)]
    )
)
def test_the_order_of_samples_does_not_matter_even_among_equals(shuffled: list[Sample]) -> None:
    assert [kept.answer_ids for kept in best_of_each(shuffled)] == [[1], [1], [1]]
    assert [(kept.prompt, kept.answer_ids[0]) for kept in best_of_all(shuffled, 0.25)] == [(0, 1), (0, 2), (1, 1)]


def test_replay_takes_the_best_of_earlier_iterations_and_repeats_no_answer() -> None:
    new = [sample(0, 0.5, 7), sample(1, 0.5, 8)]
    pool = [sample(0, 0.9, 1), sample(0, 0.5, 7), sample(2, 0.8, 2), sample(3, 0.7, 3)]
    assert [(old.prompt, old.reward) for old in replayed(pool, new)] == [(0, 0.9), (2, 0.8)]


def test_the_pool_holds_different_answers_the_best_of_them() -> None:
    pool = pool_with([sample(0, 0.2, 1), sample(1, 0.9, 2)], [sample(0, 0.2, 1), sample(2, 0.5, 3)], most=2)
    assert [kept.reward for kept in pool] == [0.9, 0.5]


def test_distinct_bigrams_are_different_ones_over_all() -> None:
    assert distinct_ngrams([[1, 2, 3], [1, 2, 4]]) == 3 / 4
    assert distinct_ngrams([[1, 1, 1, 1]]) == 1 / 3
    assert distinct_ngrams([[1], []]) == 0.0
