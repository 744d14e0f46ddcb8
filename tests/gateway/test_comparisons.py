"""Comparisons in memory: one vote each, bounded in number and age. And how often one address may ask."""

import pytest

from alidade_gateway.backends import Backend
from alidade_gateway.pages.comparisons import (
    ANSWERING,
    EXPIRE_S,
    KEPT,
    MOST_HISTORY,
    Comparison,
    Comparisons,
    Side,
    State,
    check_history,
)
from alidade_gateway.pages.rates import Rate
from alidade_gateway.pages.votes import Messages, Player, Verdict
from alidade_serving.front.refusals import Refusal

PROMPT = [{"role": "user", "content": "which?"}]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def side(name: str) -> Side:
    return Side(Backend(name, f"http://{name}", f"pvc://{name}"), Player(name, f"pvc://{name}"), name)


def answered(comparisons: Comparisons) -> Comparison:
    with comparisons.begun(PROMPT, side("one"), side("two")) as made:
        made.left.text, made.right.text = "one thing", "another"
        made.state = State.ANSWERED
    return made


def refusal_of(comparison: Comparison, verdict: Verdict) -> Refusal:
    with pytest.raises(Refusal) as refused, comparison.voted(verdict):
        pass
    return refused.value


def test_each_takes_one_vote() -> None:
    made = answered(Comparisons())
    with made.voted(Verdict.RIGHT) as vote:
        assert (vote.left_text, vote.right_text, vote.verdict) == ("one thing", "another", Verdict.RIGHT)
    refused = refusal_of(made, Verdict.LEFT)
    assert (refused.status, refused.message) == (409, "This comparison has its vote already; a comparison has one.")


def test_a_vote_that_was_not_kept_can_be_cast_again() -> None:
    made = answered(Comparisons())
    with pytest.raises(OSError, match="full"), made.voted(Verdict.LEFT):
        raise OSError("full")
    with made.voted(Verdict.TIE):
        pass
    assert made.verdict is Verdict.TIE


def test_there_is_no_vote_on_what_is_not_whole() -> None:
    comparisons = Comparisons()
    with comparisons.begun(PROMPT, side("one"), side("two")) as made:
        assert "not complete yet" in refusal_of(made, Verdict.LEFT).message
    assert "no two whole answers" in refusal_of(made, Verdict.LEFT).message


def test_of_two_equal_answers_neither_is_better() -> None:
    made = answered(Comparisons())
    made.left.text = f" {made.right.text}\n"
    assert "Both answers are the same" in refusal_of(made, Verdict.LEFT).message
    with made.voted(Verdict.TIE):
        pass


def test_sides_change_places_and_names_cannot_be_guessed() -> None:
    made = [answered(Comparisons()) for _ in range(200)]
    lefts = sum(comparison.left.player.name == "one" for comparison in made)
    assert 60 < lefts < 140  # of a fair coin it is beyond that once in 10^8
    assert len({comparison.id for comparison in made}) == 200
    assert min(len(comparison.id) for comparison in made) >= 24


def test_they_expire_and_an_unknown_one_is_said_to_be() -> None:
    clock = Clock()
    comparisons = Comparisons(clock=clock)
    made = answered(comparisons)
    clock.now = EXPIRE_S
    assert comparisons.find(made.id) is made
    clock.now = EXPIRE_S + 1
    for identifier in (made.id, "", "x" * 10_000):
        with pytest.raises(Refusal, match=r"no such comparison, or no more: they are kept for 60 minutes") as refused:
            comparisons.find(identifier)
        assert refused.value.status == 404


def test_the_oldest_go_when_there_are_too_many_but_never_one_that_is_being_answered() -> None:
    comparisons = Comparisons()
    with comparisons.begun(PROMPT, side("one"), side("two")) as open_one:
        made = [answered(comparisons) for _ in range(KEPT)]
        assert comparisons.find(open_one.id) is open_one
        assert comparisons.find(made[1].id) is made[1]
        with pytest.raises(Refusal):
            comparisons.find(made[0].id)


def test_no_more_are_answered_at_once_than_there_is_room_for() -> None:
    comparisons = Comparisons()
    begun = [comparisons.begun(PROMPT, side("one"), side("two")) for _ in range(ANSWERING + 1)]
    for one in begun[:-1]:
        one.__enter__()
    with pytest.raises(Refusal) as refused:
        begun[-1].__enter__()
    assert (refused.value.status, refused.value.retry_after_s) == (429, 5)
    begun[0].__exit__(None, None, None)
    answered(comparisons)


@pytest.mark.parametrize(
    ("verdict", "answer"), [(Verdict.LEFT, "left"), (Verdict.RIGHT, "right"), (Verdict.TIE, "left")]
)
def test_a_follow_up_goes_on_from_the_better_answer(verdict: Verdict, answer: str) -> None:
    made = answered(Comparisons())
    with pytest.raises(Refusal, match="has no vote yet"):
        made.turns_after()
    with made.voted(verdict):
        pass
    assert made.turns_after() == [*PROMPT, {"role": "assistant", "content": getattr(made, answer).text}]


def test_nothing_follows_up_on_two_bad_answers() -> None:
    made = answered(Comparisons())
    with made.voted(Verdict.BOTH_BAD):
        pass
    with pytest.raises(Refusal, match="both answers of the comparison before were bad"):
        made.turns_after()


@pytest.mark.parametrize("lengths", [[MOST_HISTORY + 1], [1] * 41])
def test_a_conversation_has_an_end(lengths: list[int]) -> None:
    turns: Messages = [{"role": "user", "content": "x" * length} for length in lengths]
    with pytest.raises(Refusal, match=r"Ask a new question\."):
        check_history(turns)
    check_history(turns[:-1])


def test_an_address_that_asks_too_often_waits_and_others_do_not() -> None:
    clock = Clock()
    rate = Rate(per_minute=3, clock=clock)
    for _ in range(3):
        rate.take("a")
    with pytest.raises(Refusal, match="3 comparisons within a minute") as refused:
        rate.take("a")
    assert (refused.value.status, refused.value.retry_after_s) == (429, 21)
    rate.take("b")
    clock.now = 20
    rate.take("a")
    with pytest.raises(Refusal):
        rate.take("a")


def test_addresses_do_not_fill_the_memory() -> None:
    rate = Rate(per_minute=1, addresses=10)
    for number in range(1000):
        rate.take(str(number))
    with pytest.raises(Refusal):
        rate.take("999")
    rate.take("0")
