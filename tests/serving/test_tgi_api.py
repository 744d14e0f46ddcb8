"""text-generation-inference's API: what its clients rely on."""

import json
from typing import Any

import pytest

from tests.serving.running import Server

PROMPT = "What is the capital of France?"


def test_the_likeliest_answer_is_the_same_on_every_route(server: Server) -> None:
    _, whole = server.generate(PROMPT, max_new_tokens=12)
    _, listed = server.post("/", {"inputs": PROMPT, "parameters": {"max_new_tokens": 12}})
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 12}, "stream": True}
    assert listed == [whole]
    for route in ("/", "/generate_stream"):
        *_, last = server.stream(route, body)
        assert last["generated_text"] == whole["generated_text"]
        assert last["details"] | {"input_length": 0} == {
            "finish_reason": "length",
            "generated_tokens": 12,
            "input_length": 0,
            "seed": None,
        }


def test_streamed_tokens_make_up_the_text(server: Server) -> None:
    events = list(
        server.stream("/generate_stream", {"inputs": PROMPT, "parameters": {"max_new_tokens": 20, "top_n_tokens": 2}})
    )
    assert "".join(event["token"]["text"] for event in events) == events[-1]["generated_text"]
    assert [event["index"] for event in events] == list(range(1, len(events) + 1))
    assert all(event["generated_text"] is None and event["details"] is None for event in events[:-1])
    assert all(len(event["top_tokens"]) == 2 for event in events)
    assert all(event["top_tokens"][0]["id"] == event["token"]["id"] for event in events)
    assert all(event["token"]["logprob"] <= 0 for event in events)


def test_details_count_tokens_and_name_the_seed(server: Server) -> None:
    _, answer = server.generate(PROMPT, max_new_tokens=8, details=True, do_sample=True, seed=7)
    details = answer["details"]
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == ("length", 8, 7)
    assert "".join(token["text"] for token in details["tokens"]) == answer["generated_text"]


def test_a_seed_repeats_what_was_drawn(server: Server) -> None:
    texts = [server.generate(PROMPT, max_new_tokens=16, temperature=1.5, seed=seed)[1] for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_stop_sequence_ends_the_answer_and_stays_in_it(server: Server) -> None:
    _, whole = server.generate(PROMPT, max_new_tokens=30)
    text = whole["generated_text"]
    stop = text[6:8]
    _, stopped = server.generate(PROMPT, max_new_tokens=30, stop=[stop], details=True)
    assert stopped["generated_text"] == text[: text.index(stop) + len(stop)]
    assert stopped["details"]["finish_reason"] == "stop_sequence"
    *_, last = server.stream(
        "/generate_stream", {"inputs": PROMPT, "parameters": {"max_new_tokens": 30, "stop": [stop]}}
    )
    assert last["generated_text"] == stopped["generated_text"]
    assert last["token"]["text"] == stop


def test_the_prompt_is_given_back_when_asked_for(server: Server) -> None:
    _, answer = server.generate(PROMPT, max_new_tokens=2, return_full_text=True)
    assert answer["generated_text"].startswith(PROMPT)


def test_a_long_prompt_is_cut_on_the_left_when_asked_for(server: Server) -> None:
    *_, last = server.stream(
        "/generate_stream", {"inputs": PROMPT * 60, "parameters": {"truncate": 5, "max_new_tokens": 1}}
    )
    assert last["details"]["input_length"] == 5


def test_prompt_and_answer_may_fill_the_limit(server: Server) -> None:
    *_, last = server.stream("/generate_stream", {"inputs": "hello", "parameters": {"max_new_tokens": 510}})
    assert (last["details"]["input_length"], last["details"]["generated_tokens"]) == (2, 510)


def test_repetition_is_penalised(server: Server) -> None:
    """A penalty as strong as this leaves no token twice among the first ones."""
    _, answer = server.generate("hello", max_new_tokens=20, repetition_penalty=10.0, details=True)
    ids = [token["id"] for token in answer["details"]["tokens"]]
    assert len(set(ids)) == len(ids)


def test_tokens_say_where_they_stand(server: Server) -> None:
    text = "hello 中国"
    _, tokens = server.post("/tokenize", {"inputs": text})
    assert tokens[0] == {"id": 1, "text": "<|bos|>", "start": None, "stop": None}
    assert "".join(token["text"] for token in tokens[1:]) == text
    assert all(text[token["start"] : token["stop"]] == token["text"] for token in tokens[1:])
    _, bare = server.post("/tokenize", {"inputs": text, "add_special_tokens": False})
    assert bare == tokens[1:]


def test_info_names_the_model_and_its_limits(server: Server) -> None:
    info = json.loads(server.get("/info")[1])
    assert info["model_id"] == "tiny"
    assert info["model_sha"].startswith("sha256:")
    assert (info["max_input_tokens"], info["max_total_tokens"], info["max_concurrent_requests"]) == (256, 512, 64)


def test_null_is_the_default(server: Server) -> None:
    _, answer = server.post("/generate", {"inputs": PROMPT, "parameters": None})
    _, same = server.post("/generate", {"inputs": PROMPT, "parameters": {"watermark": None, "do_sample": None}})
    assert answer == same


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "inputs is missing."),
        ({"inputs": ""}, "inputs is empty; write a prompt."),
        ({"inputs": 5}, "inputs is 5: input should be a valid string."),
        ({"inputs": "a" * 40_000}, "inputs has at least "),
        ({"inputs": "a b " * 200}, "tokens; at most 256 are allowed. Shorten it."),
        ({"inputs": "\ud800"}, "inputs is not text: character 0 is half of a pair."),
        (
            {"inputs": "a", "parameters": {"temperature": 0}},
            "parameters.temperature is 0: input should be greater than 0.",
        ),
        ({"inputs": "a", "parameters": {"temperature": True}}, "parameters.temperature is True: "),
        ({"inputs": "a", "parameters": {"top_p": 1.5}}, "parameters.top_p is 1.5: "),
        ({"inputs": "a", "parameters": {"top_k": 2**31}}, f"parameters.top_k is {2**31}: "),
        ({"inputs": "a", "parameters": {"seed": -1}}, "parameters.seed is -1: "),
        ({"inputs": "a", "parameters": {"repetition_penalty": 0}}, "parameters.repetition_penalty is 0: "),
        ({"inputs": "a", "parameters": {"max_new_tokens": 600}}, "Ask for at most 510."),
        ({"inputs": "a", "parameters": {"stop": ["a"] * 5}}, "parameters.stop has 5 sequences; at most 4 are allowed."),
        ({"inputs": "a", "parameters": {"stop": [""]}}, "parameters.stop holds a sequence of 0 characters"),
        ({"inputs": "a", "parameters": {"grammar": {"type": "json", "value": {}}}}, "parameters.grammar is set, which"),
        ({"inputs": "a", "parameters": {"best_of": 2}}, "parameters.best_of is 2, which this server does not offer"),
        ({"inputs": "a", "parameters": {"watermark": True}}, "parameters.watermark is True, which"),
        ({"inputs": "a", "parameters": {"adapter_id": "x"}}, "adapters served beside the model: none."),
        ({"inputs": "a", "parameters": {"decoder_input_details": True}}, "no log-probabilities of prompts"),
        ({"inputs": "a", "parameters": {"colour": "red"}}, "parameters.colour is not known to this server"),
    ],
)
def test_what_is_not_served_is_said(server: Server, body: dict[str, Any], message: str) -> None:
    for route in ("/", "/generate", "/generate_stream"):
        status, answer = server.post(route, body)
        assert (status, answer["error_type"]) == (422, "validation")
        assert message in answer["error"]
