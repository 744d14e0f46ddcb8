"""One model and the requests to it: admission, generation, measuring, and whether all of it is alive."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

from alidade_serving.admission import Admission
from alidade_serving.front.refusals import Refusal, incomplete, unavailable
from alidade_serving.generation import Answer, Ending, Generation, Piece
from alidade_serving.llama_cpp import LlamaCpp
from alidade_serving.metrics import Metrics
from alidade_serving.models import Model, prepare_adapters, prepare_draft, prepare_model
from alidade_serving.settings import Settings

_log = logging.getLogger("alidade_serving")


class Service:
    """Refuses until `start` is done and after `drain` has begun."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics(settings.name)
        self._admission = Admission(settings.slots, settings.max_concurrent_requests)
        self._model: Model | None = None
        self._engine: LlamaCpp | None = None
        self._last_progress = monotonic()
        self._draining = False
        self._refusing = False

    async def start(self) -> None:
        """Converts, loads and warms the model. Raises JobFailure or RuntimeError when it cannot be served."""
        model = await asyncio.to_thread(prepare_model, self.settings)
        self.settings = self.settings.within(model.context_length)
        draft = await asyncio.to_thread(prepare_draft, self.settings)
        adapters = await asyncio.to_thread(prepare_adapters, self.settings)
        try:
            loaded = await asyncio.to_thread(LlamaCpp.load, model.path, draft, list(adapters.values()), self.settings)
            self._engine = LlamaCpp(*loaded, list(adapters))
        except RuntimeError as error:
            raise RuntimeError(
                f"The engine cannot load {model.path} with {self.settings.slots} slots of "
                f"{self.settings.max_total_tokens} tokens ({error}); check the file and the memory there is."
            ) from error
        # The first pass touches every weight: whoever came first would wait for that.
        warm = Generation(prompt_ids=model.tokenizer("a")["input_ids"], max_new_tokens=2, seed=0)
        async with aclosing(self._engine.generate(warm)) as events:
            async for _ in events:
                pass
        self._model = model
        self._show()

    @property
    def model(self) -> Model:
        """The model that is served. Raises Refusal(503) while it is being loaded."""
        if self._model is None:
            raise unavailable("The model is being loaded; try again.")
        return self._model

    @property
    def ready(self) -> bool:
        """Warm, alive, and not about to end."""
        return self._model is not None and not self._draining and self.alive

    @property
    def alive(self) -> bool:
        """Whether tokens come while requests generate. Loading a model, however long, is no sign of death."""
        stalled = monotonic() - self._last_progress > self.settings.stall_timeout_s
        return not (self._admission.running and stalled)

    async def idle(self) -> None:
        """Returns when no request is being served and none waits."""
        await self._admission.empty.wait()

    def unready(self) -> None:
        """Asks load balancers to go elsewhere, while requests are still taken."""
        self._draining = True
        self._show()

    def refuse(self) -> None:
        """Takes no more requests; those that were taken go on."""
        self._refusing = True

    async def close(self) -> None:
        """Ends the engine."""
        if self._engine is not None:
            await self._engine.close()

    async def run(self, generation: Generation, arrived: float) -> AsyncGenerator[Piece | Ending, None]:
        """Pieces as they are generated, then the ending; leaving early frees the slot.

        The engine is read on its own task, so that a client who reads slowly holds no slot: what it has not read yet is
        kept here, at most an answer's worth. arrived: when the request came, on the monotonic clock.
        Raises Refusal: 429, 503, or what the engine says.
        """
        events: asyncio.Queue[Piece | Ending | Refusal] = asyncio.Queue()
        task = asyncio.create_task(self._generate(generation, arrived, events))
        try:
            while True:
                event = await events.get()
                if isinstance(event, Refusal):
                    raise event
                yield event
                if isinstance(event, Ending):
                    return
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def answer(self, generation: Generation, arrived: float) -> Answer:
        """`run`, collected."""
        pieces: list[Piece] = []
        async with aclosing(self.run(generation, arrived)) as events:
            async for event in events:
                if isinstance(event, Ending):
                    return Answer(tuple(pieces), event)
                pieces.append(event)
        raise incomplete("The engine ended before the answer did.")

    async def _generate(
        self, generation: Generation, arrived: float, events: "asyncio.Queue[Piece | Ending | Refusal]"
    ) -> None:
        """Fills the queue, and counts how it went."""
        outcome = "cancelled"
        self.metrics.count.inc()
        try:
            self._refuse_at_the_end()
            slot = self._admission.slot()
            self._show_soon()
            async with slot:
                self._show()
                await self._measured(generation, arrived, events)
            outcome = "ok"
        except Refusal as refusal:
            outcome = refusal.kind
            events.put_nowait(refusal)
        except Exception:
            outcome = "incomplete_generation"
            _log.exception("a generation failed")
            events.put_nowait(incomplete("The server failed while it generated; its log says why."))
        finally:
            self.metrics.outcome(outcome)
            self._show()

    def _refuse_at_the_end(self) -> None:
        if self._refusing:
            raise unavailable("The server is about to end; another replica will answer.")

    async def _measured(
        self, generation: Generation, arrived: float, events: "asyncio.Queue[Piece | Ending | Refusal]"
    ) -> None:
        assert self._engine is not None
        begun = self._last_progress = monotonic()
        self.metrics.queue_duration.observe(begun - arrived)
        first = 0.0
        generated = 0
        async with aclosing(self._engine.generate(generation)) as pieces:
            async for event in pieces:
                now = self._last_progress = monotonic()
                if isinstance(event, Piece):
                    self.metrics.generated.inc(event.generated - generated)
                    generated = event.generated
                if not first:
                    first = now
                    self.metrics.first_token.observe(first - arrived)
                if isinstance(event, Ending):
                    self.metrics.generated.inc(event.generated_tokens - generated)
                    self._observe(event, arrived, begun, first, now)
                events.put_nowait(event)

    def _observe(self, ending: Ending, arrived: float, begun: float, first: float, now: float) -> None:
        metrics = self.metrics
        metrics.duration.observe(now - arrived)
        metrics.inference_duration.observe(now - begun)
        metrics.generated_tokens.observe(ending.generated_tokens)
        if ending.generated_tokens:
            metrics.mean_time_per_token.observe((now - begun) / ending.generated_tokens)
        if ending.generated_tokens > 1:
            metrics.per_token.observe((now - first) / (ending.generated_tokens - 1))
        metrics.prompt.inc(ending.prompt_tokens)
        metrics.reused.inc(ending.reused_tokens)
        metrics.drafted.inc(ending.drafted_tokens)
        metrics.accepted.inc(ending.accepted_tokens)

    def _show_soon(self) -> None:
        """Shows the queue once the request that is about to wait stands in it."""
        asyncio.get_running_loop().call_soon(self._show)

    def _show(self) -> None:
        """Gauges from the one place that knows."""
        metrics, admission = self.metrics, self._admission
        for gauge in (metrics.running, metrics.batch_size):
            gauge.set(admission.running)
        for gauge in (metrics.waiting, metrics.queue_size):
            gauge.set(admission.waiting)
        metrics.ready.set(self.ready)
