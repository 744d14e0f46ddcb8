"""Answers and likelihoods of a model, against one sequence at a time."""

import math
from pathlib import Path

import pytest
import torch

from alidade_crds.contract import JobModel
from alidade_crds.reasons import FailureReason
from alidade_engine.digests import model_digest
from alidade_engine.failures import JobFailure
from alidade_eval.subjects import Answer, AnswerSettings, LocalModel, windows
from tests.eval.conftest import QUESTIONS

ASKED = [[{"role": "user", "content": ask}] for ask, _ in QUESTIONS]


@pytest.fixture(scope="module")
def taught(workplace: Path) -> LocalModel:
    return LocalModel.load("taught", workplace / "taught", JobModel(uri="x"), precision=None, field="spec.models[0]")


def naive_nats(subject: LocalModel, ids: list[int], scored: range) -> float:
    """One token at a time, in float64 after the model's float32."""
    with torch.inference_mode():
        logits = subject.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logits[place - 1, ids[place]]) for place in scored)


@pytest.mark.parametrize("stride", [1, 3, 7])
def test_every_token_is_scored_once_with_as_much_context_as_the_stride_leaves(stride: int) -> None:
    ids, width = list(range(20)), 8
    pieces = windows(ids, width, stride)
    scored = [
        (token, place)
        for piece in pieces
        for place, (token, own) in enumerate(zip(piece.input_ids, piece.answer_mask, strict=True))
        if own
    ]
    assert [token for token, _ in scored] == ids[1:]
    assert all(len(piece.input_ids) <= width for piece in pieces)
    assert all(place >= min(token, width - stride) for token, place in scored)


@pytest.mark.parametrize(("window", "stride"), [(8, 4), (8, 7), (16, None), (None, None)])
def test_sliding_windows_score_as_a_loop_does(taught: LocalModel, window: int | None, stride: int | None) -> None:
    texts = [f"{ask} {answer} " * times for times, (ask, answer) in enumerate(QUESTIONS[:4], 1)]
    found = taught.text_likelihoods(texts, window=window, stride=stride)
    width = window or 128
    step = stride or width // 2
    for text, likelihood in zip(texts, found, strict=True):
        start = taught.tokenizer.bos_token_id
        start = taught.tokenizer.eos_token_id if start is None else start
        ids = [start, *taught.tokenizer(text, add_special_tokens=False)["input_ids"]]
        nats, begin, done = 0.0, 0, 1
        while done < len(ids):
            end = min(begin + width, len(ids))
            nats += naive_nats(taught, ids[begin:end], range(done - begin, end - begin))
            begin, done = begin + step, end
        assert likelihood.tokens == len(ids) - 1
        # float32 logits of a batch and of a single row differ by about 1e-6 of their size.
        assert likelihood.nats == pytest.approx(nats, rel=1e-4)


def test_an_answer_is_scored_with_the_token_that_ends_it_and_without_its_prompt(taught: LocalModel) -> None:
    from alidade_engine.templates import render

    pairs = [(ASKED[place], QUESTIONS[place][1]) for place in range(4)]
    for (messages, answer), found in zip(pairs, taught.answer_likelihoods(pairs, template="auto"), strict=True):
        rendered = render(taught.tokenizer, [*messages, {"role": "assistant", "content": answer}])
        first = rendered.answer_mask.index(True)
        assert not isinstance(found, str)
        assert rendered.input_ids[-1] in (taught.tokenizer.eos_token_id, *taught.tokenizer.all_special_ids)
        assert found.tokens == len(rendered.input_ids) - first
        nats = naive_nats(taught, rendered.input_ids, range(first, len(rendered.input_ids)))
        assert found.nats == pytest.approx(nats, rel=1e-3, abs=1e-4)


def test_a_pair_that_does_not_fit_the_context_says_so(taught: LocalModel) -> None:
    short, long = taught.answer_likelihoods([(ASKED[0], "red"), (ASKED[0], "red " * 200)], template="auto")
    assert not isinstance(short, str)
    assert math.isfinite(short.nats)
    assert isinstance(long, str)
    assert long.endswith("tokens; the model's context is 128")


def drawn(subject: LocalModel, places: list[int], seed: int = 0) -> dict[int, Answer]:
    kept: dict[int, Answer] = {}
    settings = AnswerSettings(max_new_tokens=6, temperature=1.0)
    prompts = [ASKED[place] for place in places]
    subject.answers(prompts, settings, keys=places, seed=seed, keep=lambda at, one: kept.update({places[at]: one}))
    return kept


def test_a_prompt_has_the_same_drawn_answer_among_whichever_others(workplace: Path) -> None:
    subject = LocalModel.load("one", workplace / "untaught", JobModel(uri="x"), precision=None, field="f")
    together = drawn(subject, list(range(8)))
    assert drawn(subject, [5, 2]) == {place: together[place] for place in (5, 2)}
    assert drawn(subject, list(range(8)), seed=1) != together


def test_an_answer_that_the_limit_cut_is_unfinished(taught: LocalModel) -> None:
    kept: list[Answer] = []
    settings = AnswerSettings(max_new_tokens=1)
    taught.answers(ASKED[:2], settings, keys=[0, 1], seed=0, keep=lambda _, one: kept.append(one))
    assert [(one.finished, one.tokens) for one in kept] == [(False, 1), (False, 1)]


def test_a_model_that_changed_since_the_document_was_made_is_refused(workplace: Path) -> None:
    folder = workplace / "taught"
    right = JobModel(uri="pvc://models/taught", digest=model_digest(folder))
    LocalModel.load("taught", folder, right, precision=None, field="spec.models[0].model")
    wrong = JobModel(uri="pvc://models/taught", digest="sha256:0")
    with pytest.raises(JobFailure, match=r"spec.models\[0\].model is pvc://models/taught, whose digest is") as failure:
        LocalModel.load("taught", folder, wrong, precision=None, field="spec.models[0].model")
    assert failure.value.reason is FailureReason.DIGEST_MISMATCH
