"""A model of this process as lm-evaluation-harness sees one: its requests, answered by the shared engine."""

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from transformers import PreTrainedTokenizerBase

from alidade_engine.branches import shared_likelihoods, shares_contexts
from alidade_engine.encoding import Rendered
from alidade_engine.sampling import Completion, Sampler, SamplingParams, length_limit
from alidade_engine.scoring import likelihoods_and_greed
from alidade_eval.subjects import SLOTS, LocalModel

BATCH = 64
DEFAULT_ANSWER = 256
"""Tokens of an answer where a task names no limit; the library's own default."""


class EngineLM(TemplateLM):  # type: ignore[misc]  # the library has no types
    """Log-likelihoods with a question read once for all its answers; answers on the sampling engine."""

    def __init__(self, subject: LocalModel) -> None:
        super().__init__()
        self._subject = subject
        self.tokenizer = subject.tokenizer
        self._limit = length_limit(subject.model, None).tokens

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text's first token: BOS, or EOS where there is none."""
        start = self.tokenizer.bos_token_id
        return self.eot_token_id if start is None else int(start)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """The text's ids; the tokenizer's own special tokens unless told otherwise, or the text has BOS already."""
        if add_special_tokens is None:
            bos = self.tokenizer.bos_token
            add_special_tokens = not (bos and string.startswith(bos))
        ids: list[int] = self.tokenizer.encode(string, add_special_tokens=add_special_tokens)
        return ids

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Of each continuation; what is beyond the context is cut off at the left, as the library does."""
        return self._scored([self._question(context, continuation) for _text, context, continuation in requests])

    def _question(self, context: list[int], continuation: list[int]) -> tuple[tuple[int, ...], list[int]]:
        """What is read and what is scored; a continuation keeps at least one token before it."""
        ids = [*context, *continuation][-(self._limit + 1) :]
        begins = max(1, len(ids) - len(continuation))
        return tuple(ids[:begins]), ids[begins:]

    def _scored(self, asked: Sequence[tuple[tuple[int, ...], list[int]]]) -> list[tuple[float, bool]]:
        """Of each answer after its context."""
        model, pad = self._subject.model, self.tokenizer.pad_token_id
        if shares_contexts(model, self._limit):
            return shared_likelihoods(model, asked, pad_token_id=pad)
        whole = [_whole(context, answer) for context, answer in asked]
        return likelihoods_and_greed(model, whole, pad_token_id=pad, batch_size=BATCH)

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Log-likelihood of whole texts, in windows that share no token to be scored."""
        asked, owners = [], []
        for owner, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._limit,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, windows):
                asked.append((tuple(context), list(continuation)))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._scored(asked), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Answers, cut where a stop string begins."""
        answers = [""] * len(requests)
        self.answer(requests, keys=range(len(requests)), seed=0, keep=answers.__setitem__)
        return answers

    def answer(
        self, requests: Sequence[Instance], *, keys: Sequence[int], seed: int, keep: Callable[[int, str], None]
    ) -> None:
        """Calls keep(place of the request, answer) as answers are finished. keys: as of `Sampler.sample`."""
        by_settings: dict[tuple[Any, ...], list[int]] = {}
        for place, request in enumerate(requests):
            by_settings.setdefault(_settings(request.args[1]), []).append(place)
        for (longest, temperature, top_p, top_k, until), places in by_settings.items():
            over = Stops(self.tokenizer, until)

            def finished(
                prompt: int, _: int, done: Completion, places: Sequence[int] = places, until: Sequence[str] = until
            ) -> None:
                keep(places[prompt], cut_at(done.text, until))

            sampler = Sampler(self._subject.model, self.tokenizer, slots=SLOTS[self._subject.model.device.type])
            sampler.sample(
                [self._cut(self.tok_encode(requests[place].args[0]), longest) for place in places],
                SamplingParams(longest, temperature, top_p, top_k, stop_token_ids=(self.eot_token_id,)),
                seed=seed,
                prompt_keys=[keys[place] for place in places],
                on_completion=finished,
                is_over=over if until else None,
            )

    def _cut(self, ids: list[int], longest: int) -> list[int]:
        """The end of a prompt that leaves room for an answer."""
        room = max(1, self._limit - longest)
        return ids[-room:] or [self.prefix_token_id]


class Stops:
    """Whether an answer holds one of the strings that end it, asked after each token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, strings: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._strings = [one for one in strings if one]
        # A token is at least one byte, but for a few that are none; what the last one completes is in so many.
        self._tail = max((len(one.encode()) for one in self._strings), default=0) + 8

    def __call__(self, _prompt: int, tokens: Sequence[int]) -> bool:
        """tokens: of the answer so far; asked before, none of the strings was in it."""
        text = self._tokenizer.decode(tokens[-self._tail :], skip_special_tokens=True)
        return any(one in text for one in self._strings)


def _whole(context: Sequence[int], continuation: Sequence[int]) -> Rendered:
    return Rendered([*context, *continuation], [False] * len(context) + [True] * len(continuation))


def _settings(wanted: dict[str, Any]) -> tuple[int, float, float, int, tuple[str, ...]]:
    """Longest answer, temperature, top_p, top_k and stop strings of a request's keyword arguments."""
    kwargs = normalize_gen_kwargs(wanted, DEFAULT_ANSWER)
    temperature = float(kwargs.get("temperature", 0.0)) if kwargs["do_sample"] else 0.0
    top_k = int(kwargs.get("top_k", 0))
    return kwargs["max_gen_toks"], temperature, float(kwargs.get("top_p", 1.0)), top_k, tuple(kwargs["until"] or ())


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
