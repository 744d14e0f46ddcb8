"""metrics.jsonl: no step missing, none twice, whatever happened between."""

from dataclasses import replace
from pathlib import Path

import pytest

from alidade_trainer.history import History, patience_is_over, read_lines
from alidade_trainer.progress import StepMetrics


def step(number: int) -> StepMetrics:
    return StepMetrics(number, number / 10, 5.0 - number, 1e-3, 1.0, tokens=100, seconds=0.5)


def test_losses_of_datasets_stand_in_the_line_and_are_told_each(tmp_path: Path) -> None:
    told: list[dict[str, float]] = []
    history = History(tmp_path / "metrics.jsonl", up_to_step=0, track=lambda _step, values: told.append(dict(values)))
    history.add_step(step(1))
    history.add_step(replace(step(2), losses={"qa": 2.0, "web": 4.0}))
    history.add_evaluation(2, 3.0, {"qa": 2.5, "web": 3.5})
    history.close()
    plain, mixed, held_out = read_lines(tmp_path / "metrics.jsonl")
    assert "losses" not in plain
    assert mixed["losses"] == {"qa": 2.0, "web": 4.0}
    assert held_out == {"step": 2, "eval_loss": 3.0, "eval_losses": {"qa": 2.5, "web": 3.5}}
    assert set(told[1]) - set(told[0]) == {"loss/qa", "loss/web"}
    assert told[1]["loss/web"] == 4.0
    assert told[2] == {"eval_loss": 3.0, "eval_loss/qa": 2.5, "eval_loss/web": 3.5}
    assert all(isinstance(value, float | int) for values in told for value in values.values())


def test_steps_after_the_checkpoint_are_removed_when_training_goes_on_from_it(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    history = History(path, up_to_step=0)
    for number in (1, 2, 3):
        history.add_step(step(number))
    history.add_evaluation(2, 4.0, {})
    history.add_evaluation(3, 3.0, {})
    history.close()
    with path.open("a") as file:
        file.write('{"step": 4, "lo')  # the power went

    again = History(path, up_to_step=2)
    again.add_step(step(3))
    again.close()

    assert [line["step"] for line in read_lines(path)] == [1, 2, 2, 3]
    assert [line["eval_loss"] for line in again.evaluations] == [4.0]
    assert read_lines(path)[0]["tokens_per_second"] == 200.0


def test_what_is_added_is_told_under_the_names_of_trackers_and_what_is_there_is_not(tmp_path: Path) -> None:
    told: list[tuple[int, dict[str, float]]] = []
    history = History(tmp_path / "metrics.jsonl", up_to_step=0, track=lambda *line: told.append((line[0], {**line[1]})))
    history.add_step(step(1))
    history.add_evaluation(1, 4.0, {})
    for _ in range(2):
        history.add_iteration(1, "1-raft", 1, {"reward": 0.5})
    history.close()
    assert told == [
        (
            1,
            {
                "epoch": 0.1,
                "loss": 4.0,
                "learning_rate": 1e-3,
                "grad_norm": 1.0,
                "tokens": 100,
                "tokens_per_second": 200.0,
            },
        ),
        (1, {"eval_loss": 4.0}),
        (1, {"1-raft/reward": 0.5}),
    ]
    again = list[int]()
    History(tmp_path / "metrics.jsonl", up_to_step=1, track=lambda at, _: again.append(at)).close()
    assert again == []


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [
        ([3.0], 1, False),
        ([3.0, 3.1], 1, True),
        ([3.0, 2.9], 1, False),
        ([3.0, 3.1, 3.2], 2, True),
        ([3.0, 3.1, 2.9], 2, False),
        ([3.0, 2.0, 2.0, 2.0], 2, True),  # as good as before is no improvement
    ],
)
def test_patience_is_over_when_so_many_evaluations_have_not_improved_on_the_best(
    losses: list[float], patience: int, over: bool
) -> None:
    assert patience_is_over(losses, patience) == over
