"""The arena: who wins, by how much, and how sure that is, by a reward and by a judge that is asked over HTTP."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import combinations
from threading import Thread
from typing import Any

import numpy as np
import pytest

from alidade_crds import evaluation
from alidade_crds.contract import JobSuite
from alidade_crds.evaluation import EvaluationResult
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.intervals import share_interval
from alidade_engine.ratings import win_rates
from alidade_engine.reward.functions import Reward
from alidade_eval.inference.intervals import proportion_interval
from alidade_eval.items import Item
from alidade_eval.judge import Judge
from alidade_eval.suites.arena import ArenaSuite, agreed
from alidade_eval.suites.base import Findings

Found = dict[tuple[str, str], EvaluationResult]


def items(count: int) -> list[Item]:
    return [Item(at, f"line {at}", [{"role": "user", "content": f"question {at}"}], ("x",)) for at in range(count)]


def no_reward() -> Reward:
    raise AssertionError("these rewards are given")


def by_reward(rewards: Mapping[str, Sequence[float]], *, margin: float = 0.0, baseline: str = "one") -> Findings:
    """What the suite finds in rewards of answers."""
    count = len(next(iter(rewards.values())))
    spec = JobSuite.model_validate(
        {"type": "arena", "dataset": "pvc://data/x.json", "function": "exact_match", "tieMargin": margin}
    )
    suite = ArenaSuite(spec, items(count), seed=0, field="spec.suites[0]", load=no_reward, baseline=baseline)
    (answers,), (scores,) = suite.collections(), suite.second()
    rows: dict[str, dict[str, list[dict[str, Any]]]] = {
        answers.key: {
            model: [{"index": at, "text": "said", "finished": True} for at in range(count)] for model in rewards
        },
        scores.key: {
            model: [{"index": at, "score": score} for at, score in enumerate(own)] for model, own in rewards.items()
        },
    }
    return suite.findings(rows, list(rewards))


def by_name(found: Findings) -> Found:
    return {(one.metric, one.model): one for one in found.results}


def test_planted_strengths_are_found() -> None:
    """Rewards with Gumbel noise win by Bradley and Terry's odds: 400 points apart are log 10 of their scale."""
    planted = {"one": 900.0, "two": 1000.0, "three": 1100.0}
    random = np.random.default_rng(3)
    rewards = {model: list(rating / 400 * np.log(10) + random.gumbel(size=2000)) for model, rating in planted.items()}
    found = by_name(by_reward(rewards))
    for model, rating in planted.items():
        one = found["elo", model]
        assert one.low is not None
        assert one.high is not None
        assert one.value == pytest.approx(rating, abs=15)  # 2,000 prompts: an interval's half width
        assert one.low <= rating <= one.high
        assert (one.n, one.high - one.low < 40) == (2000, True)
    assert [found[metric, "three"].verdict for metric in ("elo", "win_rate")] == ["better", "better"]
    assert found["elo", "one"].verdict is None
    assert sum(found["win_rate", model].value for model in planted) == pytest.approx(1.5)


def test_a_worse_model_is_told_and_an_equal_one_is_not() -> None:
    random = np.random.default_rng(0)
    rewards = {model: list(random.normal(shift, 1, 200)) for model, shift in (("one", 0), ("two", -1), ("three", 0))}
    found = by_name(by_reward(rewards))
    assert found["win_rate", "two"].verdict == "worse"
    assert found["win_rate", "three"].verdict == "indistinguishable"
    below, above = found["elo", "three"].difference_low, found["elo", "three"].difference_high
    assert below is not None
    assert above is not None
    assert below < 0 < above


def test_a_difference_within_the_margin_is_a_tie() -> None:
    rewards = {"one": [0.0, 0.0, 0.0, 0.0], "two": [0.5, -0.5, 0.75, -0.25]}
    wide, narrow = by_reward(rewards, margin=0.5), by_reward(rewards, margin=0.25)
    assert wide.details["wins"] == [[0, 1.5], [2.5, 0]]  # three ties, a win of the second
    assert narrow.details["wins"] == [[0, 1.5], [2.5, 0]]  # a tie, a win of the first, two of the second
    assert by_name(wide)["win_rate", "two"].value == 2.5 / 4
    assert [one.scores["win_rate"]["two"] for one in wide.samples] == [0.5, 0.5, 1.0, 0.5]
    assert [one.scores["win_rate"]["two"] for one in narrow.samples] == [1.0, 0.0, 1.0, 0.5]


@pytest.mark.parametrize(("prompts", "verdict"), [(5, "indistinguishable"), (8, "better")])
def test_winning_everything_is_no_certainty(prompts: int, verdict: str) -> None:
    """Resamples of nothing but wins are all alike; of equal models, one wins 5 of 5 in 1 of 16 cases, 8 of 8 in 128."""
    found = by_name(by_reward({"one": [0.0] * prompts, "two": [1.0] * prompts}))
    rate, elo = found["win_rate", "two"], found["elo", "two"]
    assert (rate.low, rate.high) == pytest.approx(proportion_interval(prompts, prompts))
    assert (rate.verdict, elo.verdict) == (verdict, verdict)
    for one in (rate, elo, found["elo", "one"]):
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high
        assert one.high - one.low > 0


def test_one_prompt_has_a_number_and_no_interval() -> None:
    one = by_name(by_reward({"one": [0.0], "two": [1.0]}))["win_rate", "two"]
    assert (one.value, one.low, one.high, one.verdict, one.n) == (1.0, None, None, None, 1)


def test_the_interval_of_a_count_is_wilsons() -> None:
    for successes, samples in ((0, 7), (3, 9), (40, 40)):
        assert share_interval(successes / samples, samples) == pytest.approx(proportion_interval(successes, samples))


def test_win_rates_of_many_tables_are_those_of_each() -> None:
    tables = np.random.default_rng(0).random((5, 3, 3)) * (1 - np.eye(3))
    assert win_rates(tables) == pytest.approx(np.stack([win_rates(table) for table in tables]))


# By a judge


@pytest.mark.parametrize(
    ("first", "second", "share"),
    [
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        (0.0, 1.0, 0.5),  # a contradiction
        (1.0, 0.0, 0.5),
        (0.5, 0.5, 0.5),
        (0.5, 1.0, 1.0),  # a tie and a win
        (None, 1.0, 1.0),
        (0.0, None, 0.0),
        (None, None, 0.5),
    ],
)
def test_both_orders_make_one_verdict(first: float | None, second: float | None, share: float) -> None:
    assert agreed({"first": first, "second": second}) == share


Say = Callable[[str, str], str]


@contextmanager
def served(say: Say) -> Iterator[Judge]:
    """A judge that is asked over HTTP. say: from the two answers as they are shown to what it says."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": "judge", "object": "model"}]})

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            shown = asked["messages"][-1]["content"]
            one, other = (re.findall(rf"\[answer {name}\]\n(.*?)\n\[/answer", shown, re.S)[0] for name in "AB")
            message = {"role": "assistant", "content": say(one, other)}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            self._send({"id": "1", "object": "chat.completion", "created": 0, "model": "judge", "choices": [choice]})

        def _send(self, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Judge(evaluation.Judge(url=f"http://127.0.0.1:{server.server_port}", concurrency=4), 0, {})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def judged_suite(judge: Judge, count: int) -> ArenaSuite:
    spec = JobSuite.model_validate(
        {"type": "arena", "dataset": "pvc://data/x.json", "judge": {"url": "http://judge.example"}}
    )
    return ArenaSuite(spec, items(count), seed=0, field="spec.suites[0]", judge=judge, baseline="one")


def by_judge(say: Say, lengths: Mapping[str, Sequence[int | None]]) -> tuple[Findings, list[dict[str, Any]]]:
    """What the suite finds, and all its verdicts; answers are as many letters, None is a failure."""
    count = len(next(iter(lengths.values())))
    with served(say) as judge:
        suite = judged_suite(judge, count)
        (answers,), (verdicts,) = suite.collections(), suite.second()
        rows: dict[str, dict[str, list[dict[str, Any]]]] = {
            answers.key: {
                model: [
                    {"index": at, "failure": "no room"}
                    if length is None
                    else {"index": at, "text": "x" * length, "finished": True}
                    for at, length in enumerate(own)
                ]
                for model, own in lengths.items()
            }
        }
        verdicts.prepare()
        kept: dict[str, list[dict[str, Any]]] = {}
        for pair in verdicts.subjects(list(lengths)):
            kept[pair] = []
            verdicts.collect(pair, range(count), rows, kept[pair].append)
            kept[pair].sort(key=lambda row: int(row["index"]))
        verdicts.release()
    assert list(kept) == ["+".join(pair) for pair in combinations(lengths, 2)]
    return suite.findings(rows | {verdicts.key: kept}, list(lengths)), [row for own in kept.values() for row in own]


def longer(one: str, other: str) -> str:
    verdict = "TIE" if len(one) == len(other) else "A" if len(one) > len(other) else "B"
    return f"Let me think.\nVERDICT: {verdict}"


def test_a_fair_judge_is_followed() -> None:
    lengths = {"one": [1, 2, 3, 4], "two": [2, 2, 1, 5], "three": [9, 9, 9, 9]}
    found, rows = by_judge(longer, lengths)
    assert found.details["wins"] == [[0, 1.5, 0], [2.5, 0, 0], [4, 4, 0]]
    assert found.details["games"] == 4
    assert found.warnings == []
    assert len(rows) == 12
    assert all(set(row) == {"index", "first", "second"} for row in rows)
    assert [sample.scores["win_rate"]["two"] for sample in found.samples] == [0.5, 0.25, 0.0, 0.5]


def test_a_judge_that_likes_what_it_sees_first_is_called_so_and_decides_nothing() -> None:
    found, _ = by_judge(lambda _one, _other: "VERDICT: A", {"one": [1] * 12, "two": [2] * 12})
    assert found.details["wins"] == [[0, 6], [6, 0]]
    assert by_name(found)["win_rate", "two"].verdict == "indistinguishable"
    assert found.warnings == [
        "arena: in 12 of 12 games the two orders contradict each other, 100% of them for the answer shown first; those "
        "count as ties."
    ]


def test_a_judge_that_likes_what_it_sees_second_is_called_so() -> None:
    found, _ = by_judge(lambda _one, _other: "B", {"one": [1] * 12, "two": [2] * 12})
    assert "100% of them for the answer shown second" in found.warnings[0]


def test_two_answers_that_are_the_same_are_a_tie_that_nobody_is_asked_about() -> None:
    asked: list[str] = []

    def say(one: str, other: str) -> str:
        asked.append(one)
        return longer(one, other)

    found, rows = by_judge(say, {"one": [3, 4], "two": [3, 5]})
    assert [(row["first"], row["second"]) for row in rows] == [(0.5, 0.5), (1.0, 1.0)]
    assert asked == ["2", "xxxx", "xxxxx"], "the trial, then both orders"
    assert found.details["wins"] == [[0, 0.5], [1.5, 0]]


def test_nonsense_is_counted_and_kept() -> None:
    def say(one: str, other: str) -> str:
        is_lost = len(one) == 7 or (len(one), len(other)) == (8, 7)
        return "I like both A and B." if is_lost else longer(one, other)

    found, rows = by_judge(say, {"one": [7, 1, 1, 7], "two": [9, 2, 1, 8]})
    assert [(row["first"], row["second"]) for row in rows] == [(None, 1.0), (1.0, 1.0), (0.5, 0.5), (None, None)]
    assert rows[0]["words"] == ["I like both A and B."]
    assert rows[3]["words"] == ["I like both A and B."] * 2
    assert "words" not in rows[1]
    assert found.details["wins"] == [[0, 1], [3, 0]]
    assert found.warnings == ["arena: the judge's answer was no verdict 3 of 8 times."]


def test_a_prompt_that_a_model_has_no_answer_to_is_left_out_for_all() -> None:
    found, rows = by_judge(longer, {"one": [1, 2, 3], "two": [2, None, 1], "three": [9, 9, 9]})
    assert sum("failure" in row for row in rows) == 2  # of three pairs, two have this model
    assert found.details["games"] == 2
    assert found.details["wins"] == [[0, 1, 0], [1, 0, 0], [2, 2, 0]]
    assert [sample.index for sample in found.samples] == [0, 2]
    assert [measure.metric for measure in found.measures] == ["failed"]
    assert by_name(found)["elo", "three"].n == 2


class Broken(Exception):
    pass


def test_verdicts_go_on_where_they_were_stopped() -> None:
    kept: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        kept.append(row)
        if len(kept) == 3:
            raise Broken

    with served(longer) as judge:
        suite = judged_suite(judge, 6)
        (answers,), (verdicts,) = suite.collections(), suite.second()
        rows = {
            answers.key: {
                model: [{"index": at, "text": "x" * (at + place), "finished": True} for at in range(6)]
                for place, model in enumerate(("one", "two"), 1)
            }
        }
        verdicts.prepare()
        with pytest.raises(Broken):
            verdicts.collect("one+two", range(6), rows, keep)
        rest = [index for index in range(6) if index not in {row["index"] for row in kept}]
        verdicts.collect("one+two", rest, rows, kept.append)
    assert sorted(row["index"] for row in kept) == list(range(6))
    assert {(row["first"], row["second"]) for row in kept} == {(1.0, 1.0)}


def test_a_judge_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alidade_eval.asking.STARTUP_S", 0.0)
    judge = Judge(evaluation.Judge(url="http://127.0.0.1:9"), 0, {})
    (verdicts,) = judged_suite(judge, 2).second()
    with pytest.raises(JobFailure, match=re.escape("spec.suites[0].judge.url is http://127.0.0.1:9: ")) as failure:
        verdicts.prepare()
    assert (failure.value.reason, failure.value.retryable) == (FailureReason.ENDPOINT_UNAVAILABLE, True)
