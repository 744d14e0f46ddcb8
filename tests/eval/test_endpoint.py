"""A served model as a subject, over real HTTP."""

import socket
import threading
import time
from typing import Any

import pytest
from huggingface_hub import constants, get_session
from huggingface_hub.errors import OfflineModeIsEnabled

from alidade_crds.contract import ENDPOINT_KEY_ENV, ENDPOINT_URL_ENV, JobEndpoint
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_eval import asking
from alidade_eval.asking import delay_s
from alidade_eval.endpoint import FAILURES_IN_A_ROW, GREETING, HttpEndpoint
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


def test_an_address_in_the_environment_is_asked_in_place_of_the_document_s() -> None:
    with serving(Script(echo)) as url:
        endpoint = JobEndpoint(name="served", url="http://sums.default.svc")
        subject = HttpEndpoint.connect(endpoint, say=lambda _text: None, environment={ENDPOINT_URL_ENV: url})
        assert answers(subject, count=1)[0].text == "to question 0"


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
    assert script.asked[0].path == "/generate"


def test_an_address_may_end_as_openai_s_do() -> None:
    script = Script(lambda _n, body: generated("raw") if "inputs" in body else said("rendered"), tgi=True)
    with serving(script) as url:
        assert answers(connected(f"{url}/v1/"), count=1)[0].text == "rendered"
        assert answers(connected(f"{url}/v1", api="tgi"), count=1)[0].text == "raw"
    assert [one.path for one in script.asked] == ["/v1/chat/completions", "/generate"]


@pytest.mark.parametrize(("is_tgi", "top_p"), [(False, 1.0), (True, None)])
def test_a_top_p_of_1_is_said_but_to_tgi_which_refuses_it(is_tgi: bool, top_p: float | None) -> None:
    script = Script(echo, tgi=is_tgi)
    with serving(script) as url:
        answers(connected(url), AnswerSettings(temperature=1.0), count=1)
    assert script.asked[0].body.get("top_p") == top_p


def test_a_server_whose_api_and_model_are_named_need_not_list_models() -> None:
    script = Script(echo, openai=False)
    with serving(script) as url:
        assert answers(connected(url, api="openai", model="hidden"), count=1)[0].failure is None
    assert script.asked[0].body["model"] == "hidden"


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
    def busy(_number: int, _body: Json) -> Reply:
        time.sleep(0.1)  # a server that refuses at once is asked more before the count is taken
        return BUSY

    script = Script(busy)
    with (
        serving(script) as url,
        pytest.raises(
            JobFailure, match="8 questions in a row were not answered, nor is a greeting: it answers 429"
        ) as f,
    ):
        answers(connected(url, concurrency=1, retries=0))
    assert (f.value.reason, f.value.retryable) == (FailureReason.ENDPOINT_UNAVAILABLE, True)
    assert len(script.asked) <= FAILURES_IN_A_ROW + 3, "the greeting, and what was under way"


def test_an_endpoint_that_goes_away_midway_ends_the_evaluation_with_its_answers_kept() -> None:
    found: dict[int, Answer] = {}
    script = Script(lambda number, body: echo(number, body) if number < 6 else as_json({}, 503))
    with serving(script) as url, pytest.raises(JobFailure, match="nor is a greeting"):
        connected(url, concurrency=1, retries=0).answers(
            PROMPTS, AnswerSettings(), keys=range(20), seed=0, keep=found.__setitem__
        )
    assert [place for place, answer in found.items() if answer.failure is None] == list(range(6))


@pytest.mark.parametrize("count", [3, 20])
def test_questions_that_cannot_be_answered_do_not_end_the_evaluation(count: int) -> None:
    """As after a restart, which asks again only what had no answer."""
    too_long = as_json({"error": "too long"}, 422)
    script = Script(lambda number, body: echo(number, body) if body["messages"] == GREETING else too_long)
    with serving(script) as url:
        found = answers(connected(url), count=count)
    assert sorted(found) == list(range(count))
    assert all("too long" in (answer.failure or "") for answer in found.values())


def test_a_stop_waits_for_no_delay() -> None:
    class Stop(BaseException):
        """What keep raises."""

    def keep(_place: int, _answer: Answer) -> None:
        assert busy.wait(60)
        raise Stop

    def reply(number: int, body: Json) -> Reply:
        if body["messages"][0]["content"] == "question 0":
            return echo(number, body)
        busy.set()
        return as_json({}, 503, retry_after="60")

    busy = threading.Event()
    with serving(Script(reply)) as url:
        subject, begun = connected(url), time.monotonic()
        with pytest.raises(Stop):
            subject.answers(PROMPTS[:2], AnswerSettings(), keys=range(2), seed=0, keep=keep)
    assert time.monotonic() - begun < 25


def test_a_slow_answer_is_given_up_and_counted() -> None:
    def reply(number: int, body: Json) -> Reply:
        if body["messages"][0]["content"] == "question 2":
            time.sleep(4)
        return echo(number, body)

    with serving(Script(reply)) as url:
        found = answers(connected(url, timeoutSeconds=3, retries=0), count=4)
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


def test_a_page_at_every_path_is_no_model() -> None:
    class Site(Script):
        def answer(self, asked: Any) -> Reply:
            return 200, {"Content-Type": "text/html"}, b"<html>welcome</html>"

    with serving(Site(echo)) as url, pytest.raises(JobFailure, match="neither text-generation"):
        connected(url)


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


def test_a_key_loses_its_line_break_and_is_not_shown_where_the_server_says_it_back() -> None:
    def reply(number: int, body: Json) -> Reply:
        return as_json({"error": f"no budget for {script.asked[number].headers['authorization']}"}, 402)

    script = Script(lambda n, b: echo(n, b) if b["messages"] == GREETING else reply(n, b))
    with serving(script) as url:
        failure = answers(connected(url, key="sk-endpoint\n"), count=1)[0].failure or ""
    assert script.asked[0].headers["authorization"] == "Bearer sk-endpoint"
    assert "no budget for Bearer (the key)" in failure


def test_a_key_that_no_header_may_have_is_not_shown() -> None:
    with serving(Script(echo)) as url, pytest.raises(JobFailure, match="no header may have") as failure:
        connected(url, key="sk-one\nsk-two")
    assert "sk-one" not in failure.value.message


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
        with serving(Script(lambda _n, _b: away)) as url, pytest.raises(JobFailure, match="it answers 307 and points"):
            answers(connected(url, key="sk-endpoint"))
    assert elsewhere.asked == []


def test_downloads_beside_an_endpoint_follow_redirections_and_keep_off_a_hub_that_must_not_be_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Hub(Script):
        def answer(self, asked: Any) -> Reply:
            return (302, {"Location": "/weights"}, b"") if asked.path == "/file" else (200, {}, b"weights")

    with serving(Script(echo)) as url, serving(Hub(echo)) as hub:
        subject = connected(url)
        assert get_session().get(f"{hub}/file").content == b"weights"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert answers(subject, count=1)[0].failure is None
    with pytest.raises(OfflineModeIsEnabled):
        get_session().get(f"{constants.ENDPOINT}/api/models")


def test_delays_double_with_jitter_and_follow_the_server_s_wish() -> None:
    assert all(0.5 * 0.01 * 2**n <= delay_s(n, None) <= 0.01 * 2**n for n in range(6))
    assert delay_s(0, 3.0) == 3.0
    assert delay_s(0, 10_000.0) == 30.0
