"""Chat and arena as people use them: in Chromium, by keyboard and by touch."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.gateway.browsing import chromium, needs_chromium, opened
from tests.gateway.talking import Arena, Talkers

pytestmark = [needs_chromium, pytest.mark.slow]

SCRIPT = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def talkers() -> Iterator[Talkers]:
    with Talkers() as made:
        yield made


@pytest.fixture(scope="module")
def arena(talkers: Talkers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Arena(talkers, tmp_path_factory.mktemp("votes")) as made:
        yield made


@pytest.fixture
def show(browser: Browser, arena: Arena) -> Iterator[Callable[..., Page]]:
    """Opens a page of the shared gateway, or of another one."""
    with ExitStack() as ended:
        yield lambda path, gateway=arena, **how: ended.enter_context(opened(browser, gateway.url + path, **how))


def send(page: Page, text: str) -> None:
    page.locator("#message").fill(text)
    page.keyboard.press("Enter")


def texts(page: Page) -> list[str]:
    """What the turns of the conversation say."""
    return page.locator("#turns .text").all_text_contents()


def test_a_conversation_is_had_by_keyboard_alone(show: Callable[..., Page], arena: Arena) -> None:
    page = show("/chat")
    page.keyboard.type("hello")  # the field has the focus
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.assistant .text")).to_have_text("one says 你好 to hello\nthere")
    expect(page.locator("#message")).to_be_focused()
    send(page, "again")
    expect(page.locator(".turn.assistant")).to_have_count(2)
    expect(page.locator("#send")).to_be_visible()
    assert texts(page) == ["hello\nthere", "one says 你好 to hello\nthere", "again", "one says 你好 to again"]
    asked = arena.one.asked()[-1]
    assert [turn["role"] for turn in asked["messages"]] == ["user", "assistant", "user"]
    assert asked.keys() == {"model", "messages", "stream", "authorization"}
    page.locator("#new").click()
    assert texts(page) == []
    send(page, "anew")
    expect(page.locator(".turn.assistant .text")).to_have_text("one says 你好 to anew")
    assert len(arena.one.asked()[-1]["messages"]) == 1


def test_an_answer_shows_as_it_comes_and_escape_stops_it(show: Callable[..., Page], arena: Arena) -> None:
    page = show("/chat")
    send(page, "forever")
    expect(page.locator(".turn.assistant .text")).to_contain_text("one one one")
    expect(page.locator("#stop")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".turn.assistant .note")).to_have_text("Stopped.")
    expect(page.locator("#send")).to_be_visible()
    arena.gateway.await_status(running=0)  # the server was told, too
    send(page, "gate chat")
    expect(page.locator(".turn.assistant .text").last).to_have_text("one ")
    page.locator("#stop").click()
    expect(page.locator(".turn.assistant .note").last).to_have_text("Stopped.")
    assert [turn["content"][:12] for turn in arena.one.asked()[-1]["messages"]] == [
        "forever",
        "one one one ",
        "gate chat",
    ]


def test_a_new_conversation_ends_what_is_being_answered(show: Callable[..., Page], arena: Arena) -> None:
    page = show("/chat")
    send(page, "forever")
    expect(page.locator(".turn.assistant .text")).to_contain_text("one one")
    page.locator("#new").click()
    arena.gateway.await_status(running=0)
    expect(page.locator("#send")).to_be_visible()
    send(page, "anew")
    expect(page.locator(".turn.assistant .text")).to_have_text("one says 你好 to anew")
    assert len(arena.one.asked()[-1]["messages"]) == 1


def test_settings_are_folded_away_sent_and_kept(show: Callable[..., Page], arena: Arena) -> None:
    page = show("/chat")
    expect(page.locator("#temperature")).to_be_hidden()
    page.locator("summary").click()
    for name, value in (
        ("temperature", "0"),
        ("top_p", "0.5"),
        ("max_tokens", "7"),
        ("seed", "3"),
        ("system", "Be kind."),
    ):
        page.locator(f"#{name}").fill(value)
    send(page, "hello")
    expect(page.locator(".turn.assistant .text")).to_have_text("one says 你好 to hello")
    asked = arena.one.asked()[-1]
    assert asked.items() >= {"temperature": 0, "top_p": 0.5, "max_tokens": 7, "seed": 3, "model": "tiny"}.items()
    assert asked["messages"][0] == {"role": "system", "content": "Be kind."}
    page.locator("#temperature").fill("3")
    send(page, "hello")
    assert page.locator("#temperature").evaluate("field => field.validity.rangeOverflow")
    page.reload()
    expect(page.locator("#seed")).to_have_value("3")


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("refuse", "The prompt is too long."),
        ("fail", "one is out of order"),
        ("nothing", "The model answered nothing."),
    ],
)
def test_a_message_without_an_answer_comes_back_to_be_mended(
    show: Callable[..., Page], message: str, said: str
) -> None:
    page = show("/chat")
    send(page, message)
    expect(page.locator("#notice")).to_have_text(said)
    expect(page.locator("#message")).to_have_value(message)
    assert texts(page) == []
    send(page, "hello")
    expect(page.locator(".turn.assistant .text")).to_have_text("one says 你好 to hello")
    expect(page.locator("#notice")).to_be_hidden()


def test_an_answer_that_breaks_off_or_is_cut_says_so(show: Callable[..., Page], talkers: Talkers) -> None:
    page = show("/chat")
    send(page, "broken-gate seen")
    expect(page.locator(".turn.assistant .text")).to_have_text("one ")
    talkers.open("seen")
    expect(page.locator(".turn.assistant .note")).to_have_text(re.compile("broke off"))
    send(page, "long")
    expect(page.locator(".turn.assistant .note").last).to_have_text("Cut off at the longest answer that is allowed.")


def test_script_is_shown_as_text(show: Callable[..., Page]) -> None:
    """A dialog would fail the test when the page is closed, as would what the policy has to stop."""
    for path, answer in (("/chat", ".turn.assistant .text"), ("/arena", "#left .text")):
        page = show(path)
        send(page, f"echo {SCRIPT}")
        expect(page.locator(answer)).to_have_text(SCRIPT)
        assert page.locator("main img, main script").count() == 0


def test_a_key_is_asked_for_and_kept_until_the_tab_is_closed(
    browser: Browser, talkers: Talkers, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("secret\n")
    with Arena(talkers, tmp_path / "votes", keys_from=tmp_path / "keys") as arena:
        with opened(browser, arena.url + "/chat") as page:
            for key in ("wrong", "secret"):
                expect(page.locator("dialog p")).to_have_text(re.compile("A key is needed|not accepted"))
                page.locator("dialog input").fill(key)
                page.keyboard.press("Enter")
            expect(page.locator("dialog")).to_have_count(0)
            send(page, "hello")
            expect(page.locator(".turn.assistant .text")).to_have_text("one says 你好 to hello")
            assert talkers.one.asked()[-1]["authorization"] == "Bearer secret"
            page.locator("nav a[href=arena]").click()
            expect(page.locator("#rows tr")).to_have_count(2)  # without being asked again
            assert page.evaluate("localStorage.length") == 0
        with opened(browser, arena.url + "/chat") as page:
            expect(page.locator("dialog")).to_be_visible()
            page.keyboard.press("Escape")
            expect(page.locator("#notice")).to_have_text("A key is needed; send again to enter it.")


def test_pages_work_below_the_path_of_a_proxy(browser: Browser, arena: Arena) -> None:
    """Such as the API server's, through which services are reached from outside a cluster."""
    below = "/api/v1/namespaces/default/services/tiny:http/proxy"
    strayed: list[str] = []

    def passed_on(route: Route) -> None:
        if below not in route.request.url:
            strayed.append(route.request.url)
        route.fulfill(response=route.fetch(url=route.request.url.replace(below, "")))

    with opened(browser, "about:blank") as page:
        page.route("**/*", passed_on)
        page.goto(f"{arena.url}{below}/chat")
        send(page, "hello")
        expect(page.locator(".turn.assistant .text")).to_have_text("one says 你好 to hello")
        page.locator("nav a[href=arena]").click()
        expect(page.locator("#rows tr")).to_have_count(2)
        send(page, "hello")
        page.locator("[data-vote=tie]").click()
        expect(page.locator("#left h2")).to_have_text(re.compile("tiny|two"))
        page.unroute_all(behavior="wait")
        assert strayed == []


def test_a_vote_by_key_tells_the_names_and_moves_the_ratings(show: Callable[..., Page], arena: Arena) -> None:
    page = show("/arena")
    before = arena.ratings()["votes"]
    send(page, "hello")
    vote = page.locator("#vote")
    expect(vote).to_be_visible()
    assert "tiny" not in page.locator("#answers").inner_text()
    place = "left" if page.locator("#left .text").inner_text().startswith("two") else "right"
    page.keyboard.press("1" if place == "left" else "2")
    expect(page.locator(f"#{place} h2")).to_have_text(re.compile("two$"))
    expect(page.locator(f"#{place}")).to_have_class("answer better")
    expect(page.locator("#votes")).to_have_text(re.compile(f"^{before + 1} vote"))
    expect(vote).to_be_hidden()
    expect(page.locator("#message")).to_be_focused()
    for key in ("ArrowUp", "ArrowLeft" if place == "left" else "ArrowRight", "4"):
        before += 1
        send(page, f"more {key}")
        expect(vote).to_be_visible()
        page.keyboard.press(key)
        expect(page.locator("#votes")).to_have_text(re.compile(f"^{before + 1} votes"))
    expect(page.locator("#rows tr")).to_have_count(2)
    rated = [cells.split("\t") for cells in page.locator("#rows tr").all_inner_texts()]
    assert len(rated) == 2
    assert page.locator("#rows .track i").count() == 2
    assert arena.records()[-1]["chosen"].endswith(arena.records()[-1]["prompt"][-1]["content"].split()[0])


def test_a_vote_by_button_and_a_follow_up(show: Callable[..., Page], arena: Arena) -> None:
    page = show("/arena", phone=True, dark=True)
    send(page, "first")
    expect(page.locator("#vote")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    chosen = page.locator("#right .text").inner_text()
    page.locator("[data-vote=right]").tap()
    expect(page.locator("#follow")).to_be_visible()
    page.locator("#follows").check()
    page.locator("#message").fill("second")
    page.locator("#send").tap()
    expect(page.locator("#vote")).to_be_visible()
    assert page.locator("#question .text").all_text_contents() == ["first", chosen, "second"]
    assert arena.one.asked()[-1]["messages"][1] == {"role": "assistant", "content": chosen}
    page.locator("[data-vote=both_bad]").tap()
    expect(page.locator("#follow")).to_be_hidden()


def test_both_answers_show_as_they_come_and_a_stopped_pair_has_no_vote(
    show: Callable[..., Page], talkers: Talkers
) -> None:
    page = show("/arena")
    send(page, "gate arena")
    for side in ("#left", "#right"):
        expect(page.locator(f"{side} .text")).to_have_text(re.compile("^(one|two)"))
    page.keyboard.press("1")  # too early: nothing happens
    page.keyboard.press("Escape")
    expect(page.locator("#notice")).to_have_text("Stopped; there is nothing to vote on. Ask again.")
    expect(page.locator("#vote")).to_be_hidden()
    talkers.open("arena")
    page.locator("#message").fill("")
    send(page, "gate arena")
    expect(page.locator("#vote")).to_be_visible()
    page.keyboard.press("3")
    expect(page.locator("#asking")).to_be_visible()


def test_equal_answers_can_only_tie(show: Callable[..., Page]) -> None:
    page = show("/arena")
    send(page, "same")
    expect(page.locator("#notice")).to_have_text("Both answers are the same.")
    expect(page.locator("[data-vote=left]")).to_be_disabled()
    page.keyboard.press("1")
    expect(page.locator("#vote")).to_be_visible()
    page.keyboard.press("3")
    expect(page.locator("#vote")).to_be_hidden()


def test_a_side_that_fails_is_said_and_the_question_can_be_asked_again(show: Callable[..., Page]) -> None:
    page = show("/arena")
    send(page, "refuse one")
    expect(page.locator("#notice")).to_have_text("There are no two answers to vote on.")
    failed = page.locator(".answer .note:not(:empty)")
    expect(failed).to_have_text("This side does not take the message: The prompt is too long.")
    expect(page.locator("#message")).to_have_value("refuse one")
    expect(page.locator("#vote")).to_be_hidden()


def test_a_comparison_that_was_voted_on_elsewhere_is_said_to_be(show: Callable[..., Page], arena: Arena) -> None:
    page = show("/arena")
    sent: list[str] = []

    def voted_before(route: Route) -> None:
        identifier = re.findall(r"comparisons/([^/]+)/vote", route.request.url)[0]
        sent.append(identifier)
        assert arena.vote(identifier, "tie").status == 200
        route.continue_()

    page.route(re.compile("/vote$"), voted_before)
    send(page, "hello")
    expect(page.locator("#vote")).to_be_visible()
    page.keyboard.press("2")
    expect(page.locator("#notice")).to_have_text("This comparison has its vote already; a comparison has one.")
    expect(page.locator("#asking")).to_be_visible()
    assert len(sent) == 1


@pytest.mark.parametrize("path", ["/chat", "/arena"])
@pytest.mark.parametrize("phone", [False, True])
def test_a_page_fits_its_screen_in_light_and_in_dark(show: Callable[..., Page], path: str, phone: bool) -> None:
    colours = set()
    for dark in (False, True):
        page = show(path, phone=phone, dark=dark)
        send(page, "echo " + "longword" * 60)
        expect(page.locator(".text").last).to_contain_text("longword")
        found: Any = page.evaluate(
            """() => ({
                wide: document.documentElement.scrollWidth > innerWidth,
                low: document.querySelector('footer').getBoundingClientRect().bottom > innerHeight + 1,
                colour: getComputedStyle(document.body).backgroundColor,
            })"""
        )
        assert (found["wide"], found["low"]) == (False, False), json.dumps(found)
        colours.add(found["colour"])
    assert len(colours) == 2
