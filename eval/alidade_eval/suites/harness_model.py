"""A model of this process as lm-evaluation-harness sees one: its requests, answered by the shared engine."""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from alidade_engine.encoding import Rendered
from alidade_engine.sampling import Sampler, SamplingParams, length_limit
from alidade_engine.scoring import likelihoods_and_greed
from alidade_engine.templates import stop_token_ids
from alidade_eval.subjects import SLOTS, LocalModel

BATCH = 64
DEFAULT_ANSWER = 256
"""Tokens of an answer where a task names no limit; the library's own default."""


class EngineLM(TemplateLM):  # type: ignore[misc]  # the library has no types
    """Log-likelihoods batched by length, with logits for the scored tokens alone; answers on the sampling engine."""

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
        sequences = []
        for _text, context, continuation in requests:
            ids = [*context, *continuation][-(self._limit + 1) :]
            begins = max(1, len(ids) - len(continuation))
            sequences.append(Rendered(ids, [place >= begins for place in range(len(ids))]))
        return self._scored(sequences)

    def _scored(self, sequences: Sequence[Rendered]) -> list[tuple[float, bool]]:
        return likelihoods_and_greed(
            self._subject.model, sequences, pad_token_id=self.tokenizer.pad_token_id, batch_size=BATCH
        )

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:  # noqa: ARG002
        """Log-likelihood of whole texts, in windows that share no token to be scored."""
        sequences, owners = [], []
        for owner, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._limit,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, windows):
                ids = [*context, *continuation]
                sequences.append(Rendered(ids, [place >= len(context) for place in range(len(ids))]))
                owners.append(owner)
        totals = [0.0] * len(requests)
        for owner, (value, _) in zip(owners, self._scored(sequences), strict=True):
            totals[owner] += value
        return totals

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Answers, cut where a stop string begins."""
        answers = [""] * len(requests)
        by_settings: dict[tuple[Any, ...], list[int]] = {}
        for place, request in enumerate(requests):
            by_settings.setdefault(_settings(request.args[1]), []).append(place)
        for (longest, temperature, top_p, top_k), places in by_settings.items():
            prompts = [self._cut(self.tok_encode(requests[place].args[0]), longest) for place in places]
            sampler = Sampler(
                self._subject.model, self.tokenizer, slots=SLOTS[self._subject.model.device.type], template="none"
            )
            stops = tuple(stop_token_ids(self.tokenizer, "none"))
            params = SamplingParams(longest, temperature, top_p, top_k, stop_token_ids=stops)
            drawn = sampler.sample(prompts, params, prompt_keys=places)
            for place, (completion,) in zip(places, drawn, strict=True):
                answers[place] = cut_at(completion.text, _until(requests[place].args[1]))
        return answers

    def _cut(self, ids: list[int], longest: int) -> list[int]:
        """The end of a prompt that leaves room for an answer."""
        room = max(1, self._limit - longest)
        return ids[-room:] or [self.prefix_token_id]


def _settings(wanted: dict[str, Any]) -> tuple[int, float, float, int]:
    """Longest answer, temperature, top_p, top_k of a request's keyword arguments."""
    longest = int(wanted.get("max_gen_toks") or wanted.get("max_new_tokens") or DEFAULT_ANSWER)
    drawn = bool(wanted.get("do_sample", float(wanted.get("temperature", 0.0)) > 0))
    temperature = float(wanted.get("temperature", 1.0)) if drawn else 0.0
    return longest, temperature, float(wanted.get("top_p", 1.0)), int(wanted.get("top_k", 0)) if drawn else 0


def _until(wanted: dict[str, Any]) -> list[str]:
    until = wanted.get("until") or []
    return [until] if isinstance(until, str) else list(until)


def cut_at(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    ends = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else text
