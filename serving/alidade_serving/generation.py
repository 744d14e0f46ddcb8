"""A request in the terms of the engine, whichever API it came by, and what comes back."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Generation:
    """What to generate.

    temperature 0 takes the likeliest token. top_logprobs: how many likely tokens come with each; None for no
    log-probabilities at all, which is fastest. Ranges were checked by whoever made it.
    """

    prompt_ids: list[int]
    max_new_tokens: int
    seed: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None
    adapter: str | None = None

    def document(self) -> dict[str, Any]:
        """The request as llama.cpp's server reads it, with every sampler that was not asked for switched off."""
        return {
            "prompt": self.prompt_ids,
            "n_predict": self.max_new_tokens,
            # llama.cpp takes 2^32 - 1 for "draw a seed".
            "seed": self.seed % (2**32 - 1),
            "stop": list(self.stop),
            "temperature": self.temperature,
            "top_k": self.top_k or 0,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "min_p": self.min_p or 0.0,
            "typical_p": 1.0 if self.typical_p is None else self.typical_p,
            "repeat_penalty": self.repetition_penalty,
            "repeat_last_n": len(self.prompt_ids) + self.max_new_tokens,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "logit_bias": [[token, bias] for token, bias in self.logit_bias.items()],
            "n_probs": 0 if self.top_logprobs is None else max(1, self.top_logprobs),
            "cache_prompt": True,
            "return_tokens": True,
            "stream": True,
        }


@dataclass(frozen=True)
class Likely:
    """A token that was likely at a place, with its log-probability (natural)."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class Piece:
    """Text that was added. A character of several tokens is one piece, under its last token.

    likely: the likeliest tokens at the place, the likeliest first; empty unless log-probabilities were asked for.
    generated: tokens generated so far, those of this piece included.
    """

    text: str
    token_id: int
    logprob: float | None
    likely: tuple[Likely, ...]
    generated: int


@dataclass(frozen=True)
class Ending:
    """Why an answer ended (length, eos_token or stop_sequence, as text-generation-inference says), and its counts."""

    reason: str
    stop_sequence: str
    prompt_tokens: int
    reused_tokens: int
    generated_tokens: int
    drafted_tokens: int
    accepted_tokens: int


@dataclass(frozen=True)
class Answer:
    """A whole answer. text is without the stop sequence that ended it."""

    pieces: tuple[Piece, ...]
    ending: Ending

    @property
    def text(self) -> str:
        """What was generated."""
        return "".join(piece.text for piece in self.pieces)
