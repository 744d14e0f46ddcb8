"""The pages' files: what they may do, how they are kept, and that nothing else can be had by their paths."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import alidade_gateway.pages
from tests.gateway.running import Gateway, ask
from tests.gateway.talking import Arena, Talkers
from tests.ports import free_port

STATIC = Path(alidade_gateway.pages.__file__).with_name("static")
FILES = ["/chat", "/arena", *(f"/pages/{path.name}" for path in STATIC.iterdir() if path.suffix != ".html")]


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    with Talkers() as talkers, Arena(talkers, tmp_path_factory.mktemp("votes")) as made:
        yield made


@pytest.mark.parametrize("path", FILES)
def test_a_file_may_load_and_reach_what_is_here_and_nothing_else(arena: Arena, path: str) -> None:
    reply = ask(arena.url, path, None, "GET")
    assert reply.status == 200
    policy = dict(part.strip().partition(" ")[::2] for part in reply.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "img-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    text = reply.body.decode()
    assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text) == []
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|<script>| on\w+=| style=", text)
        == []
    )
    kinds = {"": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    assert reply.headers["Content-Type"].startswith(kinds[Path(path).suffix])


@pytest.mark.parametrize("path", FILES)
def test_what_a_browser_has_is_not_sent_again(arena: Arena, path: str) -> None:
    first = ask(arena.url, path, None, "GET")
    assert first.headers["Cache-Control"] == "no-cache"
    tag = first.headers["ETag"]
    for known, status in ((tag, 304), (f'"other", W/{tag}', 304), ("*", 304), ('"other"', 200), ("odd", 200)):
        reply = ask(arena.url, path, None, "GET", {"If-None-Match": known})
        assert (reply.status, reply.headers["ETag"], reply.body == b"") == (status, tag, status == 304)
    head = ask(arena.url, path, None, "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(first.body)))


@pytest.mark.parametrize(
    "path",
    [
        "/pages/",
        "/pages/chat.html",
        "/pages/../settings.py",
        "/pages/..%2f..%2fsettings.py",
        "/pages/%2e%2e/files.py",
        "/pages/....//files.py",
        "/pages//etc/passwd",
        "/pages/..\\files.py",
        "/pages/common.js/",
        "/pages/common.js%00.css",
        "/pages/" + "x" * 4000,
    ],
)
def test_no_other_path_leads_to_a_file(arena: Arena, path: str) -> None:
    reply = ask(arena.url, path, None, "GET")
    assert reply.status == 404
    assert b"import" not in reply.body


def test_a_page_takes_no_other_method(arena: Arena) -> None:
    assert ask(arena.url, "/chat", b"{}", "POST").status == 405
    assert ask(arena.url, "/pages/common.js", b"{}", "PUT").status in (404, 405)


def test_pages_are_there_only_where_they_are_asked_for() -> None:
    with ExitStack() as ended, Talkers() as talkers:
        chat = Gateway(talkers.one.url, chat="true")
        ended.callback(chat.kill)
        page = ask(chat.url, "/chat", None, "GET")
        assert page.status == 200
        assert b"<nav hidden>" in page.body
        for path in ("/arena", "/arena/api/ratings"):  # are the server's, which has none
            reply = ask(chat.url, path, None, "GET")
            assert (reply.status, reply.headers["X-Alidade-Backend"]) == (404, "stable")


def test_a_name_is_escaped() -> None:
    with ExitStack() as ended:
        gateway = Gateway(f"http://127.0.0.1:{free_port()}", name='<b>"x', chat="true")
        ended.callback(gateway.kill)
        body = ask(gateway.url, "/chat", None, "GET").body.decode()
        assert "<b>" not in body
        assert 'data-name="&lt;b&gt;&quot;x"' in body
        assert "{{" not in body
