"""One container: started, probed, stopped, and what is said of its end."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alidade_local.backoff import CrashBackoff
from alidade_local.events import Event
from alidade_local.kubelet.container import ContainerContext, ContainerRunner, Launch
from alidade_local.kubelet.memory import MemoryWatch
from alidade_local.kubelet.paths import PathMap
from alidade_local.kubelet.probes import ProbeTarget
from alidade_local.kubelet.records import ContainerRecord, Running, Terminated, Waiting

READY = "open('ready', 'w').close();"
SLEEP = "import time; time.sleep(600)"
LAST_80_LINES = "\n".join(map(str, range(20, 100)))
SAYS_BYE = (
    "import signal, sys, time;"
    "signal.signal(signal.SIGTERM, lambda *_: (open('order', 'a').write('signal '), sys.exit(5)));"
)


@dataclass
class Container:
    """A container that runs `code` in `folder`, and what is told of it."""

    folder: Path
    code: str
    spec: dict[str, Any]
    events: list[Event] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        context = ContainerContext(
            logs=self.folder / "logs",
            pod_name="p_n(u)",
            grace_period_s=30.0,
            prepare=self._prepare,
            wait_for_change=self._wait,
            memory=MemoryWatch(),
            emit=self.events.append,
            changed=self._changed.set,
        )
        record = ContainerRecord("c", "none", Waiting("ContainerCreating"))
        self.runner = ContainerRunner({"name": "c", **self.spec}, record, context, CrashBackoff(0.05, 0.05, 600))

    async def _wait(self) -> None:
        await self._changed.wait()

    async def _prepare(self, _: Any, run: int) -> Launch:
        environment = {"PATH": os.environ["PATH"]}
        paths = PathMap(self.folder, [])
        return Launch(
            argv=[sys.executable, "-c", self.code],
            environment=environment,
            folder=self.folder,
            marker=f"{self.folder}:/{run}/",
            termination_file=self.folder / "message",
            probes=ProbeTarget("127.0.0.1", {}, environment, self.folder, paths),
        )

    def touch(self, name: str) -> None:
        (self.folder / name).touch()

    def words(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(60):
            while not condition():  # noqa: ASYNC110  # files tell of no changes
                await asyncio.sleep(0.01)

    async def ended(self) -> Terminated:
        """How it ended, started if need be."""
        async with asyncio.timeout(60):
            await self.runner.start("Never")
        assert isinstance(self.runner.record.state, Terminated)
        return self.runner.record.state


def probe(file: str, **settings: Any) -> dict[str, Any]:
    return {"exec": {"command": ["test", "-e", file]}, "periodSeconds": 0.05, "timeoutSeconds": 30} | settings


async def test_a_container_is_ready_when_it_has_started_and_then_as_long_as_its_probe_says(tmp_path: Path) -> None:
    spec = {
        "startupProbe": probe("started", failureThreshold=1000),
        "readinessProbe": probe("serves", failureThreshold=1),
        "livenessProbe": probe("started", failureThreshold=1),
    }
    one = Container(tmp_path, SLEEP, spec)
    record = one.runner.record
    task = one.runner.start("Never")
    one.touch("serves")
    await one.until(lambda: "Unhealthy" in [event.reason for event in one.events])
    assert (record.state.__class__, record.started, record.ready) == (Running, False, False)
    one.touch("started")
    await one.until(lambda: (record.started, record.ready) == (True, True))
    (tmp_path / "serves").unlink()
    await one.until(lambda: not record.ready)
    assert not task.done()
    (tmp_path / "started").unlink()
    async with asyncio.timeout(60):
        await task
    assert isinstance(record.state, Terminated)
    assert record.state.exit_code == 143
    assert "Container c failed liveness probe, will be restarted" in [event.message for event in one.events]


async def test_a_container_that_never_starts_is_ended_with_the_grace_of_its_probe(tmp_path: Path) -> None:
    ignores = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY} {SLEEP}"
    settings = {"failureThreshold": 2, "terminationGracePeriodSeconds": 1, "initialDelaySeconds": 0.5}
    one = Container(tmp_path, ignores, {"startupProbe": probe("never", **settings)})
    begun = time.monotonic()
    assert (await one.ended()).exit_code in (137, 143)  # 143: the delay was over before Python was up
    assert time.monotonic() - begun < 25
    assert [event.reason for event in one.events].count("Unhealthy") == 2


async def test_a_hook_that_fails_after_the_start_ends_the_container(tmp_path: Path) -> None:
    hook = {"postStart": {"exec": {"command": ["sh", "-c", "echo no licence; exit 1"]}}}
    one = Container(tmp_path, SLEEP, {"lifecycle": hook})
    assert (await one.ended()).exit_code == 143
    assert "PostStartHook failed: no licence\n" in [event.message for event in one.events]


async def test_a_stopped_container_has_its_hook_then_the_signal_then_its_grace(tmp_path: Path) -> None:
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "printf 'hook ' >> order"]}}}
    one = Container(tmp_path, f"{SAYS_BYE} {READY} time.sleep(600)", {"lifecycle": hook})
    one.runner.start("Always")
    await one.until(lambda: (tmp_path / "ready").exists())
    await one.runner.stop(30.0)
    assert one.words("order") == "hook signal "
    state = one.runner.record.state
    assert isinstance(state, Terminated), "it is not started again"
    assert (state.exit_code, state.reason) == (5, "Error")


async def test_a_container_that_does_not_end_is_killed_when_its_grace_is_over(tmp_path: Path) -> None:
    one = Container(tmp_path, f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY} {SLEEP}", {})
    one.runner.start("Always")
    await one.until(lambda: (tmp_path / "ready").exists())
    begun = time.monotonic()
    await one.runner.stop(0.3)
    assert time.monotonic() - begun >= 0.3
    state = one.runner.record.state
    assert isinstance(state, Terminated)
    assert state.exit_code == 137


@pytest.mark.parametrize(
    ("policy", "code", "message"),
    [
        ("File", "open('message', 'w').write('said'); print('log'); raise SystemExit(1)", "said"),
        ("File", "print('log'); raise SystemExit(1)", ""),
        ("FallbackToLogsOnError", "print('a'); print('b'); raise SystemExit(1)", "a\nb"),
        ("FallbackToLogsOnError", "print('log')", ""),
        ("FallbackToLogsOnError", "open('message', 'w').write('said'); raise SystemExit(1)", "said"),
        (
            "FallbackToLogsOnError",
            "[print(n) for n in range(100)]; raise SystemExit(1)",
            "\n".join(map(str, range(20, 100))),
        ),
        ("FallbackToLogsOnError", "print('x' * 5000); raise SystemExit(1)", "x" * 2047),
    ],
)
async def test_the_message_of_an_end_is_the_file_or_the_end_of_the_log(
    tmp_path: Path, policy: str, code: str, message: str
) -> None:
    assert (await Container(tmp_path, code, {"terminationMessagePolicy": policy}).ended()).message == message


async def test_a_message_of_an_earlier_run_is_not_that_of_the_next(tmp_path: Path) -> None:
    writes_once = "os.path.exists('again') or open('message', 'w').write('first'); open('again', 'w')"
    code = f"import os; {writes_once}; raise SystemExit(1)"
    one = Container(tmp_path, code, {})
    one.runner.start("Always")
    await one.until(lambda: one.runner.record.restart_count >= 2)
    await one.runner.stop(0)
    assert one.runner.record.last is not None
    assert one.runner.record.last.message == ""
