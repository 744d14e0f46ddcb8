"""The clients of examples/clients, each a process of its own, ask a server that wants a key.

Clients that the project itself does not need live in environments of their own under .tools, which the first run of
their test makes.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments import ROOT, python_with
from tests.serving.running import Server

CLIENTS = ROOT / "examples" / "clients"
QUESTION = 'What is "the capital" of C:\\France?'
KEY = "s3cret"


@pytest.fixture(scope="module")
def guarded(model_folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that asks for a key."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(KEY + "\n")
    running = Server(model_folder, cache, {"keys_from": keys, "max_total_tokens": 512})
    running.wait_until_ready()
    running.key = KEY
    yield running
    running.kill()


def run(server: Server, *command: str) -> str:
    """What a client prints."""
    environment = os.environ | {"ALIDADE_ENDPOINT_KEY": KEY, "PYTHONUTF8": "1"}
    done = subprocess.run(
        [*command, server.url, QUESTION], capture_output=True, text=True, env=environment, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def generated(server: Server) -> str:
    """What the server writes after the question, taken as a text."""
    status, body = server.generate(QUESTION, max_new_tokens=32)
    assert status == 200
    text: str = body["generated_text"]
    return text


def said(server: Server, *system: str) -> str:
    """What the server answers to the question in a conversation."""
    messages = [{"role": "system", "content": content} for content in system]
    messages.append({"role": "user", "content": QUESTION})
    body = {"model": "tgi", "messages": messages, "max_tokens": 32, "temperature": 0}
    status, answer = server.post("/v1/chat/completions", body)
    assert status == 200
    text: str = answer["choices"][0]["message"]["content"]
    return text


def test_curl(guarded: Server) -> None:
    lines = run(guarded, "sh", str(CLIENTS / "curl.sh")).splitlines()
    assert json.loads(lines[1])["generated_text"] == generated(guarded)
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(event["choices"][0]["delta"].get("content") or "" for event in events) == said(guarded)
    assert "data: [DONE]" in lines


def test_curl_fails_without_the_key(guarded: Server) -> None:
    command = ["sh", str(CLIENTS / "curl.sh"), guarded.url]
    environment = {name: value for name, value in os.environ.items() if name != "ALIDADE_ENDPOINT_KEY"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 22
    assert "401" in done.stderr


def test_openais_client(guarded: Server) -> None:
    printed = run(guarded, sys.executable, str(CLIENTS / "openai_client.py"))
    assert printed.startswith(said(guarded) + "\ntiny: ")
    assert printed.endswith("tokens read, 32 written\n")


def test_hugging_faces_client(guarded: Server) -> None:
    printed = run(guarded, sys.executable, str(CLIENTS / "hub_client.py"))
    assert printed == f"{said(guarded)}\n"


@pytest.mark.slow
def test_langchain(guarded: Server) -> None:
    python = python_with("langchain-openai==1.7.4", "langchain")
    printed = run(guarded, python, str(CLIENTS / "langchain_client.py"))
    answers = [said(guarded, f"Answer in {language}.") for language in ("English", "Chinese", "French")]
    assert printed == "".join(answer + "\n" for answer in answers)


@pytest.mark.slow
def test_text_generation_inferences_client(guarded: Server) -> None:
    python = python_with("text-generation==0.7.0", "text-generation")
    printed = run(guarded, python, str(CLIENTS / "text_generation_client.py"))
    text = generated(guarded)
    assert printed == f"{text}\n32 tokens, ended by length\n{text}\n"
