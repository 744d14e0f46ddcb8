"""The numbers of a load, against cases worked by hand."""

import numpy as np
import pytest

from alidade_cli.loadtest.charts import charts_of_one, page, tokens_over_time
from alidade_cli.loadtest.load import Outcome
from alidade_cli.loadtest.records import Record
from alidade_cli.loadtest.summary import Spread, in_flight, parse_objectives, percentile, summarize
from alidade_cli.loadtest.tables import Row, duration_text, notes


def answered(arrived: float, first: float, end: float, tokens: int | None, *, sent: float | None = None) -> Record:
    record = Record(0, arrived, sent_s=arrived if sent is None else sent, first_token_s=first, answer_tokens=tokens)
    record.prompt_tokens = 10
    record.end("answered", end)
    return record


def refused(arrived: float, at: float, reason: str) -> Record:
    record = Record(0, arrived, sent_s=arrived)
    record.end("shed" if reason.startswith("429") else "failed", at, reason, f"because of {reason}")
    return record


RECORDS = [
    answered(0, 0.5, 2.5, 5),  # TTFT 0.5, 4 tokens in 2 s: TPOT 0.5, whole 2.5
    answered(1, 1.25, 1.5, 2, sent=1.125),  # TTFT 0.25, TPOT 0.25, whole 0.5; waited 0.125
    answered(2, 4, 4, 1),  # TTFT 2, no TPOT, whole 2
    refused(3, 3.5, "429 Too Many Requests"),
    refused(3, 4.5, "timeout"),
    refused(3, 3.25, "429 Too Many Requests"),
]


def test_a_load_in_numbers() -> None:
    summary = summarize(Outcome(RECORDS, elapsed_s=5.0), 4.0, {"ttft": 0.5, "e2e": 1})
    assert (summary.offered, summary.answered, summary.shed, summary.failed) == (6, 3, 2, 1)
    assert (summary.offered_per_s, summary.per_s(summary.answered)) == (1.5, 0.6)
    assert (summary.answer_tokens, summary.prompt_tokens, summary.per_s(8)) == (8, 30, 1.6)
    assert summary.ttft is not None
    assert (summary.ttft.p50, summary.ttft.max) == (0.5, 2)
    assert summary.ttft.mean == pytest.approx(2.75 / 3)
    assert summary.tpot is not None
    assert (summary.tpot.count, summary.tpot.p50) == (2, 0.375)
    assert summary.e2e is not None
    assert summary.e2e.p50 == 2
    assert summary.late is not None
    assert summary.late.max == 0.125
    assert summary.gap is None
    # Only the second answer is within both objectives: the first is whole too late, the third begins too late.
    assert summary.good == 1
    assert summary.to_dict()["goodput"] == pytest.approx(1 / 6)
    assert [(one.reason, one.count) for one in summary.errors] == [("429 Too Many Requests", 2), ("timeout", 1)]
    assert summary.errors[0].message == "because of 429 Too Many Requests"


def test_a_load_without_an_answer_has_no_latencies() -> None:
    summary = summarize(Outcome(RECORDS[3:], elapsed_s=5.0), 4.0, {})
    assert (summary.ttft, summary.tpot, summary.e2e, summary.good) == (None, None, None, None)
    assert summary.to_dict()["ttftSeconds"] is None


def test_answers_that_the_server_did_not_count_have_no_time_per_token() -> None:
    summary = summarize(Outcome([answered(0, 1, 2, None)], elapsed_s=2.0), 2.0, {"tpot": 0.1})
    assert (summary.uncounted, summary.tpot, summary.answer_tokens) == (1, None, 0)
    assert list(notes([Row("1/s", summary)])) == ["of 1 answers the server did not say how many tokens they have"]


def test_percentiles_are_numpys() -> None:
    values = sorted(np.random.default_rng(0).exponential(size=137).tolist())
    for percent in (0, 1, 50, 90, 95, 99, 99.9, 100):
        assert percentile(values, percent) == pytest.approx(float(np.percentile(values, percent)))
    assert percentile([3.0], 99) == 3.0


def test_requests_in_flight_go_up_and_down() -> None:
    records = [answered(0, 1, 4, 2), answered(1, 2, 2, 2), answered(2, 2.5, 3, 2)]
    assert in_flight(records) == [(0, 1), (1, 2), (2, 2), (3, 1), (4, 0)]
    never_sent = Record(0, 0.0)
    assert in_flight([never_sent]) == []


def test_tokens_over_time_are_all_tokens() -> None:
    """4 tokens from 0.5 to 2.5: one in the first second, two in the second, one in the third; one token at 1.75."""
    found = tokens_over_time([answered(0, 0.5, 2.5, 4), answered(0, 1.75, 1.75, 1)])
    assert found == [(0.5, 1.0), (1.5, 3.0), (2.5, 1.0)]


@pytest.mark.parametrize("text", ["ttft", "ttft=", "ttft=0", "ttft=1,ttft=2", "speed=3", "e2e=inf", "e2e=nan"])
def test_what_is_no_objective_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="write seconds for ttft, tpot, e2e"):
        parse_objectives(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0001234, "0.123 ms"),
        (0.0123, "12.3 ms"),
        (0.4567, "457 ms"),
        (0.9996, "1 s"),
        (12.34, "12.3 s"),
        (1234, "1234 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_a_spread_of_nothing_is_none() -> None:
    assert Spread.of([None, None]) is None


def test_the_page_says_what_was_said_by_others_as_text() -> None:
    summary = summarize(Outcome(RECORDS, elapsed_s=5.0), 4.0, {})
    written = page("Load test", "<script>alert(1)</script>", [Row("1/s", summary)], charts_of_one(RECORDS), "rate")
    assert "<script" not in written
    assert "http" not in written
    assert written.count("<svg") == 4
