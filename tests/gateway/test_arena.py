"""The arena over real connections: what is asked, voted and kept, and everything that is refused."""

import http.client
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.gateway.running import ask, wait_for
from tests.gateway.talking import COMPARISONS, JSON, Arena, Talkers
from tests.ports import free_port


@pytest.fixture
def own(talkers: Talkers, tmp_path: Path) -> Iterator[Callable[..., Arena]]:
    """Starts an arena of the test's own."""
    with ExitStack() as ended:
        yield lambda **flags: ended.enter_context(Arena(talkers, tmp_path / "votes", **flags))


def test_a_vote_is_about_what_the_models_said_and_tells_who_they_were(own: Callable[..., Arena]) -> None:
    arena = own()
    compared = arena.compare("hello there")
    assert set(compared.texts.values()) == {"one says 你好 to hello", "two says 你好 to hello"}
    assert compared.answered
    better = compared.side_of("two")
    worse = compared.side_of("one")
    reply = arena.vote(compared.id, better)
    names = {"one": {"name": "tiny", "model": "pvc://models/one"}, "two": {"name": "two", "model": "pvc://models/two"}}
    assert (reply.status, reply.json()) == (200, {"vote": better, better: names["two"], worse: names["one"]})
    (record,) = arena.records()
    assert (
        record.items()
        >= {
            "prompt": [{"role": "user", "content": "hello there"}],
            "chosen": "two says 你好 to hello",
            "chosenModel": "pvc://models/two",
            "rejected": "one says 你好 to hello",
            "rejectedModel": "pvc://models/one",
        }.items()
    )
    assert arena.gateway.status()["votes"] == 1
    assert arena.gateway.metric("modelserve_gateway_votes_total") == 1


def test_both_are_asked_the_same_and_each_by_its_own_name(arena: Arena) -> None:
    arena.compare("samehere please")
    one, two = (
        next(asked for asked in talker.asked() if asked["messages"][0]["content"] == "samehere please")
        for talker in (arena.one, arena.two)
    )
    assert (one.pop("model"), two.pop("model")) == ("tiny", "two")
    assert one == two
    assert (one["stream"], one["temperature"], one["authorization"]) == (True, 0.7, None)


def test_nothing_tells_the_sides_apart_before_the_vote(arena: Arena) -> None:
    reply = arena.post(COMPARISONS, {"message": "echo word"})
    assert re.search(rb"tiny|two|one\b|stable|against|canary|pvc", reply.body) is None
    assert "X-Alidade-Backend" not in reply.headers


def test_sides_are_shuffled(arena: Arena) -> None:
    with ThreadPoolExecutor(4) as pool:
        sides = Counter(pool.map(lambda _: arena.compare("where").side_of("one"), range(20)))
    assert len(sides) == 2  # all the same way once in half a million times


def test_both_answers_come_at_once(arena: Arena, talkers: Talkers) -> None:
    """Each has sent its first piece before either may go on."""
    connection = http.client.HTTPConnection(urlsplit(arena.url).netloc, timeout=60)
    connection.request("POST", COMPARISONS, json.dumps({"message": "gate both"}), JSON)
    response = connection.getresponse()
    assert response.headers["Content-Type"] == "text/event-stream"
    events: list[dict[str, Any]] = []
    while sum("text" in event for event in events) < 2:
        if (line := response.readline()).startswith(b"data: "):
            events.append(json.loads(line[6:]))
    assert {event["side"] for event in events[1:]} == {"left", "right"}
    early = arena.vote(events[0]["id"], "left")
    assert (early.status, early.json()["error"]) == (409, "The answers are not complete yet; vote when both are.")
    talkers.open("both")
    assert response.read().endswith(b'{"answered":true,"alike":false}\n\n')
    connection.close()


def test_ratings_move_with_votes_and_survive_a_restart(own: Callable[..., Arena]) -> None:
    arena = own()
    start = arena.ratings()
    assert (start["votes"], [(row["name"], row["rating"], row["low"]) for row in start["ratings"]]) == (
        0,
        [("tiny", 1000, None), ("two", 1000, None)],
    )
    for number in range(4):
        compared = arena.compare(f"question {number}")
        assert arena.vote(compared.id, compared.side_of("two") if number else "tie").status == 200
    found = arena.ratings()
    assert found["votes"] == 4
    assert [(row["name"], row["model"], row["votes"]) for row in found["ratings"]] == [
        ("two", "pvc://models/two", 4),
        ("tiny", "pvc://models/one", 4),
    ]
    best = found["ratings"][0]
    assert best["low"] < best["rating"] < best["high"]
    assert best["rating"] > 1000
    assert (len(arena.records()), len(arena.records("ties-*.jsonl"))) == (3, 1)
    arena.gateway.kill()
    (path,) = arena.votes.glob("votes-*.jsonl")
    with path.open("ab") as torn:
        torn.write(b'{"prompt":[{"role"')
    arena.gateway = arena.another_gateway()
    assert arena.ratings() == found
    assert any("was never finished" in line for line in arena.gateway.log)
    assert len(arena.records()) == 3


def test_a_gateway_that_follows_sees_the_votes_of_the_one_that_still_ends(own: Callable[..., Arena]) -> None:
    arena = own()
    later = arena.another_gateway()
    assert ask(later.url, "/arena/api/ratings", None, "GET").json()["votes"] == 0
    assert arena.vote(arena.compare("hello").id, "left").status == 200
    assert ask(later.url, "/arena/api/ratings", None, "GET").json()["votes"] == 1


def test_a_comparison_has_one_vote(arena: Arena) -> None:
    votes = len(arena.records())
    compared = arena.compare("hello")
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: arena.vote(compared.id, "left"), range(16)))
    assert Counter(reply.status for reply in replies) == {200: 1, 409: 15}
    assert "has its vote already" in next(reply for reply in replies if reply.status == 409).json()["error"]
    assert len(arena.records()) == votes + 1


@pytest.mark.parametrize("identifier", ["x" * 24, "x" * 5000, "..%2f..%2fvotes", "%00", "é".encode().hex(), "a b"])
def test_an_unknown_comparison_has_no_vote(arena: Arena, identifier: str) -> None:
    reply = arena.vote(identifier.replace(" ", "%20"), "left")
    assert reply.status == 404
    assert "Ask again." in reply.json()["error"]


def test_two_equal_answers_can_only_tie(arena: Arena) -> None:
    compared = arena.compare("same for both")
    assert compared.events[-1] == {"answered": True, "alike": True}
    assert arena.vote(compared.id, "left").status == 409
    assert arena.vote(compared.id, "both_bad").status == 200


def test_a_follow_up_goes_on_from_the_better_answer(arena: Arena) -> None:
    first = arena.compare("first")
    assert arena.post(COMPARISONS, {"message": "second", "after": first.id}).status == 409
    assert arena.vote(first.id, first.side_of("two")).status == 200
    second = arena.compare("second", after=first.id)
    turns = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "two says 你好 to first"},
        {"role": "user", "content": "second"},
    ]
    assert arena.one.asked()[-1]["messages"] == arena.two.asked()[-1]["messages"] == turns
    assert arena.vote(second.id, "left").status == 200
    assert arena.records()[-1]["prompt"] == turns
    bad = arena.compare("third")
    assert arena.vote(bad.id, "both_bad").status == 200
    assert "were bad" in arena.post(COMPARISONS, {"message": "m", "after": bad.id}).json()["error"]
    assert arena.post(COMPARISONS, {"message": "m", "after": "unknown"}).status == 404


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("refuse two", "This side does not take the message: The prompt is too long."),
        ("fail two", r"This side's server answered with an error \(500\); its log says why."),
        ("break two", "This side's answer broke off; ask again."),
    ],
)
def test_without_two_whole_answers_there_is_no_vote(arena: Arena, message: str, said: str) -> None:
    compared = arena.compare(message)
    assert not compared.answered
    ((side, why),) = compared.failed.items()
    assert re.fullmatch(said, why)
    reply = arena.vote(compared.id, side)
    assert (reply.status, reply.json()["error"]) == (409, "There are no two whole answers to vote on; ask again.")
    assert "two" not in why


def test_a_side_that_is_not_there_is_said_not_to_answer(own: Callable[..., Arena]) -> None:
    arena = own(hold_s=0.3, arena_against=f"http://127.0.0.1:{free_port()}")
    compared = arena.compare("hello")
    assert list(compared.failed.values()) == ["This side did not answer; ask again in a while."]
    assert compared.texts[next(iter(compared.failed))] == ""


def test_an_empty_answer_is_an_answer(arena: Arena) -> None:
    compared = arena.compare("nothing two")
    assert set(compared.texts.values()) == {"", "something"}
    assert arena.vote(compared.id, compared.side_of("something")).status == 200


def test_an_answer_without_end_is_cut(arena: Arena) -> None:
    compared = arena.compare("long")
    assert [len(text) for text in compared.texts.values()] == [16_000, 16_000]
    assert compared.answered


def test_half_a_character_of_a_model_becomes_one_that_can_be_kept(arena: Arena) -> None:
    compared = arena.compare("half")
    assert compared.texts["left"] == "a?"
    assert arena.vote(compared.id, "tie").status == 200


def test_who_leaves_ends_both_answers_and_cannot_vote(arena: Arena) -> None:
    connection = http.client.HTTPConnection(urlsplit(arena.url).netloc, timeout=60)
    connection.request("POST", COMPARISONS, json.dumps({"message": "forever"}), JSON)
    response = connection.getresponse()
    identifier = json.loads(response.readline()[6:])["id"]
    arena.gateway.await_status(running=1)
    response.close()
    connection.close()
    arena.gateway.await_status(running=0)
    assert arena.vote(identifier, "left").status == 409


def test_script_is_text_from_end_to_end(arena: Arena) -> None:
    script = "<script>alert(1)</script>\u2028</textarea>"
    compared = arena.compare(f"echo {script}")
    assert set(compared.texts.values()) == {script}
    assert arena.vote(compared.id, "tie").status == 200
    assert arena.records("ties-*.jsonl")[-1]["left"] == script


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"message": ""}, 422, "message is missing or empty"),
        ({"message": " \n"}, 422, "message is missing or empty"),
        ({}, 422, "message is missing or empty"),
        ({"message": ["a"]}, 422, "message is missing or empty"),
        ({"message": "x" * 8001}, 422, "message has 8001 characters; at most 8000 are taken."),
        (b'{"message": "\\ud83d"}', 422, "message holds half a character at 0."),
        ({"message": "m", "after": 1}, 422, "after is the identifier"),
        ({"message": "m", "left": "invented"}, 422, "'left' is not known here; what is known is message, after."),
        (b"", 400, "The body is not JSON"),
        (b"\xff", 400, "The body is not UTF-8: byte 0 cannot be read."),
        (b"[1]", 400, "The body is a JSON list; send an object."),
        (b'{"message": ' + b"[" * 30_000, 400, "The body is nested too deeply."),
        (b'{"message": NaN}', 400, "NaN is not a JSON number"),
        (b'{"message": "' + b"x" * 70_000 + b'"}', 413, "The body is longer than 65536 bytes"),
    ],
)
def test_a_message_that_cannot_be_asked_is_refused(arena: Arena, body: Any, status: int, said: str) -> None:
    reply = arena.post(COMPARISONS, body)
    assert (reply.status, said in reply.json()["error"]) == (status, True), reply.body


@pytest.mark.parametrize("verdict", ["best", "", None, 1, ["left"], {"a": 1}, "LEFT"])
def test_a_vote_is_one_of_four(arena: Arena, verdict: Any) -> None:
    reply = arena.vote("any", verdict)
    assert (reply.status, reply.json()["error"]) == (422, "vote is one of left, right, tie, both_bad.")


def test_another_sites_form_cannot_ask(arena: Arena) -> None:
    """Browsers send JSON across sites only after they have asked whether they may, which nobody here answers."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        assert arena.post(COMPARISONS, {"message": "m"}, {"Content-Type": kind}).status == 415
    assert ask(arena.url, COMPARISONS, None, "OPTIONS").status == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", COMPARISONS),
        ("GET", "/arena/api"),
        ("POST", "/arena/api/ratings"),
        ("GET", "/arena/x"),
        ("GET", "/arena/"),
        ("DELETE", COMPARISONS + "/x/vote"),
    ],
)
def test_what_is_below_the_arena_never_reaches_a_server(arena: Arena, method: str, path: str) -> None:
    reply = ask(arena.url, path, None, method)
    assert reply.status == 404
    assert "X-Alidade-Backend" not in reply.headers


def test_one_address_cannot_ask_without_end(own: Callable[..., Arena]) -> None:
    arena = own()
    with ThreadPoolExecutor(4) as pool:
        statuses = Counter(pool.map(lambda _: arena.post(COMPARISONS, {"message": "m"}).status, range(75)))
    assert set(statuses) == {200, 429}
    assert 60 <= statuses[200] < 75
    refused = arena.post(COMPARISONS, {"message": "m"})
    assert int(refused.headers["Retry-After"]) >= 1


def test_keys_are_asked_for_and_passed_on(own: Callable[..., Arena], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret\n")
    arena = own(keys_from=tmp_path / "keys")
    for reply in (
        arena.post(COMPARISONS, {"message": "m"}),
        arena.vote("x", "left"),
        ask(arena.url, "/arena/api/ratings", None, "GET"),
        ask(arena.url, "/arena/api/nothing", None, "GET"),
        ask(arena.url, "/pages/../settings.py", None, "GET"),
    ):
        assert reply.status == 401
    for path in ("/chat", "/arena", "/pages/common.js"):
        assert ask(arena.url, path, None, "GET").status == 200
    key = {"Authorization": "Bearer secret"}
    assert arena.post(COMPARISONS, {"message": "m"}, key).status == 200
    assert arena.one.asked()[-1]["authorization"] == arena.two.asked()[-1]["authorization"] == "Bearer secret"


def test_a_vote_that_cannot_be_kept_is_said_and_can_be_cast_again(own: Callable[..., Arena], tmp_path: Path) -> None:
    (tmp_path / "votes").write_text("a file where a folder should be")
    arena = own()
    assert ask(arena.url, "/v1/models", None, "GET").status == 200  # it serves all the same
    compared = arena.compare("hello")
    reply = arena.vote(compared.id, "left")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "30")
    assert "The vote could not be kept: " in reply.json()["error"]
    assert arena.gateway.status()["votes"] == 0
    (tmp_path / "votes").unlink()
    assert arena.vote(compared.id, "left").status == 200
    assert len(arena.records()) == 1


def test_the_sides_are_the_old_model_and_the_new_one_while_both_serve(
    own: Callable[..., Arena], talkers: Talkers
) -> None:
    canary = {"canary": talkers.two.url, "canary_percent": 10, "canary_model": "pvc://models/new"}
    arena = own(arena_against="", arena_against_name="", **canary)
    compared = arena.compare("hello")
    told = arena.vote(compared.id, compared.side_of("two")).json()
    assert told[compared.side_of("two")] == {"name": "tiny-canary", "model": "pvc://models/new"}
    assert told[compared.side_of("one")] == {"name": "tiny", "model": "pvc://models/one"}
    assert arena.two.asked()[-1]["model"] == "tiny"


def test_a_gateway_that_is_told_to_end_lets_answers_end(own: Callable[..., Arena], talkers: Talkers) -> None:
    arena = own()
    with ThreadPoolExecutor(1) as pool:
        compared = pool.submit(arena.compare, "gate end")
        wait_for(
            lambda: all(talker.asked()[-1]["messages"][0]["content"] == "gate end" for talker in (arena.one, arena.two))
        )
        arena.gateway.terminate()
        arena.gateway.wait_for_line("draining")
        talkers.open("end")
        assert compared.result().answered
    assert arena.gateway.process.wait(60) == 0
