"""A served model as something that answers: text-generation-inference's API, or OpenAI's."""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from alidade_crds.contract import ENDPOINT_KEY_ENV, ENDPOINT_URL_ENV, JobEndpoint
from alidade_crds.evaluation import EndpointApi
from alidade_engine.data.formats import Messages
from alidade_eval.asking import Server, Unanswered, key_in
from alidade_eval.subjects import Answer, AnswerSettings

FAILURES_IN_A_ROW = 8
"""Questions without an answer, one after the other, after which the endpoint is asked something that it must know."""
GREETING = [{"role": "user", "content": "Hello"}]
FIELD = "spec.endpoint.url"


@dataclass(frozen=True)
class Spoken:
    """What a server speaks. model: the first that it has. is_tgi: whether it is text-generation-inference."""

    api: EndpointApi
    model: str | None
    is_tgi: bool


class HttpEndpoint:
    """A server that renders prompts with its own model's template (OpenAI's API), or takes them as they are (TGI's)."""

    def __init__(self, endpoint: JobEndpoint, server: Server, spoken: Spoken, say: Callable[[str], None]) -> None:
        self.name = endpoint.name
        self._server = server
        self._client = server.client("/generate" if spoken.api is EndpointApi.TGI else "/v1")
        self._concurrency = endpoint.concurrency
        self._spoken = spoken
        self._model = endpoint.model or spoken.model
        self._say = say
        say(f"{endpoint.url} speaks {spoken.api}; asked is {self._model or 'the model it has'}.")

    @classmethod
    def connect(
        cls, endpoint: JobEndpoint, *, say: Callable[[str], None], environment: Mapping[str, str] = os.environ
    ) -> "HttpEndpoint":
        """The endpoint, once it answers. Raises JobFailure (EndpointUnavailable) when it does not."""
        server = Server(
            environment.get(ENDPOINT_URL_ENV, endpoint.url),
            key_in(environment, ENDPOINT_KEY_ENV),
            timeout_s=endpoint.timeout_seconds,
            retries=endpoint.retries,
            field=FIELD,
        )
        return cls(endpoint, server, server.wait(lambda: spoken_by(server, endpoint.api, endpoint.model)), say)

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

        Raises JobFailure (EndpointUnavailable) when many in a row are not answered, nor is a greeting then.
        """
        most, failures = min(FAILURES_IN_A_ROW, len(prompts)), 0
        with ThreadPoolExecutor(self._concurrency) as pool:
            waiting = {
                pool.submit(self._answer, prompt, settings, seed + key): place
                for place, (prompt, key) in enumerate(zip(prompts, keys, strict=True))
            }
            try:
                for done in as_completed(waiting):
                    answer = done.result()
                    keep(waiting[done], answer)
                    failures = failures + 1 if answer.failure else 0
                    if failures == most:
                        self._greet(settings, f"{failures} questions in a row were not answered")
                        failures = 0
            except BaseException:
                self._server.give_up()
                for future in waiting:
                    future.cancel()
                raise

    def _greet(self, settings: AnswerSettings, trouble: str) -> None:
        """Tells an endpoint that is gone from questions that it cannot answer, such as those that are too long."""
        try:
            self._server.ask(lambda: self._asked(GREETING, settings, seed=0))
        except Unanswered as error:
            raise self._server.unavailable(f"{trouble}, nor is a greeting: {error}", retryable=error.passing) from error
        self._say(f"{trouble}; a greeting is, so the others are asked.")

    def _answer(self, messages: Messages, settings: AnswerSettings, seed: int) -> Answer:
        try:
            return self._server.ask(lambda: self._asked(messages, settings, seed))
        except Unanswered as error:
            return Answer(finished=False, failure=str(error))

    def _asked(self, messages: Messages, settings: AnswerSettings, seed: int) -> Answer:
        ask = self._generate if self._spoken.api is EndpointApi.TGI else self._chat
        return ask(messages, settings, seed)

    def _chat(self, messages: Messages, settings: AnswerSettings, seed: int) -> Answer:
        """By OpenAI's API: the server renders the turns."""
        # What is not sent is the server's to choose, which may be the model's own default; text-generation-inference
        # refuses 1 and means it by nothing.
        sends_top_p = settings.temperature > 0 and not (settings.top_p == 1 and self._spoken.is_tgi)
        output = self._client.chat_completion(
            list(messages),
            model=None,
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p if sends_top_p else None,
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


def spoken_by(server: Server, wanted: EndpointApi, model: str | None) -> Spoken | None:
    """What a server speaks; None when it is none of the known.

    OpenAI's API is preferred where there are both, as at text-generation-inference: there the server applies its
    model's chat template. model: that is asked for; a server whose API and model are both known need not list models.
    """
    if wanted is not EndpointApi.TGI:
        listed = server.get("/v1/models")
        if isinstance(listed, dict) and isinstance(listed.get("data"), list):
            models = [one.get("id") for one in listed["data"] if isinstance(one, dict)]
            first = next((one for one in models if isinstance(one, str)), None)
            return Spoken(EndpointApi.OPENAI, first, _is_tgi(server))
        if wanted is EndpointApi.OPENAI and model is not None:
            return Spoken(EndpointApi.OPENAI, model, is_tgi=False)
    if wanted is not EndpointApi.OPENAI and (own := _model_of_tgi(server)) is not None:
        return Spoken(EndpointApi.TGI, own, is_tgi=True)
    return None


def _is_tgi(server: Server) -> bool:
    try:
        return _model_of_tgi(server) is not None
    except Unanswered:  # gateways have their ways with paths that they do not know
        return False


def _model_of_tgi(server: Server) -> str | None:
    info = server.get("/info")
    return str(info["model_id"]) if isinstance(info, dict) and "model_id" in info else None
