"""A served model as a subject, over real HTTP."""

import socket
import time
from typing import Any

import pytest

from alidade_crds.contract import ENDPOINT_KEY_ENV, JobEndpoint
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_eval import asking
from alidade_eval.asking import delay_s
from alidade_eval.endpoint import FIRST_ANSWERS, HttpEndpoint
from alidade_eval.subjects import Answer, AnswerSettings
from tests.eval.servers import Answer as Reply
from tests.eval.servers import Json, Script, as_json, generated, said, serving

PROMPTS = [[{"role": "user", "content": f"question {number}"}] for number in range(20)]
BUSY = as_json({"error": "overloaded", "error_type": "overloaded"}, 429)


@pytest.fixture(autouse=True)
def short_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_DELAY_S", 0.01)
    monkeypatch.setattr(asking, "STARTUP_S", 0.3)


def connected(url: str, *, key: str | None = None, **fields: Any) -> HttpEndpoint:
    endpoint = JobEndpoint.model_validate({"name": "served", "url": url, "timeoutSeconds": 2, "retries": 2} | fields)
    return HttpEndpoint.connect(endpoint, say=lambda _text: None, environment={ENDPOINT_KEY_ENV: key} if key else {})


def answers(subject: HttpEndpoint, settings: AnswerSettings | None = None, count: int = 20) -> dict[int, Answer]:
    found: dict[int, Answer] = {}
    subject.answers(
        PROMPTS[:count],
        settings or AnswerSettings(max_new_tokens=9),
        keys=list(range(count)),
        seed=5,
        keep=found.__setitem__,
    )
    return found


def echo(_number: int, body: Json) -> Reply:
    return said(f"to {body['messages'][-1]['content']}")


def test_openai_s_api_gets_the_turns_and_the_settings_and_each_answer_finds_its_question() -> None:
    script = Script(echo)
    with serving(script) as url:
        found = answers(connected(url), AnswerSettings(max_new_tokens=7, temperature=0.5, top_p=0.9))
    assert [found[place].text for place in range(20)] == [f"to question {place}" for place in range(20)]
    assert found[3] == Answer("to question 3", finished=True, tokens=3)
    body = next(one.body for one in script.asked if one.body["messages"][0]["content"] == "question 4")
    assert (body["model"], body["max_tokens"], body["temperature"], body["top_p"], body["seed"]) == (
        "served-model", 7, 0.5, 0.9, 9,
    )  # fmt: skip


def test_tgi_s_api_gets_the_text_as_it_is_and_greedy_where_nothing_is_drawn() -> None:
    script = Script(lambda _n, body: generated(f"to {body['inputs']}", finish="length"), openai=False, tgi=True)
    with serving(script) as url:
        found = answers(connected(url), count=3)
    assert found[2] == Answer("to question 2", finished=False, tokens=3)
    assert script.asked[0].body["parameters"]["do_sample"] is False
    assert "temperature" not in script.asked[0].body["parameters"]


def test_the_server_renders_where_it_can_and_the_manifest_may_insist() -> None:
    script = Script(lambda _n, body: generated("raw") if "inputs" in body else said("rendered"), tgi=True)
    with serving(script) as url:
        assert answers(connected(url), count=1)[0].text == "rendered"
        assert answers(connected(url, api="tgi"), count=1)[0].text == "raw"


def test_no_more_questions_are_open_at_once_than_allowed() -> None:
    script = Script(echo, delay_s=0.03)
    with serving(script) as url:
        answers(connected(url, concurrency=3))
    assert script.most_at_once == 3


@pytest.mark.parametrize(
    "trouble",
    [
        BUSY,
        as_json({}, 503),
        as_json({"oops": True}),
        (200, {"Content-Type": "application/json"}, b"{cut off"),
        (200, {"Content-Type": "text/html"}, b"<html>gateway</html>"),
        as_json({"choices": []}),
    ],
)
def test_a_passing_trouble_is_asked_again(trouble: Reply) -> None:
    script = Script(lambda number, body: trouble if number == 0 else echo(number, body))
    with serving(script) as url:
        found = answers(connected(url, concurrency=1), count=2)
    assert [found[place].failure for place in range(2)] == [None, None]
    assert len(script.asked) == 3


def test_what_stays_unanswered_is_kept_with_its_reason() -> None:
    def reply(number: int, body: Json) -> Reply:
        is_bad = body["messages"][0]["content"] == "question 11"
        return as_json({"error": "too long"}, 422) if is_bad else echo(number, body)

    script = Script(reply)
    with serving(script) as url:
        found = answers(connected(url))
    assert [place for place, answer in found.items() if answer.failure] == [11]
    assert "422" in (found[11].failure or "")
    assert "too long" in (found[11].failure or "")
    assert len(script.asked) == 20, "a refusal is not asked again"


def test_an_endpoint_that_answers_none_of_the_first_questions_ends_the_evaluation() -> None:
    script = Script(lambda _n, _b: BUSY)
    with serving(script) as url, pytest.raises(JobFailure, match="none of 8 questions was answered") as failure:
        answers(connected(url))
    assert (failure.value.reason, failure.value.retryable) == (FailureReason.ENDPOINT_UNAVAILABLE, True)
    assert len(script.asked) == FIRST_ANSWERS * 3


def test_a_slow_answer_is_given_up_and_counted() -> None:
    def reply(number: int, body: Json) -> Reply:
        if body["messages"][0]["content"] == "question 2":
            time.sleep(1.5)
        return echo(number, body)

    with serving(Script(reply)) as url:
        found = answers(connected(url, timeoutSeconds=1, retries=0), count=4)
    late = [answer for answer in found.values() if answer.failure]
    assert len(late) == 1
    assert "in time" in (late[0].failure or "")


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(JobFailure, match="cannot be reached") as failure:
        connected(f"http://127.0.0.1:{port}")
    assert f"spec.endpoint.url is http://127.0.0.1:{port}" in failure.value.message
    assert failure.value.retryable


def test_a_server_of_another_kind_is_named_so() -> None:
    with (
        serving(Script(echo, openai=False)) as url,
        pytest.raises(JobFailure, match="neither text-generation") as failure,
    ):
        connected(url)
    assert not failure.value.retryable


@pytest.fixture
def token_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HF_TOKEN", "hf_secret_of_the_hub")
    return "hf_secret_of_the_hub"


def test_the_endpoint_gets_its_own_key_and_never_the_hub_s(token_of_the_hub: str) -> None:
    script = Script(echo)
    with serving(script) as url:
        answers(connected(url, key="sk-endpoint"), count=1)
        answers(connected(url), count=1)
    with_key, without = (one.headers["authorization"] for one in script.asked)
    assert with_key == "Bearer sk-endpoint"
    assert token_of_the_hub not in without


def test_a_wrong_key_is_said_and_not_shown() -> None:
    class Locked(Script):
        def answer(self, asked: Any) -> Reply:
            return as_json({"error": "unauthorized"}, 401)

    with serving(Locked(echo)) as url, pytest.raises(JobFailure, match="the key is absent or wrong") as failure:
        connected(url, key="sk-endpoint")
    assert "sk-endpoint" not in failure.value.message


def test_redirections_are_not_followed() -> None:
    elsewhere = Script(echo)
    with serving(elsewhere) as other:
        away = (307, {"Location": f"{other}/v1/chat/completions"}, b"")
        with serving(Script(lambda _n, _b: away)) as url, pytest.raises(JobFailure, match="none of 8"):
            answers(connected(url, key="sk-endpoint", retries=0))
    assert elsewhere.asked == []


def test_delays_double_with_jitter_and_follow_the_server_s_wish() -> None:
    assert all(0.5 * 0.01 * 2**n <= delay_s(n, None) <= 0.01 * 2**n for n in range(6))
    assert delay_s(0, 3.0) == 3.0
    assert delay_s(0, 10_000.0) == 30.0
