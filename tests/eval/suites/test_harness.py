"""The harness suite: the numbers of the library's own backend, and what is wrong said before a model is loaded."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pytest
import yaml

from alidade_crds.evaluation import EvaluationResult
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.sources import Locations
from alidade_eval.making import make_suites
from alidade_eval.subjects import LocalModel
from alidade_eval.suites.base import Suite
from tests.eval.conftest import ANSWERS, QUESTIONS, Evaluate, Run, write_lines

# The library's and its dependencies' own.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

EXACT = 1e-4
"""float32 sums in another order: log-likelihoods of whole texts differ in the sixth digit."""
TASKS: dict[str, dict[str, Any]] = {
    "choice": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "choices",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "letter": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}\nAnswer:",
        "doc_to_choice": ["A", "B", "C"],
        "doc_to_target": "letter",
        "metric_list": [{"metric": "acc"}],
    },
    "answer": {
        "output_type": "generate_until",
        "doc_to_text": "{{turn}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["e", "Q:"], "max_gen_toks": 12, "do_sample": False},
        "metric_list": [{"metric": "exact_match"}],
    },
    "text": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{text}}",
        "metric_list": [{"metric": "word_perplexity"}, {"metric": "byte_perplexity"}, {"metric": "bits_per_byte"}],
    },
    "drawn": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "repeats": 2,
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": True, "temperature": 1.0},
        "filter_list": [{"name": "first", "filter": [{"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match"}],
    },
    "away": {
        "dataset_path": "nobody/has-this-dataset",
        "dataset_kwargs": None,
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
    },
    "broken": {"output_type": "generate_until", "doc_to_text": "{{question.nothing.at_all}}", "doc_to_target": "x"},
}
GROUPS = {"both": True, "evenly": False}


def document(place: int, question: str, answer: str) -> dict[str, Any]:
    return {
        "question": question,
        # As the taught model was asked; its answers end at the stop string `e`.
        "turn": f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n",
        "answer": answer.partition("e")[0],
        "choices": [ANSWERS[(place + shift) % len(ANSWERS)] for shift in (1, 0, 2, 5)],
        "label": 1,
        "letter": place % 3,
        # Up to five times as long as the context of 128 tokens.
        "text": " ".join(f"{ask} {said}." for ask, said in QUESTIONS * (1 + 2 * (place % 2)))[place:],
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Tasks in YAML and their data; the libraries' caches are the test's own."""
    made = tmp_path_factory.mktemp("tasks")
    data = [document(place, ask, answer) for place, (ask, answer) in enumerate(QUESTIONS)]
    files = {
        "test": str(write_lines(made / "test.jsonl", data)),
        "train": str(write_lines(made / "train.jsonl", data[3:])),
    }
    for name, task in TASKS.items():
        own = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": files},
            "test_split": "test",
            "fewshot_split": "train",
            "metadata": {"version": 1.5},
        } | task
        (made / f"{name}.yaml").write_text(yaml.safe_dump(own))
    for name, by_size in GROUPS.items():
        metrics = [{"metric": "acc", "weight_by_size": by_size}]
        group = {"group": name, "task": ["choice", "letter"], "aggregate_metric_list": metrics}
        (made / f"{name}.yaml").write_text(yaml.safe_dump(group))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", made / "cache")
        # Nothing listens on the discard port.
        patch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
        patch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
        # It asks package managers what is installed, for seconds.
        patch.setattr("lm_eval.evaluator.add_env_info", lambda _results: None)
        yield made


def suite_of(folder: Path, *tasks: str, **more: Any) -> dict[str, Any]:
    return {"type": "harness", "tasks": list(tasks), "taskFolder": f"file://{folder}"} | more


def by_name(results: list[EvaluationResult]) -> dict[tuple[str, str], EvaluationResult]:
    return {(one.metric, one.model): one for one in results}


def library_numbers(workplace: Path, folder: Path, *tasks: str, **more: Any) -> dict[tuple[str, str], float]:
    """What the library's own backend comes to, by TASK.METRIC and model."""
    import lm_eval.evaluator
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = {}
    for model in ("untaught", "taught"):
        path = str(workplace / model)
        loaded = AutoModelForCausalLM.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        backend = HFLM(pretrained=loaded, tokenizer=tokenizer, batch_size=3, device="cpu")
        for task in tasks:  # the library takes no two groups that share tasks
            results = lm_eval.simple_evaluate(
                backend,
                tasks=[task],
                task_manager=TaskManager(include_path=str(folder), include_defaults=False),
                bootstrap_iters=0,
                fewshot_random_seed=0,
                **more,
            )
            for name, metrics in (results["results"] | results.get("groups", {})).items():
                for key, value in metrics.items():
                    metric, _, filter_name = key.partition(",")
                    if filter_name == "none" and not metric.endswith("_stderr"):
                        found[f"{name}.{metric}", model] = value
    return found


@pytest.mark.parametrize(
    ("asked", "library"),
    [
        ({}, {}),
        ({"fewShot": 2, "limit": 5}, {"num_fewshot": 2, "limit": 5}),
    ],
)
def test_numbers_are_those_of_the_librarys_own_backend(
    evaluate: Evaluate,
    run_course: Run,
    workplace: Path,
    folder: Path,
    asked: dict[str, Any],
    library: dict[str, Any],
) -> None:
    tasks = ("both", "evenly", "answer", "text")
    found = by_name(run_course(evaluate(suite_of(folder, *tasks, **asked))).results)
    wanted = library_numbers(workplace, folder, *tasks, **library)
    assert {metric for metric, _ in wanted} == {
        *("choice.acc", "choice.acc_norm", "letter.acc", "answer.exact_match", "both.acc", "evenly.acc"),
        *("text.word_perplexity", "text.byte_perplexity", "text.bits_per_byte"),
    }
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].value == pytest.approx(value, rel=EXACT), name


def test_models_are_compared_question_by_question(evaluate: Evaluate, run_course: Run, folder: Path) -> None:
    outcome = run_course(evaluate(suite_of(folder, "both", "answer", "text")))
    found = by_name(outcome.results)
    right = found["answer.exact_match", "taught"]
    assert (right.n, right.verdict) == (len(QUESTIONS), "better")
    assert found["both.acc", "taught"].n == 2 * len(QUESTIONS)
    for one in outcome.results:
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high
        if one.metric == "text.bits_per_byte":
            assert one.low >= 0
    assert outcome.details["harness"]["versions"] == {"choice": 1.5, "letter": 1.5, "answer": 1.5, "text": 1.5}
    assert outcome.directions["harness"]["choice.acc"] == "higher"
    assert outcome.directions["harness"]["text.bits_per_byte"] == "lower"


def test_samples_have_answers_and_scores(evaluate: Evaluate, run_course: Run, folder: Path, tmp_path: Path) -> None:
    found = by_name(run_course(evaluate(suite_of(folder, "answer"))).results)
    lines = (tmp_path / "out/scores/harness.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]
    assert len(samples) == len(QUESTIONS)
    for model in ("untaught", "taught"):
        scores = [one["scores"]["answer.exact_match"][model] for one in samples]
        assert sum(scores) / len(scores) == found["answer.exact_match", model].value
    assert all("e" not in one["answers"]["taught"] for one in samples), "answers end before the stop string"


def test_only_the_metrics_asked_for_are_reported(evaluate: Evaluate, run_course: Run, folder: Path) -> None:
    found = by_name(run_course(evaluate(suite_of(folder, "choice", metrics=["choice.acc"]))).results)
    assert {metric for metric, _ in found} == {"choice.acc"}


class Stopped(Exception):
    pass


def test_what_was_answered_before_a_kill_is_not_asked_again(evaluate: Evaluate, folder: Path, workplace: Path) -> None:
    """Also drawn answers come out the same, whichever of them are asked for at a time."""
    (suite,) = make_suites(evaluate(suite_of(folder, "drawn", "choice")), Locations.from_environment())
    (requests,) = suite.collections()
    subject = loaded(evaluate, workplace)
    assert requests.size == 2 * len(QUESTIONS) + 4 * len(QUESTIONS)
    whole = rows_of(suite, subject, list(range(requests.size)))
    first: dict[int, Any] = {}

    def killed(row: dict[str, Any]) -> None:
        first[row["index"]] = row["response"]
        if len(first) == 40:
            raise Stopped

    with pytest.raises(Stopped):
        requests.collect(subject, list(range(requests.size)), killed)
    rest = rows_of(suite, subject, [index for index in range(requests.size) if index not in first])
    assert len(rest) == requests.size - 40
    for index, response in (first | rest).items():
        assert response == pytest.approx(whole[index], rel=EXACT) if index >= 16 else response == whole[index]
    drawn = [(whole[place], whole[place + 1]) for place in range(0, 16, 2)]
    assert any(one != other for one, other in drawn), "repeats are drawn anew"


def loaded(evaluate: Evaluate, workplace: Path) -> LocalModel:
    source = evaluate({"type": "questions", "questions": [{"ask": "?", "expect": ["!"]}]}).models[0].model
    return LocalModel.load("untaught", workplace / "untaught", source, precision=None, field="spec.models[0].model")


def rows_of(suite: Suite, subject: LocalModel, indices: list[int]) -> dict[int, Any]:
    rows: dict[int, Any] = {}
    suite.collections()[0].collect(subject, indices, lambda row: rows.update({row["index"]: row["response"]}))
    return rows


def test_two_workers_have_the_numbers_of_one(evaluate: Evaluate, run_course: Run, folder: Path) -> None:
    asked = suite_of(folder, "choice", "answer")
    alone = run_course(evaluate(asked, output="alone"))
    shared = evaluate(asked, output="shared", workers=2)
    assert run_course(shared, share=(1, 2)) is None
    together = run_course(shared, share=(0, 2))
    assert [one.value for one in together.results] == pytest.approx([one.value for one in alone.results])


def test_samples_of_other_questions_are_not_taken_for_those_of_a_task(evaluate: Evaluate, folder: Path) -> None:
    def key(**more: Any) -> str:
        (suite,) = make_suites(evaluate(suite_of(folder, "choice", **more)), Locations.from_environment())
        return suite.collections()[0].key

    assert key() == key(metrics=["choice.acc"])
    assert len({key(), key(limit=3), key(fewShot=1)}) == 3


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        (
            ["choise"],
            "spec.suites[0].tasks names choise, which lm-evaluation-harness does not have. Did you mean choice",
        ),
        (["choice", "away"], "spec.suites[0].tasks: the data of away cannot be had here ("),
        (["broken"], "spec.suites[0].tasks: broken does not work (UndefinedError: "),
    ],
)
def test_what_is_wrong_with_a_task_is_said_before_a_model_is_loaded(
    evaluate: Evaluate, folder: Path, tasks: list[str], message: str
) -> None:
    with pytest.raises(JobFailure) as failure:
        make_suites(evaluate(suite_of(folder, *tasks)), Locations.from_environment())
    assert failure.value.reason is FailureReason.TASK_INVALID
    assert failure.value.message.startswith(message)
    assert not failure.value.retryable


def test_data_that_would_have_to_be_fetched_is_refused_in_seconds(evaluate: Evaluate, folder: Path) -> None:
    """The libraries alone would ask a hub that does not answer again and again, for a minute and more."""
    begun = time.monotonic()
    with pytest.raises(JobFailure, match="set HF_HOME in the node pool's env to a cache on a volume"):
        make_suites(evaluate(suite_of(folder, "away")), Locations.from_environment())
    assert time.monotonic() - begun < 30
    assert not huggingface_hub.constants.HF_HUB_OFFLINE, "settings of the whole process are as they were"
