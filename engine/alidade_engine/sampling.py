"""Answers drawn from a model: many prompts, several samples of each, in a batch whose places are always taken.

A row that ends leaves the batch and a waiting one takes its place, a prompt is read once for all its samples, and keys
and values live in memory that is allocated once per call. Each sample draws with random numbers of its own, made from
(seed, prompt, sample): which rows share a batch, in which order they come and how many slots there are does not matter
to it.

What floating point leaves: on the CPU, models of the llama family on 4 slots and more gave the same bits whatever the
slots and the order (measured, one thread, float32 and bfloat16; kernels are fed only shapes for which that holds).
Elsewhere, matrix kernels round differently for batches of other sizes: logits differ by about 1e-6 of their size in
float32 and 1e-2 in bfloat16, and a token differs where its random number falls that close to a boundary between two
tokens, or, without a temperature, where the two likeliest are that close.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alidade_engine.decoding import Decoder, ForwardDecoder
from alidade_engine.drawing import SamplingParams
from alidade_engine.llama_decoding import FEWEST_ROWS, LlamaDecoder, supports
from alidade_engine.scheduling import Finished, Request, Schedule
from alidade_engine.templates import Message, render_prompts, resolve_template, stop_token_ids

Ask = str | Sequence[Message] | Sequence[int]
"""A question (rendered as a user's turn), a conversation that waits for an answer, or token ids taken as they are."""


@dataclass(frozen=True)
class Completion:
    """An answer.

    prompt_ids: the tokens that were asked. token_ids: the tokens drawn, with the one that ended them. text: without it.
    finish_reason: stop when the model ended the answer, length when the limit or the model's context did. logprobs:
    natural logarithms of the probability of each of token_ids at the temperature, in float32; None unless asked for.
    """

    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: list[float] | None = None


class SamplingEngine(Protocol):
    """What draws samples, here or on another engine; the same arguments give the same samples on the same engine."""

    def sample(
        self,
        prompt_token_ids: Sequence[Sequence[int]],
        params: SamplingParams,
        *,
        samples_per_prompt: int = 1,
        seed: int = 0,
        prompt_keys: Sequence[int] | None = None,
        drawn: Mapping[tuple[int, int], Completion] | None = None,
        on_completion: Callable[[int, int, Completion], None] | None = None,
    ) -> list[list[Completion]]:
        """samples_per_prompt completions of each prompt, both in order; see `Sampler.sample`."""


class Sampler:
    """Draws from a model of transformers.

    max_length: most tokens of a prompt and its answer together; None for the model's context. slots: rows that run at
    once. Keys and values take slots × the longest prompt and answer of a call, and are freed when it returns.

    Nothing is copied from the model: its weights are read through its modules at every step, so that a sampler made
    once draws from whatever the weights are at the time of a call. They must be whole then: under ZeRO-3, give it the
    module, not the engine around it, and gather the weights once around the call
    (`deepspeed.zero.GatheredParameters(list(model.parameters()))`) with the engine's hooks taken off the modules, which
    would partition each weight again after its first use. Calls run without gradients and in eval mode; the model is
    left in the mode it was in, also when a callback raises to interrupt them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = None,
        slots: int = 32,
        template: str = "auto",
    ) -> None:
        if slots < 1:
            raise ValueError(f"slots is {slots}; it must be at least 1.")
        self._model = model
        self._tokenizer = tokenizer
        self._limit = length_limit(model, max_length)
        self._slots = slots
        self._template = template

    def sample(
        self,
        prompt_token_ids: Sequence[Sequence[int]],
        params: SamplingParams,
        *,
        samples_per_prompt: int = 1,
        seed: int = 0,
        prompt_keys: Sequence[int] | None = None,
        drawn: Mapping[tuple[int, int], Completion] | None = None,
        on_token: Callable[[int, int, int], None] | None = None,
        on_completion: Callable[[int, int, Completion], None] | None = None,
        is_over: Callable[[int, Sequence[int]], bool] | None = None,
    ) -> list[list[Completion]]:
        """samples_per_prompt completions of each prompt, both in order.

        seed: at least 0. prompt_keys: what each prompt's random numbers are made from, at least 0 each; its place
        unless given: with keys of the whole dataset, a prompt has the same samples on whichever worker it lands. drawn:
        completions by (place of the prompt, sample) that an interrupted call had finished, taken as they are.
        on_token(prompt, sample, id) and on_completion(prompt, sample, completion) are called as they come, in no
        particular order between prompts; an exception that they raise ends the call. is_over(prompt, token
        ids so far): whether an answer that no token has ended needs no more, such as after a string that stops it; it
        is then kept as it is, with the finish_reason length. Raises ValueError for a prompt without tokens or one that
        leaves no room for an answer.
        """
        check_asked(prompt_token_ids, samples_per_prompt, seed, prompt_keys, self._limit)
        stops = params.stop_token_ids
        stops = tuple(stop_token_ids(self._tokenizer, self._template)) if stops is None else stops
        prompts = [list(prompt) for prompt in prompt_token_ids]
        done: dict[tuple[int, int], Completion] = dict(drawn or {})

        def finish(finished: Finished) -> None:
            place = finished.request.prompt, finished.sample
            done[place] = self._completion(prompts[place[0]], finished)
            if on_completion is not None:
                on_completion(*place, done[place])

        requests = [
            Request(
                place,
                (prompt_keys or range(len(prompts)))[place],
                prompts[place],
                [sample for sample in range(samples_per_prompt) if (place, sample) not in done],
                max(0, min(params.max_new_tokens, self._limit.tokens - len(prompts[place]))),
            )
            for place in range(len(prompts))
        ]
        self._run(requests, params, frozenset(stops), seed, finish, on_token, is_over)
        return [[done[place, sample] for sample in range(samples_per_prompt)] for place in range(len(prompts))]

    def _run(
        self,
        requests: list[Request],
        params: SamplingParams,
        stops: frozenset[int],
        seed: int,
        finish: Callable[[Finished], None],
        on_token: Callable[[int, int, int], None] | None,
        is_over: Callable[[int, Sequence[int]], bool] | None,
    ) -> None:
        rows = sum(len(request.samples) for request in requests)
        if rows == 0:
            return
        _check_weights(self._model)
        slots = min(self._slots, max(rows, FEWEST_ROWS))
        longest = max(len(request.tokens) + request.budget for request in requests)
        was_training = self._model.training
        self._model.eval()
        try:
            decoder = make_decoder(self._model, slots=slots, length=longest)
            Schedule(
                decoder, params, stops, slots=slots, seed=seed, finish=finish, on_token=on_token, is_over=is_over
            ).run(requests)
        finally:
            self._model.train(was_training)

    def _completion(self, prompt: list[int], finished: Finished) -> Completion:
        return completed(self._tokenizer, prompt, finished.tokens, stopped=finished.stopped, logprobs=finished.logprobs)


@dataclass(frozen=True)
class LengthLimit:
    """Most tokens of a prompt and its answer together; name: whose limit it is, as people say it."""

    tokens: int
    name: str


def length_limit(model: PreTrainedModel, max_length: int | None) -> LengthLimit:
    """The model's context, or max_length where that is less."""
    context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
    if max_length is None or max_length >= context:
        return LengthLimit(context, "the model's context")
    return LengthLimit(max_length, "the sampler's max_length")


def check_asked(
    prompts: Sequence[Sequence[int]], samples: int, seed: int, keys: Sequence[int] | None, limit: LengthLimit
) -> None:
    """Raises ValueError for what `SamplingEngine.sample` does not take."""
    if samples < 1:
        raise ValueError(f"samples_per_prompt is {samples}; it must be at least 1.")
    if seed < 0 or min(keys or [0]) < 0:
        raise ValueError(f"seed is {seed}; it and every one of prompt_keys must be at least 0.")
    if keys is not None and len(keys) != len(prompts):
        raise ValueError(f"prompt_keys has {len(keys)} entries for {len(prompts)} prompts; it must have one each.")
    for number, prompt in enumerate(prompts, 1):
        if not len(prompt):
            raise ValueError(f"prompt {number} has no tokens")
        if len(prompt) >= limit.tokens:
            raise ValueError(f"prompt {number} has {len(prompt)} tokens; {limit.name} is {limit.tokens}")


def completed(
    tokenizer: PreTrainedTokenizerBase,
    prompt: list[int],
    tokens: list[int],
    *,
    stopped: bool,
    logprobs: list[float] | None = None,
) -> Completion:
    """The tokens drawn as a Completion; stopped: whether the last of them ended the answer."""
    text = tokenizer.decode(tokens[:-1] if stopped else tokens, skip_special_tokens=True)
    return Completion(prompt, tokens, text, "stop" if stopped else "length", logprobs)


def make_decoder(model: PreTrainedModel, *, slots: int, length: int) -> Decoder:
    """The fastest decoder that computes what the model's own forward computes."""
    if supports(model, length):
        return LlamaDecoder(model, slots=slots, length=length)
    return ForwardDecoder(model)


def _check_weights(model: PreTrainedModel) -> None:
    absent = next((name for name, weight in model.named_parameters() if weight.numel() == 0), None)
    if absent is not None:
        raise ValueError(
            f"The weight {absent} is not on this worker, since ZeRO-3 has partitioned it. Gather the weights around "
            "the call: with deepspeed.zero.GatheredParameters(list(model.parameters()))."
        )


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Ask],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    top_k: int = 0,
    repetition_penalty: float = 1.0,
    logprobs: bool = False,
    seed: int = 0,
    batch_size: int = 32,
    template: str = "auto",
    on_token: Callable[[int, int], None] | None = None,
) -> list[Completion]:
    """One answer to each prompt, in order: `Sampler` for prompts that may be text; batch_size is its slots.

    temperature 0 takes the likeliest token each time; the rest is as in SamplingParams. The same seed gives the same
    answers. on_token(prompt, id) is called as tokens come. Raises ValueError for a prompt that leaves no room in the
    model's context.
    """
    params = SamplingParams(max_new_tokens, temperature, top_p, top_k, repetition_penalty, logprobs=logprobs)
    sampler = Sampler(model, tokenizer, slots=batch_size, template=template)
    told = None if on_token is None else _for_one_sample(on_token)
    answers = sampler.sample(_token_ids(tokenizer, prompts, template), params, seed=seed, on_token=told)
    return [answer for (answer,) in answers]


def _for_one_sample(on_token: Callable[[int, int], None]) -> Callable[[int, int, int], None]:
    return lambda prompt, _, token: on_token(prompt, token)


def _token_ids(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Ask], template: str) -> list[list[int]]:
    asked: list[list[int]] = []
    conversations: list[Sequence[Message]] = []
    places: list[int] = []
    for place, prompt in enumerate(prompts):
        asked.append([])
        if isinstance(prompt, str):
            conversations.append([{"role": "user", "content": prompt}])
            places.append(place)
        elif all(isinstance(item, int) for item in prompt):
            asked[place] = cast(list[int], list(prompt))
        else:
            conversations.append(cast(Sequence[Message], prompt))
            places.append(place)
    if conversations:
        rendered = render_prompts(tokenizer, conversations, resolve_template(tokenizer, template))
        for place, ids in zip(places, rendered, strict=True):
            asked[place] = ids
    return asked


__all__ = [
    "Ask",
    "Completion",
    "Sampler",
    "SamplingEngine",
    "SamplingParams",
    "generate",
    "make_decoder",
]
