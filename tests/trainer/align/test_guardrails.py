"""When a step is stopped, and which iteration is kept: tables of measures and verdicts."""

import json
from dataclasses import asdict

import pytest

from alidade_crds.alignmentrun import Guardrails, OverOptimization
from alidade_crds.reasons import FailureReason
from alidade_trainer.align.guardrails import Measures, Trip, Watch
from alidade_trainer.align.run import StepState

START = Measures(reward=0.2, length=10.0, distinct2=0.8, kl=0.0, score=0.5)


def watch(rails: Guardrails, *later: Measures) -> tuple[Watch, list[Trip | None]]:
    """The watch after all measures, and the verdict on each."""
    one = Watch()
    return one, [one.look(rails, measures, number) for number, measures in enumerate((START, *later))]


def after(**changes: float) -> Measures:
    return Measures(**{**vars(START), **changes})


@pytest.mark.parametrize(
    ("rails", "now", "reason"),
    [
        (Guardrails(), after(kl=1000.0), None),
        (Guardrails(kl_ceiling=5), after(kl=5.0), None),
        (Guardrails(kl_ceiling=5), after(kl=5.1), FailureReason.KL_CEILING),
        (Guardrails(), after(length=2.0), None),
        (Guardrails(), after(length=1.9), FailureReason.LENGTH_COLLAPSED),
        (Guardrails(min_length_ratio=0), after(length=0.0), None),
        (Guardrails(), after(distinct2=0.15), FailureReason.DIVERSITY_COLLAPSED),
        (Guardrails(min_diversity_ratio=0.1), after(distinct2=0.15), None),
    ],
)
def test_a_measure_beyond_its_limit_stops_the_step(
    rails: Guardrails, now: Measures, reason: FailureReason | None
) -> None:
    state, (_, trip) = watch(rails, now)
    assert (trip.reason if trip else None) == reason
    assert state.sound_iteration == (0 if reason else 1)


def test_the_message_has_the_numbers_the_limit_and_what_to_do() -> None:
    _, (_, trip) = watch(Guardrails(kl_ceiling=5), after(kl=7.25))
    assert trip is not None
    assert trip.message == (
        "The policy is 7.25 nats per answer from the model it started from; guardrails.klCeiling is 5. Raise the KL "
        "coefficient, lower training.learningRate, or raise the ceiling."
    )


RULE = Guardrails(over_optimization=OverOptimization(tolerance=0.05, patience=2))


def test_a_rising_reward_with_a_falling_score_stops_the_step_and_the_iteration_before_is_kept() -> None:
    state, verdicts = watch(
        RULE,
        after(reward=0.4, score=0.6),
        after(reward=0.6, score=0.58),  # within the tolerance
        after(reward=0.8, score=0.5),
        after(reward=0.9, score=0.3),
    )
    assert [trip and trip.reason for trip in verdicts] == [None] * 4 + [FailureReason.REWARD_OVER_OPTIMIZED]
    assert state.sound_iteration == 2
    assert verdicts[-1] is not None
    assert "rose from 0.400 to 0.900" in verdicts[-1].message
    assert "fell from 0.600 to 0.300" in verdicts[-1].message


def test_a_score_that_recovers_begins_the_count_anew() -> None:
    state, verdicts = watch(
        RULE,
        after(reward=0.4, score=0.4),
        after(reward=0.5, score=0.48),
        after(reward=0.6, score=0.4),
        after(reward=0.7, score=0.7),
    )
    assert verdicts == [None] * 5
    assert state.sound_iteration == 4


def test_reward_and_score_that_fall_together_are_no_over_optimization() -> None:
    _, verdicts = watch(RULE, after(reward=0.1, score=0.3), after(reward=0.05, score=0.1))
    assert verdicts == [None] * 3


def test_what_a_step_remembers_survives_a_checkpoint() -> None:
    state = StepState(1, 40, 3, {"kl_coefficient": 0.1}, before=["a"], after=["b"], sound=["c"], has_ended=True)
    state.watch, _ = watch(RULE, after(reward=0.4, score=0.4))
    state.trip = Trip(FailureReason.KL_CEILING, "too far")
    again = StepState.load(json.loads(json.dumps(asdict(state))))
    assert again == state
    assert again.trip is not None
    assert again.trip.reason is FailureReason.KL_CEILING
