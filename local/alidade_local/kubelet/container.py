"""One container of a pod: started, probed, restarted and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from alidade_local.backoff import CrashBackoff
from alidade_local.events import Event, normal, warning
from alidade_local.kubelet.environment import MissingReferenceError
from alidade_local.kubelet.memory import MemoryWatch, memory_limit
from alidade_local.kubelet.names import NoAddressYetError
from alidade_local.kubelet.probes import ProbeCounter, ProbeSettings, ProbeTarget, run_probe
from alidade_local.kubelet.processes import ContainerProcess, ProcessIdentity
from alidade_local.kubelet.records import ContainerRecord, Running, Terminated, Waiting, should_restart
from alidade_local.objects import Object

MAX_TERMINATION_MESSAGE = 4096
# FallbackToLogsOnError takes this much of the log's end.
MAX_LOG_MESSAGE_BYTES, MAX_LOG_MESSAGE_LINES = 2048, 80
# A container is not killed sooner than this after its preStop hook, even if the hook used the grace period up.
MIN_GRACE_AFTER_HOOK_S = 2.0
# The exit code the kubelet reports for a container whose command could not be executed.
START_ERROR_CODE = 128
RETRY_CONFIGURATION_S = 5.0


@dataclass(frozen=True)
class Launch:
    """A container ready to be executed. termination_file: where its termination message will be."""

    argv: list[str]
    environment: Mapping[str, str]
    folder: Path
    marker: str
    termination_file: Path
    probes: ProbeTarget


@dataclass(frozen=True)
class ContainerContext:
    """What a container needs of its pod.

    prepare: makes the Launch of the given run (its restart count), or raises MissingReferenceError, NoAddressYetError.
    wait_for_change: returns when something prepare depends on may have changed.
    memory: what ends it when it exceeds its limit.
    emit, changed: record an event; have the pod's status written.
    """

    logs: Path
    pod_name: str
    grace_period_s: float
    prepare: Callable[[Object, int], Awaitable[Launch]]
    wait_for_change: Callable[[], Awaitable[None]]
    memory: MemoryWatch
    emit: Callable[[Event], None]
    changed: Callable[[], None]


class ContainerRunner:
    """Runs one container until its restart policy is content, or until it is stopped."""

    def __init__(
        self, container: Object, record: ContainerRecord, context: ContainerContext, backoff: CrashBackoff
    ) -> None:
        self.container = container
        self.record = record
        self.name: str = container["name"]
        self.started = asyncio.Event()
        self._context = context
        self._backoff = backoff
        self._process: ContainerProcess | None = None
        self._launch: Launch | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._out_of_memory = False

    def start(self, restart_policy: str) -> asyncio.Task[None]:
        """Begin; the task ends when the container will not be run again."""
        self._task = asyncio.create_task(self._run(restart_policy), name=f"container {self.name}")
        return self._task

    async def stop(self, grace_s: float) -> None:
        """End the container: preStop hook, SIGTERM, and SIGKILL when the grace period (seconds) is over."""
        if self._task is None or self._task.done():
            return
        self._stopping = True
        if self._process is None:
            self._task.cancel()
        else:
            self._emit(normal("Killing", f"Stopping container {self.name}", field_path=self._field_path))
            await self._end_process(self._process, grace_s)
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def kill(self) -> None:
        """SIGKILL the container, whatever is being done with it."""
        self._stopping = True
        if self._process is not None:
            await asyncio.to_thread(self._process.kill)

    @property
    def _field_path(self) -> str:
        return f"spec.containers{{{self.name}}}"

    def _emit(self, event: Event) -> None:
        self._context.emit(event)

    def _set_state(self, state: Waiting | Running | Terminated) -> None:
        self.record.state = state
        self.record.ready = self.record.started = False
        self._context.changed()

    async def _run(self, restart_policy: str) -> None:
        if isinstance(self.record.state, Terminated):  # ended while the kubelet was away
            if not should_restart(restart_policy, self.record.state.exit_code):
                return
            self._count_restart(self.record.state)
        while True:
            launch = await self._prepare()
            begun = time.monotonic()
            ended = await self._run_once(launch)
            self._set_state(ended)
            if self._stopping or not should_restart(restart_policy, ended.exit_code):
                return
            await self._pause(ended, time.monotonic() - begun)
            self._count_restart(ended)

    def _count_restart(self, ended: Terminated) -> None:
        self.record.last = ended
        self.record.restart_count += 1

    async def _pause(self, ended: Terminated, ran_for_s: float) -> None:
        delay_s = self._backoff.next(ran_for_s)
        if not delay_s:
            return
        self.record.last = ended
        pod = self._context.pod_name
        self._set_state(
            Waiting("CrashLoopBackOff", f"back-off {delay_s:g}s restarting failed container={self.name} pod={pod}")
        )
        message = f"Back-off restarting failed container {self.name} in pod {pod}"
        self._emit(warning("BackOff", message, field_path=self._field_path))
        await asyncio.sleep(delay_s)

    async def _prepare(self) -> Launch:
        """The launch, once everything the container refers to exists."""
        while True:
            try:
                return await self._context.prepare(self.container, self.record.restart_count)
            except MissingReferenceError as error:
                self._wait_for(Waiting("CreateContainerConfigError", str(error)), warning("Failed", f"Error: {error}"))
            except NoAddressYetError as error:
                self._wait_for(Waiting("ContainerCreating", str(error)), normal("WaitingForService", str(error)))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_CONFIGURATION_S):
                    await self._context.wait_for_change()

    def _wait_for(self, state: Waiting, event: Event) -> None:
        if self.record.state != state:
            self._set_state(state)
            self._emit(event)

    async def _run_once(self, launch: Launch) -> Terminated:
        """Run the container once and say how it ended."""
        started_at = datetime.now(UTC)
        launch.termination_file.unlink(missing_ok=True)
        log = self._context.logs / f"{self.record.restart_count}.log"
        oom_kills = _oom_kills()
        try:
            process = _start(self.name, launch, log)
        except OSError as error:
            message = _start_error(self.name, launch, error)
            self._emit(warning("Failed", f"Error: {message}", field_path=self._field_path))
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(message + "\n")
            return Terminated(START_ERROR_CODE, "StartError", started_at, datetime.now(UTC), message)
        self._save_identity(process)
        self._process, self._launch, self._out_of_memory = process, launch, False
        self.record.container_id = f"process://{process.pid}"
        self._set_state(Running(started_at))
        self._emit(normal("Started", f"Started container {self.name}", field_path=self._field_path))
        health = asyncio.create_task(self._watch_health(process, launch))
        try:
            with self._context.memory.watching(launch.marker, memory_limit(self.container), self._end_out_of_memory):
                exit_code = await process.wait()
        finally:
            self._process = None
            health.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await health
        by_kernel = exit_code == 137 and not self._stopping and _oom_kills() > oom_kills
        reason = "OOMKilled" if self._out_of_memory or by_kernel else "Error" if exit_code else "Completed"
        message = self._termination_message(launch.termination_file, log, exit_code)
        return Terminated(exit_code, reason, started_at, datetime.now(UTC), message, self.record.container_id)

    async def _end_out_of_memory(self) -> None:
        """What the kernel does to a control group that may not grow: it kills everything in it."""
        if self._process is not None:
            self._out_of_memory = True
            await asyncio.to_thread(self._process.kill)

    def _save_identity(self, process: ContainerProcess) -> None:
        """Write down which process this is, for a kubelet that finds it after this one was killed."""
        identity = ProcessIdentity.of(process.pid)
        if identity is not None:
            identity.save(self._context.logs / "process.json")

    async def _watch_health(self, process: ContainerProcess, launch: Launch) -> None:
        """Hooks and probes of one run: set started and ready, end the container when it is not alive."""
        post_start = (self.container.get("lifecycle") or {}).get("postStart")
        if post_start:
            result = await run_probe(post_start, launch.probes, self._context.grace_period_s)
            if not result.succeeded:
                message = f"PostStartHook failed: {result.output}"
                self._emit(warning("FailedPostStartHook", message, field_path=self._field_path))
                await self._end_process(process, self._context.grace_period_s)
                return
        if self.container.get("startupProbe") and not await self._watch("startup", process, launch, until=True):
            return
        self.record.started = True
        self.started.set()
        self.record.ready = not self.container.get("readinessProbe")
        self._context.changed()
        async with asyncio.TaskGroup() as group:
            for kind in ("liveness", "readiness"):
                if self.container.get(f"{kind}Probe"):
                    group.create_task(self._watch(kind, process, launch, until=False))

    async def _watch(self, kind: str, process: ContainerProcess, launch: Launch, *, until: bool) -> bool:
        """Run a probe: until it succeeds if `until`, else as long as the container runs.

        A failed startup or liveness probe ends the container and returns False.
        """
        probe = self.container[f"{kind}Probe"]
        settings = ProbeSettings.of(probe)
        counter = ProbeCounter(settings.failure_threshold, settings.success_threshold, verdict=kind == "liveness")
        await asyncio.sleep(settings.initial_delay_s)
        while True:
            result = await run_probe(probe, launch.probes, settings.timeout_s)
            if not result.succeeded:
                message = f"{kind.capitalize()} probe failed: {result.output}"
                self._emit(warning("Unhealthy", message, field_path=self._field_path))
            healthy = counter.count(result.succeeded)
            if kind == "readiness" and healthy != self.record.ready:
                self.record.ready = healthy
                self._context.changed()
            if until and healthy:
                return True
            if kind != "readiness" and counter.has_failed:
                message = f"Container {self.name} failed {kind} probe, will be restarted"
                self._emit(normal("Killing", message, field_path=self._field_path))
                grace_s = probe.get("terminationGracePeriodSeconds") or self._context.grace_period_s
                await self._end_process(process, grace_s)
                return False
            await asyncio.sleep(settings.period_s)

    async def _end_process(self, process: ContainerProcess, grace_s: float) -> None:
        """preStop hook, SIGTERM, and after the grace period SIGKILL to everything of the container."""
        begun = time.monotonic()
        ended = asyncio.ensure_future(process.wait())
        pre_stop = (self.container.get("lifecycle") or {}).get("preStop")
        if pre_stop and grace_s > 0 and self._launch is not None:
            hook = asyncio.ensure_future(run_probe(pre_stop, self._launch.probes, grace_s))
            await asyncio.wait({hook, ended}, return_when=asyncio.FIRST_COMPLETED)
            if hook.done() and not hook.result().succeeded:
                message = f"PreStopHook failed: {hook.result().output}"
                self._emit(warning("FailedPreStopHook", message, field_path=self._field_path))
            elif not hook.done():
                hook.cancel()
            grace_s = max(grace_s - (time.monotonic() - begun), MIN_GRACE_AFTER_HOOK_S)
        if grace_s > 0 and not ended.done():
            process.terminate()
            await asyncio.wait({ended}, timeout=grace_s)
        if not ended.done():
            await asyncio.to_thread(process.kill)
        await ended

    def _termination_message(self, file: Path, log: Path, exit_code: int) -> str:
        message = _tail(file, MAX_TERMINATION_MESSAGE)
        policy = self.container.get("terminationMessagePolicy") or "File"
        if message or policy != "FallbackToLogsOnError" or exit_code == 0:
            return message
        return "\n".join(_tail(log, MAX_LOG_MESSAGE_BYTES).splitlines()[-MAX_LOG_MESSAGE_LINES:])


def _start(name: str, launch: Launch, log: Path) -> ContainerProcess:
    if not launch.argv:
        raise OSError(
            f"container {name!r} has no command. The local cluster does not run images, "
            "so the image's own command is unknown; set the container's command."
        )
    return ContainerProcess.start(
        launch.argv, environment=launch.environment, folder=launch.folder, log=log, marker=launch.marker
    )


def _start_error(name: str, launch: Launch, error: OSError) -> str:
    if error.errno is None:
        return str(error)
    if isinstance(error, FileNotFoundError) and "/" not in launch.argv[0]:
        return f'exec: "{launch.argv[0]}": executable file not found in $PATH of container {name!r}'
    return f'exec: "{error.filename or launch.argv[0]}": {(error.strerror or "").lower()}'


def _tail(path: Path, size: int) -> str:
    """The last `size` bytes of a file as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - size, 0))
            return file.read(size).decode(errors="replace")
    except OSError:
        return ""


def _oom_kills() -> int:
    """How many processes the kernel killed for memory since boot, zero where it does not say."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)
