"""`alidade chat` with a served model: real HTTP, a real terminal, a server whose answers are known."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from alidade_cli import chat_command
from alidade_cli.kube import Cluster, Resource
from alidade_cli.main import alidade
from alidade_crds.crd import Kind
from tests.cli.fake_server import Script, serving


def chat(*arguments: object, lines: str = "", **environment: str) -> Result:
    return CliRunner().invoke(alidade, ["chat", *map(str, arguments)], input=lines, env=environment)


def asked(script: Script) -> list[list[str]]:
    """What was said in each request, in order."""
    return [[message["content"] for message in body["messages"]] for body in script.asked]


def test_each_prompt_is_a_conversation_of_its_own() -> None:
    script = Script(stop_after=2)
    with serving(script) as url:
        done = chat(url, "-p", "who?", "-p", "why?", "--system", "Be brief.", "--max-new-tokens", 9)
    assert (done.exit_code, done.stdout) == (0, "word word \nword word \n")
    assert asked(script) == [["Be brief.", "who?"], ["Be brief.", "why?"]]
    assert [message["role"] for message in script.asked[0]["messages"]] == ["system", "user"]
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in script.asked} == {("fake", 9, 0.0)}


def test_lines_from_a_pipe_are_one_conversation() -> None:
    script = Script(stop_after=1)
    with serving(script) as url:
        done = chat(url, "--model", "team-a", lines="中国的首都是哪里？\r\n\n  \nand of France?")
    assert (done.exit_code, done.stdout) == (0, "word \nword \n")
    assert asked(script) == [["中国的首都是哪里？"], ["中国的首都是哪里？", "word ", "and of France?"]]
    assert [message["role"] for message in script.asked[1]["messages"]] == ["user", "assistant", "user"]
    assert script.asked[0]["model"] == "team-a"


def test_only_the_newest_exchanges_are_told_again() -> None:
    script = Script(stop_after=1)
    with serving(script) as url:
        chat(url, "--history", 1, "--system", "s", lines="1\n2\n3\n")
        chat(url, "--history", 0, lines="4\n5\n")
    assert asked(script)[2:] == [["s", "2", "word ", "3"], ["4"], ["5"]]


def test_what_the_server_no_longer_takes_is_forgotten_from_the_oldest_on() -> None:
    """Four words fit: a question of one word, an answer of one, and so on."""
    script = Script(stop_after=1, most_words=4)
    with serving(script) as url:
        done = chat(url, lines="1\n2\n3\n")
    assert done.exit_code == 0
    assert asked(script) == [
        ["1"],
        ["1", "word ", "2"],
        ["1", "word ", "2", "word ", "3"],
        ["2", "word ", "3"],
    ]


def test_the_server_decides_how_long_an_answer_may_be_where_nothing_is_asked() -> None:
    """A fixed length would be refused by a model whose whole context is no longer than that."""
    script = Script(stop_after=1)
    with serving(script) as url:
        chat(url, "-p", "1")
        chat(url, "-p", "2", "--max-new-tokens", 9)
    assert [body.get("max_tokens") for body in script.asked] == [None, 9]


def test_a_question_that_is_too_long_by_itself_is_refused_in_the_servers_words() -> None:
    script = Script(stop_after=1, most_words=3)
    with serving(script) as url:
        done = chat(url, lines="1\none two three four\n")
    assert (done.exit_code, done.stdout) == (1, "word \n")
    assert done.stderr == f"Error: {url} answers 422: the prompt is too long\n"
    assert asked(script)[1:] == [["1", "word ", "one two three four"], ["one two three four"]]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (Script(places=0), "/v1/models answers 429: too many at once; ask again in 7 s"),
        (Script(cut_after=2), "the connection ended before the answer did"),
        (Script(error_after=2), "the answer ended with an error: it broke"),
        (Script(key="s3cret"), "answers 401: the key is wrong"),
    ],
)
def test_what_keeps_from_an_answer_is_said(script: Script, said: str) -> None:
    with serving(script) as url:
        done = chat(url, "-p", "who?", ALIDADE_ENDPOINT_KEY="wr0ng")
    assert done.exit_code == 1
    assert said.removeprefix("/v1/models ") in done.stderr
    assert "wr0ng" not in done.output


def test_the_key_is_sent_from_a_file_or_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    with serving(Script(key="s3cret", stop_after=1)) as url:
        assert chat(url, "-p", "who?", "--key-file", file).stdout == "word \n"
        assert chat(url, "-p", "who?", ALIDADE_ENDPOINT_KEY="s3cret").stdout == "word \n"
        file.write_text("schlüssel")
        assert "holds what no header can carry" in chat(url, "-p", "who?", "--key-file", file).stderr


@pytest.mark.parametrize("address", ["http://", "http://localhost:port", "https://:80"])
def test_what_is_no_address_is_said_to_be_none(address: str) -> None:
    done = chat(address, "-p", "who?")
    assert done.exit_code == 1
    assert "is no address; write it as http://HOST:PORT" in done.stderr


def test_a_server_that_is_not_there_is_said_to_be_not_there() -> None:
    with serving(Script()) as url:
        pass
    done = chat(url, "-p", "who?")
    assert done.exit_code == 1
    assert done.stderr == f"Error: {url} does not answer: [Errno 111] Connection refused\n"


class Terminal:
    """`alidade chat` at a terminal: what is typed, what is seen."""

    def __init__(self, url: str) -> None:
        self._master, slave = pty.openpty()
        command = [sys.executable, "-c", "from alidade_cli.main import main; main()", "chat", url]
        environment = os.environ | {"TERM": "dumb"}
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment)
        os.close(slave)
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def interrupt_until(self, pattern: str) -> None:
        """Ctrl-c, again where it came between the prompt and readline's wait for a key, and was lost."""
        until = time.monotonic() + 60
        self.process.send_signal(signal.SIGINT)
        while not self._sees(pattern, time.monotonic() + 2):
            assert time.monotonic() < until, self.seen
            self.process.send_signal(signal.SIGINT)

    def await_text(self, pattern: str) -> None:
        """Waits for it in what is seen since the last such wait."""
        assert self._sees(pattern, time.monotonic() + 60), self.seen

    def _sees(self, pattern: str, until: float) -> bool:
        while (found := re.search(pattern, self.seen)) is None:
            readable, _, _ = select.select([self._master], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                return False
            self.seen += os.read(self._master, 4096).decode(errors="replace")
        self.seen = self.seen[found.end() :]
        return True

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)


@contextmanager
def terminal(url: str) -> Iterator[Terminal]:
    opened = Terminal(url)
    try:
        yield opened
    finally:
        opened.close()


def test_ctrl_c_ends_the_answer_and_not_the_program() -> None:
    script = Script(each_s=0.1)
    with serving(script) as url, terminal(url) as screen:
        screen.await_text("ctrl-d ends")
        screen.await_text("> ")
        screen.type("hello\n")
        screen.await_text("word word ")
        screen.interrupt_until("> ")
        # On an empty line it does nothing.
        screen.interrupt_until("> ")
        script.stop_after = 1
        screen.type("again\n")
        screen.await_text("word ")
        screen.await_text("> ")
        screen.type("\x04")
        assert screen.process.wait(60) == 0
    assert script.hung_up == 1
    first, second = asked(script)
    assert first == ["hello"]
    assert second[0] == "hello"
    assert set(second[1].split()) == {"word"}
    assert second[2:] == ["again"]


def test_a_question_that_fails_at_the_terminal_is_forgotten_and_the_program_goes_on() -> None:
    script = Script(stop_after=1, most_words=2)
    with serving(script) as url, terminal(url) as screen:
        screen.await_text("> ")
        screen.type("one two three\n")
        screen.await_text("Error: .* answers 422: the prompt is too long")
        screen.await_text("> ")
        screen.type("one\n")
        screen.await_text("word ")
        screen.await_text("> ")
    assert asked(script) == [["one two three"], ["one"]]


def test_a_model_cannot_write_on_the_screen_where_it_likes() -> None:
    with serving(Script(stop_after=1, text="\x1b[2Jgone\n中")) as url:
        assert chat(url, "-p", "who?").stdout == "\x1b[2Jgone\n中\n"
        with terminal(url) as screen:
            screen.await_text("> ")
            screen.type("who?\n")
            screen.await_text("\ufffd\\[2Jgone\r\n中")


class Resources(Cluster):
    """A cluster that has some resources."""

    def find(self, kind: Kind, name: str) -> Resource | None:
        return HAS.get(f"{kind.short_name}/{name}")


AVAILABLE = {"type": "Available", "status": "True", "message": ""}
WAITS = {"type": "Available", "status": "False", "message": "No replica is asked for yet."}
HAS: dict[str, dict[str, Any]] = {
    "ms/new": {"spec": {}, "status": {"conditions": [WAITS]}},
    "ftj/new": {},
    "ftj/old": {"status": {}},
    "ms/guarded": {"spec": {"auth": {"secretName": "keys"}}, "status": {"conditions": [AVAILABLE]}},
}


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("new", "ModelServe new does not answer: No replica is asked for yet."),
        ("ms/new", "ModelServe new does not answer: No replica is asked for yet."),
        ("ftj/new", "FineTuneJob new has no model yet"),
        ("old", "FineTuneJob old has no model yet"),
        ("none", "there is no FineTuneJob none in namespace default"),
        ("ms/guarded", "kubectl port-forward -n default service/guarded 8080:80` and name http://localhost:8080"),
    ],
)
def test_a_name_is_that_of_what_is_served_and_else_of_what_was_trained(
    monkeypatch: pytest.MonkeyPatch, target: str, said: str
) -> None:
    monkeypatch.setattr(chat_command, "connect", lambda _: Resources(Path("kubeconfig"), "default"))
    monkeypatch.setattr(Resources, "loopback_address", lambda _self, _service: None)
    done = chat(target, "-p", "who?")
    assert done.exit_code == 1
    assert said in done.stderr
