"""A served model as something that answers: text-generation-inference's API, or OpenAI's."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from huggingface_hub import InferenceClient

from alidade_crds.contract import ENDPOINT_KEY_ENV, JobEndpoint
from alidade_crds.evaluation import EndpointApi
from alidade_engine.data.formats import Messages
from alidade_eval.asking import Server, Unanswered
from alidade_eval.subjects import Answer, AnswerSettings

FIRST_ANSWERS = 8
"""Questions of which one has to be answered before the others are asked."""
FIELD = "spec.endpoint.url"


class HttpEndpoint:
    """A server that renders prompts with its own model's template (OpenAI's API), or takes them as they are (TGI's)."""

    def __init__(self, endpoint: JobEndpoint, server: Server, api: EndpointApi, model: str | None) -> None:
        self.name = endpoint.name
        self._server = server
        self._client: InferenceClient = server.client()
        self._concurrency = endpoint.concurrency
        self._api = api
        self._model = model

    @classmethod
    def connect(
        cls, endpoint: JobEndpoint, *, say: Callable[[str], None], environment: Mapping[str, str] = os.environ
    ) -> "HttpEndpoint":
        """The endpoint, once it answers. Raises JobFailure (EndpointUnavailable) when it does not."""
        server = Server(
            endpoint.url,
            environment.get(ENDPOINT_KEY_ENV),
            timeout_s=endpoint.timeout_seconds,
            retries=endpoint.retries,
            field=FIELD,
        )
        api, model = server.wait(lambda: found_api(server, endpoint.api))
        model = endpoint.model or model
        say(f"{endpoint.url} speaks {api}; asked is {model or 'the model it has'}.")
        return cls(endpoint, server, api, model)

    def answers(
        self,
        prompts: Sequence[Messages],
        settings: AnswerSettings,
        *,
        keys: Sequence[int],
        seed: int,
        keep: Callable[[int, Answer], None],
    ) -> None:
        """As `Subject.answers`; a question without an answer after all tries is kept as a failure.

        Raises JobFailure (EndpointUnavailable) when none of the first questions is answered.
        """
        first = list(range(min(FIRST_ANSWERS, len(prompts))))
        failures = [
            answer.failure for answer in self._ask_all(first, prompts, settings, keys, seed, keep) if answer.failure
        ]
        if first and len(failures) == len(first):
            raise self._server.unavailable(
                f"none of {len(first)} questions was answered: {failures[0]}", retryable=True
            )
        for _ in self._ask_all(range(len(first), len(prompts)), prompts, settings, keys, seed, keep):
            pass

    def _ask_all(
        self,
        places: Sequence[int],
        prompts: Sequence[Messages],
        settings: AnswerSettings,
        keys: Sequence[int],
        seed: int,
        keep: Callable[[int, Answer], None],
    ) -> list[Answer]:
        found = []
        with ThreadPoolExecutor(self._concurrency) as pool:
            waiting = {
                pool.submit(self._answer, prompts[place], settings, seed + keys[place]): place for place in places
            }
            try:
                for done in as_completed(waiting):
                    answer = done.result()
                    found.append(answer)
                    keep(waiting[done], answer)
            except BaseException:
                for future in waiting:
                    future.cancel()
                raise
        return found

    def _answer(self, messages: Messages, settings: AnswerSettings, seed: int) -> Answer:
        ask = self._generate if self._api is EndpointApi.TGI else self._chat
        try:
            return self._server.ask(lambda: ask(messages, settings, seed))
        except Unanswered as error:
            return Answer(finished=False, failure=str(error))

    def _chat(self, messages: Messages, settings: AnswerSettings, seed: int) -> Answer:
        """By OpenAI's API: the server renders the turns."""
        output = self._client.chat_completion(
            list(messages),
            model=None,
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p if settings.temperature > 0 else None,
            seed=seed,
            extra_body={"model": self._model} if self._model else None,
        )
        choice = output.choices[0]
        text = choice.message.content or ""
        tokens = output.usage.completion_tokens if output.usage is not None else None
        return Answer(_text(text), choice.finish_reason != "length", tokens)

    def _generate(self, messages: Messages, settings: AnswerSettings, seed: int) -> Answer:
        """By text-generation-inference's own route, which renders nothing: the turns' texts, a blank line between."""
        drawn = settings.temperature > 0
        output = self._client.text_generation(
            "\n\n".join(message["content"] for message in messages),
            details=True,
            stream=False,
            max_new_tokens=settings.max_new_tokens,
            do_sample=drawn,
            temperature=settings.temperature if drawn else None,
            top_p=settings.top_p if drawn and settings.top_p < 1 else None,
            seed=seed,
        )
        details = output.details
        if details is None:
            return Answer(_text(output.generated_text))
        return Answer(_text(output.generated_text), details.finish_reason != "length", details.generated_tokens)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text was asked for, and {type(value).__name__} came")
    return value


def found_api(server: Server, wanted: EndpointApi) -> tuple[EndpointApi, str | None] | None:
    """The API that a server speaks, and the model it has; None when it is none of the known.

    OpenAI's is preferred where there are both, as at text-generation-inference: there the server applies its model's
    chat template.
    """
    if wanted is not EndpointApi.TGI:
        listed = server.get("/v1/models")
        if isinstance(listed, dict) and isinstance(listed.get("data"), list):
            models = [one.get("id") for one in listed["data"] if isinstance(one, dict)]
            return EndpointApi.OPENAI, next((one for one in models if isinstance(one, str)), None)
    if wanted is not EndpointApi.OPENAI:
        info = server.get("/info")
        if isinstance(info, dict) and "model_id" in info:
            return EndpointApi.TGI, str(info["model_id"])
    return None
