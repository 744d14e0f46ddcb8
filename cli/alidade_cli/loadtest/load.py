"""The load: open loop (requests arrive whatever becomes of the others) or closed loop (so many streams).

In the open loop every latency counts from the arrival that was planned, also when the request had to wait for a
place among --max-in-flight: a server that stalls is not spared the requests that would have come meanwhile, the
mistake known as coordinated omission.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from alidade_cli.doors import Door
from alidade_cli.loadtest.apis import Api
from alidade_cli.loadtest.prompts import Question
from alidade_cli.loadtest.records import Record
from alidade_cli.loadtest.sending import ask

if TYPE_CHECKING:
    import aiohttp

# Lines of a stream: a chunk with many log-probabilities is longer than the usual 64 KiB.
_READ_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Bounds:
    """Where a load ends. timeout_s: of a request, from its arrival on."""

    duration_s: float
    timeout_s: float
    max_in_flight: int


@dataclass
class Outcome:
    """What a load has come to so far."""

    records: list[Record]
    elapsed_s: float = 0.0
    stopped: bool = False


Tick = Callable[[float, Mapping[str, int]], None]
"""Is told a few times a second: seconds since the start, and how many requests have ended in each way."""
_TICK_S = 0.25


@asynccontextmanager
async def session_for(door: Door) -> AsyncIterator["aiohttp.ClientSession"]:
    """Connections without a limit of their own; a new one for each request, so that a Service balances them."""
    import aiohttp

    connector = aiohttp.TCPConnector(limit=0, force_close=not door.balances, ssl=door.tls or True)
    async with aiohttp.ClientSession(
        connector=connector,
        headers=door.headers,
        timeout=aiohttp.ClientTimeout(total=None),
        read_bufsize=_READ_BUFFER_BYTES,
    ) as session:
        yield session


class Load:
    """One load on one server. `stop` ends it early: what has not ended is forgotten."""

    def __init__(self, session: "aiohttp.ClientSession", door: Door, api: Api, bounds: Bounds, tick: Tick) -> None:
        self._session, self._door, self._api, self._bounds, self._tick = session, door, api, bounds, tick
        self._places = asyncio.Semaphore(bounds.max_in_flight)
        self._ended: list[Record] = []
        self._counts = Counter[str]()
        self._stopping = asyncio.Event()
        self._began = 0.0

    def stop(self) -> None:
        """Ends the load now."""
        self._stopping.set()

    async def run_open(self, arrivals: Sequence[float], questions: Iterator[Question]) -> Outcome:
        """Sends a request at each arrival (seconds from the start, ascending)."""
        # Drawn before the clock starts: writing a long prompt takes time.
        planned = [(Record(number, at), next(questions)) for number, at in enumerate(arrivals)]
        return await self._run(self._dispatch(planned))

    async def run_closed(self, streams: int, questions: Iterator[Question]) -> Outcome:
        """Keeps so many requests going: each answer is followed by the next question, till the duration is over."""
        return await self._run(self._keep_streams(streams, questions))

    async def _run(self, sending: Coroutine[None, None, None]) -> Outcome:
        self._began = monotonic()
        work = asyncio.create_task(sending)
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            while not work.done() and not stopping.done():
                await asyncio.wait((work, stopping), timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
                self._tick(self._now(), self._counts)
        finally:
            stopped = not work.done()
            for task in (work, stopping):
                task.cancel()
            await asyncio.gather(work, stopping, return_exceptions=True)
        if not stopped:
            work.result()
        records = sorted(self._ended, key=lambda record: record.number)
        last = max((record.ended_s for record in records), default=0.0)
        elapsed = self._now() if stopped else max(last, self._bounds.duration_s)
        return Outcome(records, elapsed, stopped)

    async def _dispatch(self, planned: Sequence[tuple[Record, Question]]) -> None:
        async with asyncio.TaskGroup() as group:
            for record, question in planned:
                await asyncio.sleep(max(0.0, record.arrived_s - self._now()))
                group.create_task(self._one(record, question))
            await asyncio.sleep(max(0.0, self._bounds.duration_s - self._now()))

    async def _keep_streams(self, streams: int, questions: Iterator[Question]) -> None:
        numbers = iter(range(1 << 62))

        async def stream() -> None:
            while (now := self._now()) < self._bounds.duration_s:
                record = Record(next(numbers), now)
                await self._one(record, next(questions))
                if record.outcome != "answered":
                    # A server that refuses at once would be asked thousands of times a second.
                    await asyncio.sleep(_PAUSE_AFTER_REFUSAL_S)

        async with asyncio.TaskGroup() as group:
            for _ in range(streams):
                group.create_task(stream())

    async def _one(self, record: Record, question: Question) -> None:
        until = asyncio.get_running_loop().time() + record.arrived_s + self._bounds.timeout_s - self._now()
        try:
            async with asyncio.timeout_at(until), self._places:
                await ask(self._session, self._door.url, self._api, question, record, self._now)
        except TimeoutError:
            record.end("failed", self._now(), "timeout", f"no whole answer {self._bounds.timeout_s:g} s after arrival")
        self._ended.append(record)
        self._counts[record.outcome] += 1

    def _now(self) -> float:
        return monotonic() - self._began


_PAUSE_AFTER_REFUSAL_S = 0.1
