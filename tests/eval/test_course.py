"""The course of an evaluation, in this process: order, sharing, stopping, going on."""

import itertools
import json
import multiprocessing
import os
import random
import signal
import time
import weakref
from pathlib import Path
from typing import Any

import pytest

from alidade_crds.evaluation import EvaluationResult
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_eval.progress import Progress
from alidade_eval.subjects import Answer, LocalModel
from tests.eval.conftest import ANSWERS, QUESTIONS, Evaluate, Run, write_lines

MOST = (
    {"type": "generation"},
    {"type": "ranking"},
    {"type": "perplexity", "window": 8, "stride": 4},
    {"type": "diversity"},
    {"type": "reward", "function": "exact_match"},
    {"type": "questions", "questions": [{"ask": ask, "expect": [answer]} for ask, answer in QUESTIONS]},
    {"type": "generation", "name": "drawn", "temperature": 1.0, "metrics": ["f1", "exact_match"]},
)
EVERYTHING = (*MOST, {"type": "arena", "function": "exact_match"})


def numbers(results: list[EvaluationResult]) -> dict[tuple[str, str, str], EvaluationResult]:
    return {(one.suite, one.metric, one.model): one for one in results}


def test_a_model_that_knows_the_answers_is_better(evaluate: Evaluate, run_course: Run) -> None:
    found = numbers(run_course(evaluate(*EVERYTHING)).results)
    right = found["generation", "exact_match", "taught"]
    assert (right.n, right.verdict) == (len(QUESTIONS), "better")
    assert right.value >= 0.75
    assert found["generation", "exact_match", "untaught"].value == 0
    assert found["generation", "exact_match", "untaught"].verdict is None
    assert found["ranking", "mrr", "taught"].value > found["ranking", "mrr", "untaught"].value
    for suite, metric in (("reward", "mean"), ("questions", "correct")):
        assert found[suite, metric, "taught"].value == right.value
    # Wins against the only other model, which has no question right; what both have wrong is a tie.
    assert found["arena", "win_rate", "taught"].value == pytest.approx(0.5 + right.value / 2)
    assert {metric for suite, metric, _ in found if suite == "drawn"} <= {"f1", "exact_match", "unfinished"}


def test_every_number_is_finite_and_lies_in_its_interval(evaluate: Evaluate, run_course: Run) -> None:
    results = run_course(evaluate(*EVERYTHING)).results
    assert {one.suite for one in results} == {str(one.get("name", one["type"])) for one in EVERYTHING}
    for one in results:
        text = one.model_dump_json()
        assert "NaN" not in text
        assert "Infinity" not in text
        assert one.low is not None, text
        assert one.high is not None, text
        assert one.low - 1e-9 <= one.value <= one.high + 1e-9, text


def test_answers_that_are_empty_or_cut_off_are_counted(evaluate: Evaluate, run_course: Run) -> None:
    outcome = run_course(evaluate({"type": "generation"}))
    found = numbers(outcome.results)
    assert found["generation", "unfinished", "untaught"].value == 1
    assert found["generation", "unfinished", "taught"].value == 0
    assert outcome.warnings == ["generation: 8 of 8 answers of untaught are empty."]


def test_two_models_are_never_in_memory_at_once(
    evaluate: Evaluate, run_course: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = LocalModel.load.__func__  # type: ignore[attr-defined]
    loaded: list[weakref.ref[LocalModel]] = []
    alive: list[list[str]] = []

    def noted(cls: Any, name: str, *arguments: Any, **named: Any) -> LocalModel:
        alive.append([held.name for one in loaded if (held := one()) is not None])
        subject: LocalModel = load(cls, name, *arguments, **named)
        loaded.append(weakref.ref(subject))
        return subject

    monkeypatch.setattr(LocalModel, "load", classmethod(noted))
    run_course(evaluate(*MOST))
    assert alive == [[], []]
    assert [one() for one in loaded] == [None, None]


def test_suites_that_ask_the_same_share_the_answers(
    evaluate: Evaluate, run_course: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, asked = LocalModel.answers, []

    def counted(self: LocalModel, prompts: Any, settings: Any, **named: Any) -> None:
        asked.append((self.name, len(prompts), settings.temperature))
        answers(self, prompts, settings, **named)

    monkeypatch.setattr(LocalModel, "answers", counted)
    run_course(evaluate(*MOST))
    assert sorted(asked) == [(name, 8, drawn) for name in ("taught", "untaught") for drawn in (0.0, 1.0)]


def test_what_was_measured_is_not_measured_again(
    evaluate: Evaluate, run_course: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = evaluate(*MOST)
    first = run_course(document)

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(LocalModel, "load", refuse)
    progress = Progress()
    assert run_course(document, progress=progress).results == first.results
    told = progress.to_document()
    assert told.step == told.total_steps > 0


def test_records_that_have_changed_are_asked_again(evaluate: Evaluate, run_course: Run, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    document = evaluate({"type": "generation", "dataset": f"file://{data}"})
    write_lines(data, [{"input": ask, "output": "nothing of the kind"} for ask, _ in QUESTIONS])
    assert numbers(run_course(document).results)["generation", "exact_match", "taught"].value == 0
    write_lines(data, [{"input": ask.replace("number", "the number"), "output": answer} for ask, answer in QUESTIONS])
    run_course(document)
    collections = list((tmp_path / "out" / "samples").iterdir())
    assert len(collections) == 2


def test_processes_that_share_the_work_find_what_one_finds(evaluate: Evaluate, run_course: Run) -> None:
    alone = run_course(evaluate(*MOST, output="alone"))
    together = evaluate(*MOST, output="together")
    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=run_course, args=(together,), kwargs={"share": (place, 3)}) for place in (1, 2)]
    for one in others:
        one.start()
    progress = Progress()
    shared = run_course(together, share=(0, 3), progress=progress)
    for one in others:
        one.join(60)
    assert [one.exitcode for one in others] == [0, 0]
    assert_same(shared.results, alone.results)
    told = progress.to_document()
    assert told.step == told.total_steps > 0


def test_an_evaluation_that_is_stopped_goes_on_where_it_was(evaluate: Evaluate, run_course: Run) -> None:
    from alidade_eval.course import StopRequested

    undisturbed = run_course(evaluate(*MOST, output="undisturbed"))
    document = evaluate(*MOST)
    stops = 0
    for patience in (1, 2, 4, 8, 16):
        asked = itertools.count()
        try:
            run_course(document, stop=lambda asked=asked, patience=patience: next(asked) >= patience)
        except StopRequested:
            stops += 1
    assert stops == 5
    assert_same(run_course(document).results, undisturbed.results)


def assert_same(ones: list[EvaluationResult], others: list[EvaluationResult]) -> None:
    """Equal, but for what rounding in batches of other sizes leaves of likelihoods: 1e-6 of them, and less here."""
    measured = {"value", "low", "high", "difference_low", "difference_high"}
    for one, other in zip(ones, others, strict=True):
        assert one.model_dump(exclude=measured) == other.model_dump(exclude=measured)
        theirs = other.model_dump(include=measured, exclude_none=True)
        assert one.model_dump(include=measured, exclude_none=True) == pytest.approx(theirs, rel=1e-4, abs=1e-6), one


def test_an_evaluation_that_is_killed_at_any_moment_loses_nothing_that_was_finished(
    evaluate: Evaluate, run_course: Run, tmp_path: Path
) -> None:
    undisturbed = run_course(evaluate(*MOST, output="undisturbed"))
    document = evaluate(*MOST)
    randomness, kills, before = random.Random(5), 0, 0
    for _ in range(40):
        child = multiprocessing.get_context("fork").Process(target=run_course, args=(document,))
        child.start()
        wanted = before + randomness.randint(1, 12)
        while child.is_alive() and lines(tmp_path / "out") < wanted:
            time.sleep(0.001)
        if not child.is_alive():
            break
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        kills += child.exitcode == -signal.SIGKILL
        assert lines(tmp_path / "out") >= before
        before = lines(tmp_path / "out")
    assert kills >= 5
    assert_same(run_course(document).results, undisturbed.results)
    assert repeated(tmp_path / "out") == []


def sample_files(output: Path) -> list[Path]:
    return sorted((output / "samples").glob("*/*.jsonl"))


def lines(output: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in sample_files(output))


def repeated(output: Path) -> list[tuple[str, int]]:
    """Samples that were measured twice."""
    counted: list[tuple[str, int]] = []
    for file in sample_files(output):
        indices = [json.loads(line)["index"] for line in file.read_text().splitlines()]
        counted += [(file.name, index) for index in set(indices) if indices.count(index) > 1]
    return counted


def test_a_record_that_one_model_cannot_read_is_left_out_for_all(
    evaluate: Evaluate, run_course: Run, tmp_path: Path
) -> None:
    long = {"input": "What is " + "very " * 200 + "long ?", "output": "fox"}
    data = write_lines(
        tmp_path / "data.jsonl", [*({"input": ask, "output": answer} for ask, answer in QUESTIONS), long]
    )
    outcome = run_course(evaluate({"type": "generation", "dataset": f"file://{data}"}))
    found = numbers(outcome.results)
    assert found["generation", "exact_match", "taught"].n == len(QUESTIONS)
    assert found["generation", "failed", "taught"].value == pytest.approx(1 / 9)
    (warning,) = [one for one in outcome.warnings if "has no answer" in one and "untaught" in one]
    assert "untaught has no answer to 1 of 9 records, which were left out for all models" in warning
    assert "tokens; the model's context is 128" in warning


@pytest.mark.parametrize(("count", "measured"), [(1, 8), (2, 4)])
def test_what_failed_is_asked_again_unless_others_may_have_read_the_failure(
    evaluate: Evaluate, run_course: Run, monkeypatch: pytest.MonkeyPatch, count: int, measured: int
) -> None:
    document = evaluate({"type": "generation", "metrics": ["exact_match"]})
    answers = LocalModel.answers

    def answers_half(self: LocalModel, prompts: Any, settings: Any, *, keep: Any, **named: Any) -> None:
        def kept(place: int, answer: Answer) -> None:
            keep(place, Answer(failure="it did not answer") if place % 2 else answer)

        answers(self, prompts, settings, keep=kept, **named)

    with monkeypatch.context() as half:
        half.setattr(LocalModel, "answers", answers_half)
        for number in range(1, count):
            run_course(document, share=(number, count))
        first = numbers(run_course(document, share=(0, count)).results)
    assert first["generation", "exact_match", "taught"].n == 4
    assert first["generation", "failed", "taught"].value == 0.5
    second = numbers(run_course(document, share=(0, count)).results)
    assert second["generation", "exact_match", "taught"].n == measured


def test_a_record_that_a_template_cannot_render_is_named(evaluate: Evaluate, run_course: Run) -> None:
    template = "{% for message in messages %}{{ raise_exception('no such turn') }}{% endfor %}"
    for suite in ("generation", "ranking"):
        with pytest.raises(JobFailure, match=r"(line|instance) 1: no such turn\. Set") as failure:
            run_course(evaluate({"type": suite, "template": template}))
        assert failure.value.reason is FailureReason.TEMPLATE_FAILED
        assert failure.value.message.endswith("Set suites[].template to one that fits, such as chatml.")


def test_an_evaluation_in_which_nothing_can_be_measured_fails(
    evaluate: Evaluate, run_course: Run, tmp_path: Path
) -> None:
    data = write_lines(tmp_path / "data.jsonl", [{"input": "very " * 200, "output": "fox"}])
    said = "No record could be measured. generation: untaught has no answer to 1 of 1 records"
    with pytest.raises(JobFailure, match=said) as failure:
        run_course(evaluate({"type": "generation", "metrics": ["bleu"], "dataset": f"file://{data}"}))
    assert failure.value.reason is FailureReason.DATA_TOO_LONG


def test_prompts_that_were_trained_on_are_found(evaluate: Evaluate, run_course: Run, tmp_path: Path) -> None:
    trained = write_lines(tmp_path / "train.jsonl", [{"input": ask, "output": "?"} for ask, _ in QUESTIONS[:2]])
    check = {"trainingData": [f"file://{trained}"]}
    outcome = run_course(evaluate({"type": "generation"}, leakCheck=check))
    found = numbers(outcome.results)["generation", "leaked", "*"]
    assert (found.value, found.n) == (2 / 8, 8)
    assert [leak["index"] for leak in outcome.leaks["generation"]] == [0, 1]


def test_questions_count_the_answers_of_which_one_is_enough(evaluate: Evaluate, run_course: Run) -> None:
    ask = QUESTIONS[0][0]
    questions = [
        {"ask": ask, "expect": ["blue", "Red!"]},
        {"ask": ask, "expect": ["^r.d$"], "match": "regex"},
        {"ask": ask, "expect": ["e"], "match": "contains"},
        {"ask": ask, "expect": ["blue"]},
    ]
    found = numbers(run_course(evaluate({"type": "questions", "questions": questions})).results)
    assert ANSWERS[0] == "red"
    assert found["questions", "correct", "taught"].value == 0.75


def test_a_function_of_the_user_scores_the_answers(
    evaluate: Evaluate, run_course: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_scores.py").write_text(
        "def score(prompts, answers, references):\n"
        "    assert prompts[0][-1]['role'] == 'user' and references[0]\n"
        "    return {'length': [len(a) for a in answers], 'right': [a in r for a, r in zip(answers, references)]}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    outcome = run_course(evaluate({"type": "custom", "entryPoint": "own_scores:score"}))
    found = numbers(outcome.results)
    assert found["custom", "right", "taught"].value >= 0.75
    assert found["custom", "length", "untaught"].value == 0


def test_progress_counts_the_samples_of_all_models(evaluate: Evaluate, run_course: Run) -> None:
    progress = Progress()
    run_course(evaluate({"type": "generation"}, {"type": "ranking"}), progress=progress)
    told = progress.to_document()
    assert (told.step, told.total_steps) == (2 * 8 * 2, 2 * 8 * 2)
