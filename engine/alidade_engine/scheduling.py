"""Which samples run when: places in the batch that fall free are taken by the next that wait."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from alidade_engine.decoding import Decoder, Prefilled, compaction
from alidade_engine.drawing import SamplingParams, draw, uniforms

# Most tokens of prompts, padding included, that are read in one forward: bounds the activations.
_PREFILL_TOKENS = 8192
# Share of the places that fall free before prompts are read for them: reading a few at once is cheaper than each alone.
_REFILL_SHARE = 8


@dataclass(frozen=True)
class Request:
    """A prompt and which of its samples are wanted.

    prompt: its place among the prompts. key: what its random numbers are made from. budget: most tokens of an answer.
    """

    prompt: int
    key: int
    tokens: list[int]
    samples: list[int]
    budget: int


@dataclass(frozen=True)
class Finished:
    """The tokens of one sample, with the one that stopped it if one did, and their log-probabilities if wanted."""

    request: Request
    sample: int
    tokens: list[int]
    logprobs: list[float] | None
    stopped: bool


@dataclass
class _Row:
    """A sample in the making. positions: (budget,) its random numbers, one a token."""

    request: Request
    sample: int
    positions: list[float]
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass
class _Ready:
    """Prompts that have been read and whose samples wait for places, as (place among those read, request, sample)."""

    prefilled: Prefilled
    waiting: deque[tuple[int, Request, int]]


class Schedule:
    """Runs requests to their ends on a decoder of a number of slots.

    Requests are taken in the order of their length, longest first, so that rows of like age and length run together.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: SamplingParams,
        stops: frozenset[int],
        *,
        slots: int,
        seed: int,
        finish: Callable[[Finished], None],
        on_token: Callable[[int, int, int], None] | None,
        is_over: Callable[[int, Sequence[int]], bool] | None = None,
    ) -> None:
        self._decoder = decoder
        self._params = params
        self._stops = stops
        self._slots = slots
        self._seed = seed
        self._finish = finish
        self._on_token = on_token
        self._is_over = is_over
        self._rows: list[_Row] = []  # as the decoder numbers them
        self._ready: _Ready | None = None
        self._penalised = _Seen(slots) if params.repetition_penalty != 1 else None

    def run(self, requests: Sequence[Request]) -> None:
        """Returns when each sample has been given to `finish`."""
        for request in requests:
            if request.budget == 0:
                for sample in request.samples:
                    self._end(_Row(request, sample, []), stopped=False)
        wanted = [request for request in requests if request.samples and request.budget]
        waiting = deque(sorted(wanted, key=lambda request: (-len(request.tokens), request.prompt)))
        while waiting or self._ready or self._rows:
            if self._ready is not None and self._may_append():
                self._append(self._ready)
            elif waiting and self._may_prefill(waiting):
                self._prefill(waiting)
            else:
                self._step()

    def _may_append(self) -> bool:
        return not self._rows or (self._decoder.grows and len(self._rows) < self._slots)

    def _may_prefill(self, waiting: deque[Request]) -> bool:
        """Whether enough places are free, or as many as are still wanted."""
        if self._ready is not None or not self._may_append():
            return False
        wanted = 0
        for request in waiting:
            wanted += len(request.samples)
            if wanted * _REFILL_SHARE >= self._slots:
                break
        return not self._rows or self._slots - len(self._rows) >= min(wanted, max(1, self._slots // _REFILL_SHARE))

    def _prefill(self, waiting: deque[Request]) -> None:
        """Reads as many prompts as free places need, within the bound on tokens; at least one."""
        free = self._slots - len(self._rows)
        taken: list[Request] = []
        width = self._decoder.width(len(waiting[0].tokens))
        most = max(1, _PREFILL_TOKENS // len(waiting[0].tokens))  # the first is the longest: they are sorted
        while waiting and free > 0 and len(taken) < most and self._decoder.width(len(waiting[0].tokens)) == width:
            taken.append(waiting.popleft())
            free -= len(taken[-1].samples)
        prefilled = self._decoder.prefill([request.tokens for request in taken])
        queue = deque((place, request, n) for place, request in enumerate(taken) for n in request.samples)
        self._ready = _Ready(prefilled, queue)

    def _append(self, ready: _Ready) -> None:
        """Begins as many rows as there are places, and draws their first tokens."""
        first = len(self._rows)
        count = min(self._slots - first, len(ready.waiting))
        begun = [ready.waiting.popleft() for _ in range(count)]
        places = [place for place, _, _ in begun]
        for _, request, sample in begun:
            numbers = []
            if self._params.temperature > 0:
                numbers = uniforms(self._seed, request.key, sample, request.budget).tolist()
            self._rows.append(_Row(request, sample, numbers))
        self._decoder.append(ready.prefilled, places)
        if not ready.waiting:
            self._ready = None
        logits = ready.prefilled.logits
        if self._penalised is not None:
            self._penalised.begin(first, [request.tokens for _, request, _ in begun], logits)
        self._accept(logits[torch.tensor(places, device=logits.device)], first)

    def _step(self) -> None:
        self._accept(self._decoder.step([row.tokens[-1] for row in self._rows]), 0)

    def _accept(self, logits: Tensor, first: int) -> None:
        """Draws a token for each row from `first` on; those that it ends leave."""
        rows = self._rows[first:]
        positions = torch.tensor(
            [row.positions[len(row.tokens)] if row.positions else 0.0 for row in rows], dtype=torch.float64
        ).to(logits.device)
        seen = self._penalised.rows(first, len(self._rows)) if self._penalised is not None else None
        tokens, logprobs = draw(logits, self._params, positions, seen)
        if self._penalised is not None:
            self._penalised.add(first, tokens)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            row.tokens.append(token)
            if self._on_token is not None:
                self._on_token(row.request.prompt, row.sample, token)
        if logprobs is not None:
            for row, logprob in zip(rows, logprobs.tolist(), strict=True):
                row.logprobs.append(logprob)
        self._release(first)

    def _release(self, first: int) -> None:
        ended = []
        for place, row in enumerate(self._rows[first:], first):
            stopped = row.tokens[-1] in self._stops
            if stopped or len(row.tokens) == row.request.budget or self._ends(row):
                ended.append(place)
                self._end(row, stopped=stopped)
        if not ended:
            return
        self._decoder.release(ended)
        for source, target in compaction(len(self._rows), ended):
            self._rows[target] = self._rows[source]
            if self._penalised is not None:
                self._penalised.move(source, target)
        del self._rows[len(self._rows) - len(ended) :]

    def _ends(self, row: _Row) -> bool:
        return self._is_over is not None and self._is_over(row.request.prompt, row.tokens)

    def _end(self, row: _Row, *, stopped: bool) -> None:
        logprobs = row.logprobs if self._params.logprobs else None
        self._finish(Finished(row.request, row.sample, row.tokens, logprobs, stopped))


class _Seen:
    """(slots, vocabulary) which tokens each row's prompt and answer hold."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._table = torch.empty(0, dtype=torch.bool)

    def begin(self, first: int, prompts: list[list[int]], logits: Tensor) -> None:
        """Starts rows with what their prompts hold; logits tell the vocabulary and the device."""
        if not len(self._table):
            self._table = torch.zeros(self._slots, logits.shape[-1], dtype=torch.bool, device=logits.device)
        for row, prompt in enumerate(prompts, first):
            self._table[row] = False
            self._table[row, torch.tensor(prompt, device=logits.device)] = True

    def rows(self, first: int, end: int) -> Tensor:
        """(rows, vocabulary) of some rows."""
        return self._table[first:end]

    def add(self, first: int, tokens: Tensor) -> None:
        """Notes the tokens drawn by the rows from `first` on."""
        self._table[torch.arange(first, first + len(tokens), device=tokens.device), tokens] = True

    def move(self, source: int, target: int) -> None:
        """Puts one row in the place of another."""
        self._table[target] = self._table[source]
