"""One pod on the node: its address, volumes, init containers, containers, deadline, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alidade_local.backoff import CrashBackoff
from alidade_local.client import ApiError, ConflictError, NotFoundError, UnreachableError
from alidade_local.events import Event, warning
from alidade_local.kubelet.container import ContainerContext, ContainerRunner, Launch
from alidade_local.kubelet.environment import (
    MissingReferenceError,
    PodFacts,
    build_environment,
    expand,
)
from alidade_local.kubelet.eviction import size_limits, until_exceeded
from alidade_local.kubelet.node import HOST_IP, NODE_NAME, Node, node_capacity
from alidade_local.kubelet.paths import PathMap
from alidade_local.kubelet.probes import ProbeTarget
from alidade_local.kubelet.processes import MARKER
from alidade_local.kubelet.records import ContainerRecord, Running, Terminated, Waiting, record_after_restart
from alidade_local.kubelet.status import PodState, pod_status
from alidade_local.kubelet.volumes import (
    VolumeSources,
    below,
    has_volumes_of_objects,
    make_root,
    make_volumes,
    mount_paths,
    termination_path,
    update_volumes,
)
from alidade_local.objects import (
    Object,
    annotations_of,
    is_deleting,
    key_of,
    labels_of,
    name_of,
    namespace_of,
    parse_time,
    uid_of,
)
from alidade_local.resources import PODS

log = logging.getLogger(__name__)

DEFAULT_GRACE_S = 30.0
STATUS_RETRY_S = 1.0
VOLUME_RETRY_S = 5.0


@dataclass(frozen=True)
class _Stop:
    """Why to end the pod before its containers are through; with `failure` (reason, message) it becomes Failed."""

    grace_s: float
    failure: tuple[str, str] | None = None


class PodRunner:
    """Runs one pod from its arrival on the node to its end, and writes its status."""

    def __init__(self, node: Node, pod: Object) -> None:
        self.pod = pod
        self.uid = uid_of(pod)
        self._node = node
        self._folder = node.settings.pods_dir / self.uid
        self._address = node.addresses.take(self.uid, (pod.get("status") or {}).get("podIP", ""))
        self._started_at = _start_time(pod)
        self._init = [self._runner(container, init=True) for container in pod["spec"].get("initContainers") or []]
        self._main = [self._runner(container, init=False) for container in pod["spec"]["containers"]]
        self._stop: asyncio.Future[_Stop] = asyncio.get_running_loop().create_future()
        refusal = node.gpus.take(pod, self.uid)
        self._failure = ("UnexpectedAdmissionError", refusal) if refusal else None
        self._ending: tuple[str, str] | None = None
        self._changed = asyncio.Event()
        self._written: Object | None = None
        self._mount_problem = ""
        self._is_over = False
        self.task = asyncio.create_task(self._run(), name=f"pod {key_of(pod)}")

    # What the kubelet tells the pod.

    def update(self, pod: Object) -> None:
        """The pod's object changed in the API."""
        self.pod = pod
        if is_deleting(pod):
            self.stop(_grace_period(pod))

    def stop(self, grace_s: float, failure: tuple[str, str] | None = None) -> None:
        """Begin to end the pod; only the first call counts."""
        if not self._stop.done():
            self._stop.set_result(_Stop(grace_s, failure))

    async def kill(self) -> None:
        """End the pod at once, even if it is being ended with a grace period already."""
        self.stop(0)
        await asyncio.gather(*(runner.kill() for runner in [*self._init, *self._main]))

    # The pod's life.

    async def _run(self) -> None:
        writer = asyncio.create_task(self._write_changes())
        try:
            if self._failure is None:
                await self._live_until_stopped()
        except Exception:
            # A mistake of ours must end this pod visibly and leave the others alone.
            log.exception("pod %s", key_of(self.pod))
            self._failure = ("KubeletError", "The kubelet failed to run the pod; its log file says why.")
            await self._stop_containers(0)
        # The writer ends by itself: a write that is under way must not arrive after the last one.
        self._is_over = True
        self._changed.set()
        await writer
        self._node.addresses.release(self.uid)
        self._node.gpus.release(self.uid)
        await self._write_last()

    async def _live_until_stopped(self) -> None:
        life = asyncio.create_task(self._live())
        deadline_s = self._remaining_deadline()
        awaited: set[asyncio.Future[Any]] = {life, self._stop}
        await asyncio.wait(awaited, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            await life
            await self._stop_containers(self._grace_s)  # sidecars end with the others
            return
        if self._stop.done():
            stop = self._stop.result()
        else:
            message = "Pod was active on the node longer than the specified deadline"
            stop = _Stop(self._grace_s, ("DeadlineExceeded", message))
            self._emit(warning("DeadlineExceeded", message))
        self._ending = stop.failure
        await self._stop_containers(stop.grace_s, before=life)
        self._failure = stop.failure

    async def _stop_containers(self, grace_s: float, before: asyncio.Task[None] | None = None) -> None:
        """End what runs; `before` is cancelled first, so that nothing new is started."""
        if before is not None:
            before.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await before
        await asyncio.gather(*(runner.stop(grace_s) for runner in self._main))
        # Sidecars outlive the containers they serve.
        await asyncio.gather(*(runner.stop(grace_s) for runner in self._init))

    async def _live(self) -> None:
        """Everything up to the end of the last container."""
        self._changed.set()
        made_of = await self._make_volumes()
        keepers = [asyncio.create_task(work) for work in (self._keep_volumes(made_of), self._limit_volumes())]
        try:
            policy = self.pod["spec"].get("restartPolicy") or "Always"
            for runner in self._init:
                if not await self._initialise(runner, policy):
                    return
            await _finished([runner.start(policy) for runner in self._main])
        finally:
            for keeper in keepers:
                keeper.cancel()

    async def _initialise(self, runner: ContainerRunner, policy: str) -> bool:
        """Run an init container to its success, or start a sidecar; False when the pod failed with it."""
        if _is_sidecar(runner.container):
            runner.start("Always")
            await runner.started.wait()
            return True
        await _finished([runner.start("OnFailure" if policy == "Always" else policy)])
        state = runner.record.state
        return isinstance(state, Terminated) and state.exit_code == 0

    def _volume_sources(self) -> VolumeSources:
        return VolumeSources(
            data=self._node.referenced_data(self.pod),
            facts=self._facts(),
            bound_claims=self._node.bound_claims(namespace_of(self.pod)),
            volumes_dir=self._node.settings.volumes_dir,
        )

    async def _make_volumes(self) -> tuple[object, ...]:
        """Make the volumes as soon as that is possible; returns what they were made of."""
        while True:
            try:
                make_volumes(self.pod, self._folder / "volumes", self._volume_sources())
                return self._made_of()
            except MissingReferenceError as error:
                self._report_mount(str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(VOLUME_RETRY_S):
                    await self._node.wait_for_change()

    async def _keep_volumes(self, made_of: tuple[object, ...]) -> None:
        """Follow what the volumes are made of, until cancelled."""
        while has_volumes_of_objects(self.pod):
            if made_of != (made_of := self._made_of()):
                self._update_volumes()
            await self._node.wait_for_change()

    async def _limit_volumes(self) -> None:
        """Evict the pod when one of its volumes has grown too large."""
        limits = size_limits(self.pod)
        if limits:
            message = await until_exceeded(limits, self._folder / "volumes")
            self._emit(warning("Evicted", message))
            self.stop(0, failure=("Evicted", message))

    def _update_volumes(self) -> None:
        try:
            update_volumes(self.pod, self._folder / "volumes", self._volume_sources())
        except MissingReferenceError as error:
            self._report_mount(str(error))
        except OSError as error:
            log.warning("volumes of pod %s: %s", key_of(self.pod), error)
            self._report_mount(f"a volume could not be updated: {error.strerror or error}")

    def _made_of(self) -> tuple[object, ...]:
        return self._node.referenced_data(self.pod).versions, labels_of(self.pod), annotations_of(self.pod)

    def _report_mount(self, problem: str) -> None:
        """Say it once; again only after something else has been said."""
        if problem != self._mount_problem:
            self._mount_problem = problem
            self._emit(warning("FailedMount", problem))

    def _remaining_deadline(self) -> float | None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            return None
        return max(float(seconds) - (datetime.now(UTC) - self._started_at).total_seconds(), 0.0)

    # Containers.

    def _runner(self, container: Object, *, init: bool) -> ContainerRunner:
        settings = self._node.settings
        statuses = (self.pod.get("status") or {}).get("initContainerStatuses" if init else "containerStatuses") or []
        status = next((status for status in statuses if status["name"] == container["name"]), None)
        record = record_after_restart(container, status, datetime.now(UTC))
        if init and isinstance(record.state, Terminated):
            # As after a reboot of a node: init containers run again.
            record.last, record.restart_count = record.state, record.restart_count + 1
            record.state = Waiting("PodInitializing")
        elif isinstance(record.state, Waiting) and self.pod["spec"].get("initContainers"):
            record.state = Waiting("PodInitializing")
        context = ContainerContext(
            logs=self._folder / container["name"],
            pod_name=f"{name_of(self.pod)}_{namespace_of(self.pod)}({self.uid})",
            grace_period_s=self._grace_s,
            prepare=self._prepare,
            wait_for_change=self._node.wait_for_change,
            memory=self._node.memory,
            emit=self._emit,
            changed=self._mark_changed,
        )
        backoff = CrashBackoff(settings.first_backoff_s, settings.last_backoff_s, settings.backoff_reset_s)
        return ContainerRunner(container, record, context, backoff)

    async def _prepare(self, container: Object, run: int) -> Launch:
        """Everything needed to execute a container now; raises MissingReferenceError or NoAddressYetError."""
        root = self._folder / f"root-{container['name']}"
        base = self._node.base_environment(self.pod)
        variables = build_environment(
            self.pod, container, facts=self._facts(), data=self._node.referenced_data(self.pod), base=base
        )
        variables |= self._node.gpus.environment(self.pod, container, self.uid)
        make_root(container, root, self._folder / "volumes", variables)
        paths = PathMap(root, mount_paths(container))
        names, namespace = self._node.names(self.pod, self._address), namespace_of(self.pod)
        # What the machine gave is true as it is; what the pod says is said in terms of its container.
        own = {name: names.resolve(value, namespace) for name, value in variables.items() if base.get(name) != value}
        environment = variables | {name: paths.rewrite_value(value) for name, value in own.items()}
        command: list[str] = container.get("command") or []
        items = [*command, *(container.get("args") or [])] if command else []
        argv = [paths.rewrite_argument(expand(item, variables | own)) for item in items]
        folder = _working_folder(container.get("workingDir"), root, paths)
        marker = self._node.settings.marker(self.uid, container["name"], str(run))
        return Launch(
            argv=argv,
            environment=environment,
            folder=folder,
            marker=marker,
            termination_file=below(root, termination_path(container)),
            probes=ProbeTarget(
                pod_ip=self._address,
                ports=_named_ports(container),
                environment={**environment, MARKER: marker},
                folder=folder,
                paths=paths,
            ),
        )

    def _facts(self) -> PodFacts:
        return PodFacts(
            pod_ip=self._address,
            host_ip=HOST_IP,
            node_name=NODE_NAME,
            allocatable=node_capacity(self._node.settings.gpus),
        )

    @property
    def _grace_s(self) -> float:
        seconds = self.pod["spec"].get("terminationGracePeriodSeconds")
        return DEFAULT_GRACE_S if seconds is None else float(seconds)

    def _emit(self, event: Event) -> None:
        self._node.events.record(PODS, self.pod, event)

    # Status.

    def _mark_changed(self) -> None:
        self._changed.set()

    def _status(self) -> Object:
        sidecars = frozenset(runner.name for runner in self._init if _is_sidecar(runner.container))
        init, main = _records(self._init), _records(self._main)
        is_running = any(isinstance(record.state, Running) for record in [*init, *main])
        state = PodState(
            init_containers=init,
            containers=main,
            pod_ip=self._address,
            host_ip=HOST_IP,
            started_at=self._started_at,
            sidecars=sidecars,
            # The last of its containers to end must not show a pod that failed for no reason.
            ended=self._failure or (None if is_running else self._ending),
        )
        return pod_status(self.pod, state, datetime.now(UTC))

    async def _write_changes(self) -> None:
        """Write the status whenever it changed, as long as the pod lives."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._is_over:
                return
            try:
                await self._write_status()
            except (ApiError, UnreachableError) as error:
                log.debug("status of pod %s: %s", key_of(self.pod), error)
                await asyncio.sleep(STATUS_RETRY_S)
                self._changed.set()

    async def _write_status(self) -> None:
        status = self._status()
        if status == self._written:
            return
        try:
            written = await self._node.client.patch_status(PODS, self.pod, status)
        except (NotFoundError, ConflictError):
            return  # deleted, or replaced by another pod of its name: nobody to tell
        self._written = status
        self._node.pods.absorb(written)

    async def _write_last(self) -> None:
        """The final status, and the pod's removal from the API when it is being deleted."""
        while True:
            try:
                await self._write_status()
                if is_deleting(self.pod):
                    await self._node.client.delete(PODS, key_of(self.pod), uid=self.uid, grace_period_s=0)
                return
            except ApiError as error:
                log.warning("last status of pod %s: %s", key_of(self.pod), error)
            except UnreachableError as error:
                log.debug("last status of pod %s: %s", key_of(self.pod), error)
            await asyncio.sleep(STATUS_RETRY_S)

    @property
    def is_finished(self) -> bool:
        """Whether the pod has come to its end: nothing will run in it any more."""
        return self.task.done()


async def _finished(tasks: list[asyncio.Task[None]]) -> None:
    """Wait for containers without cancelling them when the wait is cancelled; raises what a task raised."""
    await asyncio.wait(tasks)
    for task in tasks:
        task.result()


def _records(runners: Sequence[ContainerRunner]) -> list[ContainerRecord]:
    return [runner.record for runner in runners]


def _working_folder(working_dir: str | None, root: Path, paths: PathMap) -> Path:
    """Where the container starts: its working directory if it exists on this machine, else below its root."""
    if not working_dir:
        return root
    folder = Path(paths.real(working_dir))
    if not folder.is_dir():
        folder = below(root, working_dir)
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_sidecar(container: Object) -> bool:
    return container.get("restartPolicy") == "Always"


def _named_ports(container: Object) -> dict[str, int]:
    ports: list[dict[str, Any]] = container.get("ports") or []
    return {port["name"]: int(port["containerPort"]) for port in ports if port.get("name")}


def _grace_period(pod: Object) -> float:
    """Seconds that a pod being deleted has from the request on."""
    seconds = pod["metadata"].get("deletionGracePeriodSeconds")
    return DEFAULT_GRACE_S if seconds is None else float(seconds)


def _start_time(pod: Object) -> datetime:
    recorded = (pod.get("status") or {}).get("startTime")
    return parse_time(recorded) if recorded else datetime.now(UTC)
