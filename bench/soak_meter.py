"""What is read of an operator and its API server while a soak goes on, minute by minute."""

from __future__ import annotations

import asyncio
import json
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import psutil
from prometheus_client.parser import text_string_to_metric_families

from alidade_crds.metric_names import OperatorMetric
from bench.operator_load import Subject, quantile
from bench.resource_lives import Lives

WARM_UP = 0.25
"""Of the minutes: the first do not count for slopes, since allocators and caches fill up in them."""
QUIET_S = 10.0
_PROBE_S, _READ_S, _TICK_S = 0.5, 2.0, 0.05


@dataclass(frozen=True)
class Counts:
    """What only grows, at an instant."""

    at: float
    cpu_s: float
    server_cpu_s: float
    own_cpu_s: float
    calls: Counter[str]
    """Of the operator to the API server, by verb."""
    refused: Counter[str]
    """Those that were answered otherwise than 2xx, by verb, resource and code."""
    reconciles: Counter[str]
    changes: Counter[str]
    ended: int


class Meter:
    """Reads the operator and the API server, from outside and from what the operator tells."""

    def __init__(self, operator: Subject, server: Subject, lives: Lives) -> None:
        self.minutes: list[dict[str, Any]] = []
        self.reactions_s: list[dict[str, list[float]]] = []
        """Of each minute."""
        self._operator, self._server, self._lives = operator, server, lives
        self._answered_s: list[float] = []
        self._late_s: list[float] = []
        self._resident: list[tuple[float, float]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Meter:
        """Reads from now on."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))
        self._url = f"http://127.0.0.1:{_listening_port(self._operator.log())}"
        self._before = await self._counts()
        self._tasks = [asyncio.create_task(work) for work in (self._probe(), self._watch_itself())]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Reads no more."""
        for task in self._tasks:
            task.cancel()
        ends = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def rest(self) -> dict[str, float]:
        """What the operator does while nothing happens; the API server itself removes Events that are an hour old."""
        begun = await self._counts()
        await asyncio.sleep(QUIET_S)
        self._before = now = await self._counts()
        return {
            "cpu_percent": round(100 * (now.cpu_s - begun.cpu_s) / (now.at - begun.at), 2),
            "writes": _writes(now.calls - begun.calls),
            "resident_mb": round(self._operator.resident_mb(), 1),
            "server_mb": round(self._server.resident_mb(), 1),
        }

    async def take_minute(self) -> None:
        """Adds what has been since the last one."""
        before, now = self._before, await self._counts()
        self._before, seconds = now, now.at - before.at
        changes, calls = now.changes - before.changes, now.calls - before.calls
        count = max(1, changes.total())
        self._read_memory()
        resident, server = (statistics.median(values) for values in zip(*self._resident, strict=True))
        assert self._operator.process is not None, "it runs"
        self.minutes.append(
            {
                "seconds": round(seconds, 1),
                "load": round(os.getloadavg()[0], 1),
                "lives": now.ended - before.ended,
                "changes": dict(changes),
                "changes_per_s": round(changes.total() / seconds, 1),
                "calls_per_change": round(calls.total() / count, 2),
                "writes_per_change": round(_writes(calls) / count, 2),
                "cpu_ms_per_change": round(1000 * (now.cpu_s - before.cpu_s) / count, 2),
                "cpu_percent": round(100 * (now.cpu_s - before.cpu_s) / seconds, 1),
                "server_cpu_percent": round(100 * (now.server_cpu_s - before.server_cpu_s) / seconds, 1),
                "own_cpu_percent": round(100 * (now.own_cpu_s - before.own_cpu_s) / seconds, 1),
                "refused": dict(now.refused - before.refused),
                "reconciles": dict(now.reconciles - before.reconciles),
                "resident_mb": round(resident, 1),
                "server_mb": round(server, 1),
                "descriptors": psutil.Process(self._operator.process.pid).num_fds(),
                "connections": self._connections(),
                "healthz_ms": in_ms(self._answered_s),
                "own_delay_ms": in_ms(self._late_s),
                "reaction_ms": {sort: in_ms(values) for sort, values in self._lives.reactions_s.items()},
            }
        )
        self.reactions_s.append(dict(self._lives.reactions_s))
        self._lives.reactions_s.clear()
        for values in (self._answered_s, self._late_s, self._resident):
            values.clear()

    async def _counts(self) -> Counts:
        async with self._session.get(f"{self._url}/metrics") as response:
            told = await response.text()
        calls: Counter[str] = Counter()
        refused: Counter[str] = Counter()
        reconciles: Counter[str] = Counter()
        for family in text_string_to_metric_families(told):
            for sample in family.samples:
                labels, value = sample.labels, round(sample.value) if math.isfinite(sample.value) else 0
                if sample.name == OperatorMetric.API_CALLS:
                    calls[labels["verb"]] += value
                    if not labels["code"].startswith("2"):
                        refused[f"{labels['verb']} {labels['resource']} {labels['code']}"] += value
                elif sample.name == OperatorMetric.RECONCILES:
                    reconciles[labels["outcome"]] += value
        used = (self._operator.cpu_s(), self._server.cpu_s(), time.process_time())
        return Counts(
            time.monotonic(), *used, calls, refused, reconciles, self._lives.cluster.changes.copy(), self._lives.ended
        )

    def _connections(self) -> dict[str, int]:
        """The operator's, to the API server and to others."""
        assert self._operator.process is not None, "it runs"
        assert self._server.process is not None, "it runs"
        listening = {
            one.laddr.port
            for one in psutil.Process(self._server.process.pid).net_connections("tcp")
            if one.status == psutil.CONN_LISTEN
        }
        own = [
            one
            for one in psutil.Process(self._operator.process.pid).net_connections("tcp")
            if one.status == psutil.CONN_ESTABLISHED
        ]
        to_server = sum(one.raddr.port in listening for one in own)
        return {"api": to_server, "others": len(own) - to_server}

    async def _probe(self) -> None:
        """Asks /healthz as often as a kubelet would at its most eager; reads memory now and then."""
        read_at = 0.0
        while True:
            begun = time.monotonic()
            if begun >= read_at:
                self._read_memory()
                read_at = begun + _READ_S
            async with self._session.get(f"{self._url}/healthz") as response:
                await response.read()
            self._answered_s.append(time.monotonic() - begun)
            await asyncio.sleep(_PROBE_S)

    def _read_memory(self) -> None:
        self._resident.append((self._operator.resident_mb(), self._server.resident_mb()))

    async def _watch_itself(self) -> None:
        """How much later than asked for this process's own loop goes on: every latency that it measures has that."""
        while True:
            due = time.monotonic() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._late_s.append(time.monotonic() - due)


def _writes(calls: Counter[str]) -> int:
    return calls.total() - calls["GET"]


def slope(values: Sequence[float], per: float) -> dict[str, float]:
    """Growth of evenly spaced values by least squares, with its standard error; per: intervals in the unit of time.

    The first quarter is left out. The error is that of independent residuals; those of memory hang together, so it is
    rather too small.
    """
    kept = values[round(WARM_UP * len(values)) :]
    if len(kept) < 3:
        return {"growth": 0.0, "error": 0.0, "mean": statistics.fmean(values)}
    x = range(len(kept))
    fit = statistics.linear_regression(x, kept)
    squares = sum((y - fit.intercept - fit.slope * n) ** 2 for n, y in zip(x, kept, strict=True))
    spread = sum((n - statistics.fmean(x)) ** 2 for n in x)
    error = math.sqrt(squares / (len(kept) - 2) / spread)
    return {
        "growth": round(per * fit.slope, 2),
        "error": round(per * error, 2),
        "mean": round(statistics.fmean(kept), 1),
    }


def in_ms(seconds: Sequence[float]) -> list[float] | None:
    """Median and 99th percentile, in milliseconds; None of nothing."""
    if not seconds:
        return None
    return [round(1000 * value, 1) for value in (statistics.median(seconds), quantile(list(seconds), 0.99))]


def _listening_port(log: str) -> int:
    lines = (json.loads(line) for line in log.splitlines() if line.startswith("{"))
    return int(next(line["port"] for line in lines if line.get("message") == "serving metrics and health"))
