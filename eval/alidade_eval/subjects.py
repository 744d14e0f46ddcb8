"""What is measured: something that answers, here or behind an endpoint, and a model whose likelihoods can be read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alidade_crds.blocks import Precision
from alidade_crds.contract import JobModel
from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Messages
from alidade_engine.digests import model_digest
from alidade_engine.encoding import Rendered
from alidade_engine.failures import JobFailure
from alidade_engine.models import ensure_pad_token, load_model, load_tokenizer
from alidade_engine.sampling import Completion, Sampler, SamplingParams, length_limit
from alidade_engine.scoring import sequence_logprobs
from alidade_engine.templates import RenderError, render_batch, render_prompts, resolve_template

SLOTS = {"cpu": 32, "cuda": 128}
"""Answers that are drawn at once: enough to keep the matrix units busy, few enough for the keys and values."""


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are drawn."""

    template: str = "auto"
    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True)
class Answer:
    """An answer, or why there is none. tokens: drawn, with the one that ended it; None where nobody counted.

    finished: whether the model ended it, and not the limit.
    """

    text: str = ""
    finished: bool = True
    tokens: int | None = None
    failure: str | None = None


class Subject(Protocol):
    """Something that answers."""

    name: str

    def answers(
        self,
        prompts: Sequence[Messages],
        settings: AnswerSettings,
        *,
        keys: Sequence[int],
        seed: int,
        keep: Callable[[int, Answer], None],
    ) -> None:
        """Calls keep(place of the prompt, answer) once for each prompt, as answers are finished, in any order.

        keys: what each prompt's random numbers are made from, so that it has the same answer on whichever worker. An
        exception that keep raises ends the call. Raises JobFailure when nothing can be answered at all.
        """


@dataclass(frozen=True)
class Likelihood:
    """Of a text, or an answer: sum of the log-probabilities of its tokens in nats, negated, and how many there are."""

    nats: float
    tokens: int


class LocalModel:
    """A model of transformers in this process."""

    def __init__(self, name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.name = name
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer

    @classmethod
    def load(
        cls, name: str, folder: Path, source: JobModel, *, precision: Precision | None, field: str
    ) -> "LocalModel":
        """The model of a folder, on the GPU where there is one. Raises JobFailure when it cannot be used, or is not
        the one of the digest in source."""
        if source.digest is not None and (found := model_digest(folder)) != source.digest:
            raise JobFailure(
                FailureReason.DIGEST_MISMATCH,
                f"{field} is {source.uri}, whose digest is {found}; the evaluation was made for {source.digest}. The "
                "files have changed since: apply the evaluation anew under another name.",
            )
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        wanted = precision or (Precision.BF16 if device.type == "cuda" else Precision.FP32)
        dtype = torch.bfloat16 if wanted is Precision.BF16 else torch.float32
        model = load_model(folder, dtype=dtype, trust_remote_code=source.trust_remote_code)
        tokenizer = load_tokenizer(folder)
        ensure_pad_token(tokenizer, model)
        return cls(name, model.to(device), tokenizer)

    def answers(
        self,
        prompts: Sequence[Messages],
        settings: AnswerSettings,
        *,
        keys: Sequence[int],
        seed: int,
        keep: Callable[[int, Answer], None],
    ) -> None:
        """As `Subject.answers`. A prompt that leaves no room for an answer is kept as a failure."""
        limit = length_limit(self.model, None)
        rendered = render_prompts(self.tokenizer, prompts, resolve_template(self.tokenizer, settings.template))
        fitting = [place for place, ids in enumerate(rendered) if 0 < len(ids) < limit.tokens]
        for place in sorted(set(range(len(prompts))) - set(fitting)):
            why = f"the prompt has {len(rendered[place])} tokens; {limit.name} is {limit.tokens}"
            keep(place, Answer(finished=False, failure=why))

        def finished(place: int, _sample: int, done: Completion) -> None:
            keep(fitting[place], Answer(done.text, done.finish_reason == "stop", len(done.token_ids)))

        sampler = Sampler(self.model, self.tokenizer, slots=SLOTS[self.model.device.type], template=settings.template)
        params = SamplingParams(settings.max_new_tokens, settings.temperature, settings.top_p)
        sampler.sample(
            [rendered[place] for place in fitting],
            params,
            seed=seed,
            prompt_keys=[keys[place] for place in fitting],
            on_completion=finished,
        )

    def answer_likelihoods(
        self, conversations: Sequence[tuple[Messages, str]], *, template: str
    ) -> list[Likelihood | str]:
        """Of each answer given its prompt, with the token that ends it; a sentence where it does not fit the context.

        conversations: prompt and answer. Raises RenderError for a conversation that the template cannot render.
        """
        source = resolve_template(self.tokenizer, template)
        whole = [[*messages, {"role": "assistant", "content": answer}] for messages, answer in conversations]
        asked = render_prompts(self.tokenizer, [messages for messages, _ in conversations], source)
        sequences = [
            Rendered(one.input_ids, [place >= len(prompt) for place in range(len(one.input_ids))])
            for one, prompt in zip(render_batch(self.tokenizer, whole, source), asked, strict=True)
        ]
        return self._scored(sequences)

    def text_likelihoods(self, texts: Sequence[str], *, window: int | None, stride: int | None) -> list[Likelihood]:
        """Of each text, every token of which is scored once, given at least window - stride tokens where there are.

        The first token is given the tokenizer's BOS token, or EOS where it has none, so that texts of one token and
        the first bytes of others count, too.
        """
        limit = length_limit(self.model, None).tokens
        width = min(window or limit, limit)
        step = min(stride or max(1, width // 2), width - 1)
        pieces, owners = [], []
        for number, text in enumerate(texts):
            for piece in windows(self._with_start(text), width, step):
                pieces.append(piece)
                owners.append(number)
        nats, tokens = [0.0] * len(texts), [0] * len(texts)
        for owner, scores in zip(owners, self._logprobs(pieces), strict=True):
            nats[owner] -= float(scores.double().sum())
            tokens[owner] += len(scores)
        return [Likelihood(*one) for one in zip(nats, tokens, strict=True)]

    def _with_start(self, text: str) -> list[int]:
        start = self.tokenizer.bos_token_id
        start = self.tokenizer.eos_token_id if start is None else start
        return [start, *self.tokenizer(text, add_special_tokens=False)["input_ids"]]

    def _scored(self, sequences: Sequence[Rendered]) -> list[Likelihood | str]:
        limit = length_limit(self.model, None).tokens
        fitting = [place for place, one in enumerate(sequences) if len(one.input_ids) <= limit]
        found: list[Likelihood | str] = [
            f"prompt and answer have {len(one.input_ids)} tokens; the model's context is {limit}" for one in sequences
        ]
        for place, scores in zip(fitting, self._logprobs([sequences[place] for place in fitting]), strict=True):
            found[place] = Likelihood(-float(scores.double().sum()), len(scores))
        return found

    def _logprobs(self, sequences: Sequence[Rendered]) -> list[torch.Tensor]:
        return sequence_logprobs(self.model, sequences, pad_token_id=self.tokenizer.pad_token_id, batch_size=64)


def windows(ids: Sequence[int], width: int, step: int) -> list[Rendered]:
    """Pieces of at most width tokens, step tokens on from one to the next, that mask in each token but the first once.

    ids: (tokens,) with the start token in front.
    """
    pieces, scored, begin = [], 1, 0
    while scored < len(ids):
        end = min(begin + width, len(ids))
        pieces.append(Rendered(list(ids[begin:end]), [place >= scored for place in range(begin, end)]))
        scored, begin = end, begin + step
    return pieces


__all__ = [
    "Answer",
    "AnswerSettings",
    "Likelihood",
    "LocalModel",
    "RenderError",
    "Subject",
    "windows",
]
