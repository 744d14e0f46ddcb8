"""Clients that people have: huggingface_hub's, and OpenAI's."""

from collections.abc import Iterator

import openai
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient

from tests.serving.running import Server

PROMPT = "What is the capital of France?"
QUESTION = [{"role": "user", "content": PROMPT}]


@pytest.fixture
def hub(server: Server) -> InferenceClient:
    return InferenceClient(server.url)


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_the_hub_client_generates(hub: InferenceClient) -> None:
    text = hub.text_generation(PROMPT, max_new_tokens=8)
    detailed = hub.text_generation(PROMPT, max_new_tokens=8, details=True)
    assert detailed.generated_text == text
    assert detailed.details is not None
    assert (detailed.details.finish_reason, detailed.details.generated_tokens) == ("length", 8)


def test_the_hub_client_streams(hub: InferenceClient) -> None:
    text = hub.text_generation(PROMPT, max_new_tokens=8)
    assert "".join(hub.text_generation(PROMPT, max_new_tokens=8, stream=True)) == text
    *_, last = hub.text_generation(PROMPT, max_new_tokens=8, stream=True, details=True)
    assert last.generated_text == text
    assert last.details is not None
    assert last.details.generated_tokens == 8


def test_the_hub_client_samples(hub: InferenceClient) -> None:
    options = {"max_new_tokens": 8, "do_sample": True, "temperature": 1.2, "top_k": 20, "top_p": 0.9, "seed": 3}
    assert hub.text_generation(PROMPT, **options) == hub.text_generation(PROMPT, **options)


def test_the_hub_client_talks(hub: InferenceClient) -> None:
    answer = hub.chat_completion(QUESTION, max_tokens=8, temperature=0, seed=1)
    chunks = hub.chat_completion(QUESTION, max_tokens=8, temperature=0, stream=True)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == answer.choices[0].message.content


async def test_the_asynchronous_hub_client_generates(server: Server, hub: InferenceClient) -> None:
    async with AsyncInferenceClient(server.url) as client:
        assert await client.text_generation(PROMPT, max_new_tokens=8) == hub.text_generation(PROMPT, max_new_tokens=8)


def test_the_openai_client_talks(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="tiny", messages=QUESTION, max_tokens=8, temperature=0, seed=1)
    with client.chat.completions.create(
        model="tiny",
        messages=QUESTION,
        max_completion_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == answer.choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 8


def test_the_openai_client_completes_with_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=4, temperature=0, logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert "".join(logprobs.tokens) == answer.choices[0].text


def test_the_openai_client_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]


def test_the_openai_client_knows_the_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'"):
        client.completions.create(model="gpt-4", prompt="a")
    with pytest.raises(openai.UnprocessableEntityError, match="messages is empty"):
        client.chat.completions.create(model="tiny", messages=[])
