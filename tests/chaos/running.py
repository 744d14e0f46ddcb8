"""One disturbed run after the other on one rig, each compared with an undisturbed one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import invariants
from tests.chaos.faults import Fault, mounted
from tests.chaos.rig import Need, Rig
from tests.chaos.trial import RECORDED, Body, Trial, Workload, until

QUIET_S = 1.0
GONE_S = 40.0
UNDISTURBED_S = 25.0
"""How long the first run may take, before it is known: twelve times this."""


@dataclass(frozen=True)
class Outcome:
    """What came of a run. struck: how many times something was done to it; broken: what must not be."""

    fault: Fault
    seed: int
    struck: int
    seconds: float
    broken: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As a line of JSON."""
        told = {"fault": self.fault.name, "seed": self.seed, "struck": self.struck, "seconds": round(self.seconds, 1)}
        return told | {"broken": list(self.broken)}


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run of a workload comes to, what it makes, and how long it takes."""

    status: Body
    counts: Counter[tuple[str, str]]
    lasts_s: float


class Bench:
    """The rig, and the undisturbed run of each workload."""

    def __init__(self, rig: Rig) -> None:
        """rig: is up."""
        self.rig = rig
        self._references: dict[str, Reference] = {}
        self._numbers = 0

    async def run(self, fault: Fault, seed: int) -> Outcome:
        """One run with a fault, and all that is wrong with what came of it."""
        reference = await self._reference(fault.workload)
        chance = random.Random(f"{fault.name} {seed}")
        trial = self._trial(fault, chance, reference.lasts_s)
        begun, logged = time.monotonic(), len(self.rig.operator.text())
        if fault.needs is Need.ROOT:
            async with mounted(trial, "-t", "tmpfs", "-o", "size=8m"):
                broken = await self._disturbed(trial, fault, reference, logged)
        else:
            broken = await self._disturbed(trial, fault, reference, logged)
        return Outcome(fault, seed, trial.struck, time.monotonic() - begun, tuple(broken))

    async def _disturbed(self, trial: Trial, fault: Fault, reference: Reference, logged: int) -> list[str]:
        try:
            return [one async for one in self._broken(trial, fault, reference)] + self._of_the_operator(fault, logged)
        except (Exception, pytest.fail.Exception) as error:  # whatever went wrong is the result
            broken = [f"{type(error).__name__}: {error}", *self._of_the_operator(fault, logged)]
            await self._clear(trial)
            return broken

    def keep(self, folder: Path, outcome: Outcome) -> Path:
        """Copies the logs as they are now."""
        kept = folder / f"{outcome.fault.name}-{outcome.seed}"
        kept.mkdir(parents=True, exist_ok=True)
        for log in self.rig.folder.glob("*.log"):
            shutil.copy(log, kept)
        return kept

    def _trial(self, fault: Fault, chance: random.Random, lasts_s: float) -> Trial:
        self._numbers += 1
        namespace = self.rig.namespace(f"{fault.name}-{self._numbers}")
        return Trial(self.rig, fault.workload, namespace, chance, lasts_s)

    async def _reference(self, workload: Workload) -> Reference:
        if workload.name not in self._references:
            fault = Fault("undisturbed", "nothing", workload=workload)
            trial = self._trial(fault, random.Random(0), UNDISTURBED_S)
            begun = time.monotonic()
            async with self._running(trial, fault):
                status = await trial.phase("Succeeded")
                lasts_s = time.monotonic() - begun
            await self._quiet()
            self._references[workload.name] = Reference(status, trial.record.counts(*RECORDED), lasts_s)
            await self._clear(trial)
        return self._references[workload.name]

    async def _broken(self, trial: Trial, fault: Fault, reference: Reference) -> AsyncIterator[str]:
        async with self._running(trial, fault) as striking:
            if fault.survives:
                status = await trial.phase("Succeeded", "Failed")
            await asyncio.wait_for(striking, trial.limit_s)
            if fault.survives:
                status = await trial.phase("Succeeded", "Failed")
        if not await self._quiet():
            yield f"the operator goes on writing: {self.rig.proxy.writes[-5:]}"
        if fault.survives:
            for sentence in await self._of_the_end(trial, fault, reference, status):
                yield sentence
        for sentence in await self._clear(trial):
            yield sentence

    async def _of_the_end(self, trial: Trial, fault: Fault, reference: Reference, status: Body) -> list[str]:
        status = await trial.status() or status
        found = await trial.at_volume("read", list(invariants.models(status)))
        return [
            *invariants.ends_as_undisturbed(trial, status, reference.status),
            *invariants.nothing_twice(trial, found["ledger"], restarts=fault.restarts, counts=reference.counts),
            *invariants.models_are_there(status, found["digests"]),
            *invariants.statuses_were_true(trial),
            *await invariants.nothing_orphaned(trial),
        ]

    def _of_the_operator(self, fault: Fault, logged: int) -> list[str]:
        """What it says of itself since then: mistakes are logged with where they happened."""
        lines = self.rig.operator.text()[logged:].splitlines()
        wrong = [line[:600] for line in lines if '"alidade_operator' in line and '"exception"' in line]
        if self.rig.operator_ended and not fault.ends_operator:
            wrong.append(f"the operator ended by itself {self.rig.operator_ended} times")
        self.rig.operator_ended = 0
        return wrong

    @asynccontextmanager
    async def _running(self, trial: Trial, fault: Fault) -> AsyncIterator[asyncio.Task[None]]:
        """A run that goes on, with its fault."""
        async with AsyncExitStack() as stack:
            await trial.prepare()
            await stack.enter_async_context(trial.recording())
            calls = fault.calls(trial.chance) if fault.calls is not None else None
            if calls is not None:
                await stack.enter_async_context(self.rig.disturbed(calls))
            await trial.apply()
            striking = asyncio.create_task(fault.strike(trial))
            try:
                yield striking
            finally:
                striking.cancel()
                await asyncio.gather(striking, return_exceptions=True)
                trial.struck += calls.count() if calls is not None else 0

    async def _quiet(self) -> bool:
        """Whether the operator comes to rest: it writes nothing for a while."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            before = len(self.rig.proxy.writes)
            await asyncio.sleep(QUIET_S)
            if len(self.rig.proxy.writes) == before:
                return True
        return False

    async def _clear(self, trial: Trial) -> list[str]:
        """The user deletes what he has applied; what is then still there. The namespace goes in any case."""
        self.rig.set_clock(0)
        for kind, name, _ in reversed(trial.workload.resources):
            await trial.played.delete(kind, name)
        left: list[str] = []

        async def gone() -> bool:
            left[:] = [f"{kind.kind} {body['metadata']['name']}" for kind, body in await trial.owned()]
            left.extend(self.rig.left())
            return not left

        with contextlib.suppress(TimeoutError):
            await until(gone, "all to be gone", limit_s=GONE_S)
        await trial.delete_namespace()
        return [f"{one} outlived its run" for one in left]
