"""Results of an evaluation in a container's last words."""

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alidade_crds.contract import TERMINATION_MESSAGE_LIMIT, ResultDocument
from alidade_crds.evaluation import EvaluationResult
from alidade_crds.packed import PackedResults

numbers = st.floats(-1e6, 1e6)
names = st.from_regex(r"[a-z0-9][-a-z0-9.]{0,20}", fullmatch=True)
results = st.builds(
    EvaluationResult,
    suite=names,
    metric=names,
    model=names,
    value=numbers,
    low=st.none() | numbers,
    high=st.none() | numbers,
    n=st.integers(0, 10**6),
    verdict=st.sampled_from([None, "better", "worse", "indistinguishable"]),
    difference_low=st.none() | numbers,
    difference_high=st.none() | numbers,
)


@given(st.lists(results, max_size=20))
def test_what_is_packed_comes_out_again_to_five_digits(rows: list[EvaluationResult]) -> None:
    found = PackedResults.of(rows).results()
    assert len(found) == len(rows)
    for one, other in zip(rows, found, strict=True):
        assert (one.suite, one.metric, one.model, one.n, one.verdict) == (
            other.suite,
            other.metric,
            other.model,
            other.n,
            other.verdict,
        )
        assert other.value == pytest.approx(one.value, rel=1e-4)
        assert (one.low is None) == (other.low is None)


def rows(count: int) -> list[EvaluationResult]:
    return [
        EvaluationResult(suite=f"suite-{n % 7}", metric=f"metric{n % 9}", model=f"model-{n % 5}", value=n * 0.7317, n=n)
        for n in range(count)
    ]


def test_a_hundred_numbers_fit_beside_warnings_that_do_not() -> None:
    document = ResultDocument(outcome="succeeded", evaluation=PackedResults.of(rows(100)), warnings=["w" * 5000])
    text = document.to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    read = ResultDocument.model_validate_json(text)
    assert read.warnings == []
    assert read.evaluation is not None
    assert read.evaluation.omitted == 0
    assert len(read.evaluation.results()) == 100


def test_what_does_not_fit_is_left_out_at_the_end_and_counted() -> None:
    document = ResultDocument(outcome="succeeded", evaluation=PackedResults.of(rows(2000)))
    text = document.to_termination_message()
    assert len(text.encode()) <= TERMINATION_MESSAGE_LIMIT
    read = ResultDocument.model_validate_json(text).evaluation
    assert read is not None
    kept = read.results()
    assert 0 < len(kept) < 2000
    assert read.omitted == 2000 - len(kept)
    assert [one.n for one in kept] == list(range(len(kept)))


@pytest.mark.parametrize(
    "text",
    [
        "not base85 \x00",
        base64.b85encode(b"not zlib").decode(),
        base64.b85encode(zlib.compress(b"[[1, 2]]")).decode(),
        base64.b85encode(zlib.compress(b"{")).decode(),
        base64.b85encode(zlib.compress(b" " * (1 << 21))).decode(),
    ],
)
def test_what_is_no_packed_results_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        PackedResults(rows=1, packed=text).results()
