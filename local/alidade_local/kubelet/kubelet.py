"""The node agent: it runs the pods that are bound to the node `local` as processes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from alidade_local.client import AlreadyExistsError, ApiClient, ApiError, UnreachableError
from alidade_local.informer import Informers
from alidade_local.kubelet.gpus import GPU_LABELS, GPU_RESOURCE
from alidade_local.kubelet.node import NODE_NAME, Node, node_capacity, node_document, node_status
from alidade_local.kubelet.pod import PodRunner
from alidade_local.kubelet.processes import ProcessIdentity, kill_group, kill_marked
from alidade_local.kubelet.server import KubeletServer
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.kubelet.volumes import prune_pod_folders, remove_pod_folder
from alidade_local.objects import Key, Object, is_deleting, key_of, uid_of
from alidade_local.pki import Certificates
from alidade_local.resources import NODES, PODS

log = logging.getLogger(__name__)

FINISHED_PHASES = ("Succeeded", "Failed")
SHUTDOWN = ("Terminated", "Pod was terminated in response to imminent node shutdown.")
RETRY_S = 1.0


def end_leftover_processes(settings: KubeletSettings) -> int:
    """SIGKILL the containers that an earlier kubelet of this folder left running; returns how many processes.

    A recorded process id is trusted only together with the start time recorded with it.
    """
    ended = 0
    for record in settings.pods_dir.glob("*/*/process.json"):
        identity = ProcessIdentity.load(record)
        if identity is not None and identity.is_alive():
            kill_group(identity.pid)
            ended += 1
        record.unlink(missing_ok=True)
    return ended + kill_marked(settings.marker())


class Kubelet:
    """Runs the node's pods until it is stopped. Create it before the informers are started.

    asking: the certificates by which an API server and it know each other, where one asks for logs and ports.
    """

    def __init__(
        self, client: ApiClient, informers: Informers, settings: KubeletSettings, asking: Certificates | None = None
    ) -> None:
        self._client = client
        self._settings = settings
        self._asking = asking
        self._node = Node(client, informers, settings)
        self._runners: dict[str, PodRunner] = {}
        self._removals: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self) -> None:
        """Register the node and run pods, until cancelled; `stop` ends the pods."""
        helpers = [asyncio.create_task(work) for work in (self._node.events.run(), self._node.memory.run())]
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(lambda: [helper.cancel() for helper in helpers])
            port = 0
            if self._asking is not None:
                server = KubeletServer(self._node.pods, self._settings, self._asking)
                port = await stack.enter_async_context(server.listening())
            await self._register(port)
            await self._node.pods.synced.wait()
            known = [uid_of(pod) for pod in self._node.pods.all()]
            await asyncio.to_thread(prune_pod_folders, self._settings.pods_dir, known)
            self._node.pods.listen(self._on_pod)
            await asyncio.Event().wait()

    async def stop(self) -> None:
        """End all pods with their grace periods, as a node does that shuts down, and write their last status.

        Pods whose containers are always restarted stay as they are and go on at the next start.
        """
        self._stopping = True
        runners = [runner for runner in self._runners.values() if not runner.task.done()]
        for runner in runners:
            spec = runner.pod["spec"]
            grace_s = min(float(spec.get("terminationGracePeriodSeconds", 30)), self._settings.max_shutdown_s)
            restarts = (spec.get("restartPolicy") or "Always") == "Always"
            runner.stop(grace_s, failure=None if restarts else SHUTDOWN)
        if runners:
            await asyncio.wait([runner.task for runner in runners], timeout=self._settings.max_shutdown_s + 5.0)
        await self._node.events.flush()

    async def _register(self, port: int) -> None:
        gpus = self._settings.gpus
        document, status = node_document(gpus), node_status(node_capacity(gpus), port)
        # What the machine had and has no more goes: a merge patch only takes away what is named.
        labels = {**dict.fromkeys(GPU_LABELS), **document["metadata"]["labels"]}
        amounts = {GPU_RESOURCE: None}
        status |= {name: amounts | status[name] for name in ("capacity", "allocatable")}
        while True:
            try:
                with contextlib.suppress(AlreadyExistsError):
                    await self._client.create(NODES, document)
                await self._client.patch(NODES, Key("", NODE_NAME), {"metadata": {"labels": labels}})
                await self._client.patch(NODES, Key("", NODE_NAME), {"status": status}, subresource="status")
                return
            except (ApiError, UnreachableError) as error:
                log.warning("the node could not be registered: %s", error)
            await asyncio.sleep(RETRY_S)

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        if after is None:
            if before is not None:
                self._on_gone(before)
        elif after["spec"].get("nodeName") == NODE_NAME:
            self._on_present(after)

    def _on_present(self, pod: Object) -> None:
        runner = self._runners.get(uid_of(pod))
        if runner is not None and not runner.is_finished:
            runner.update(pod)
        elif is_deleting(pod):
            self._spawn(self._remove(pod))
        elif runner is None and not self._stopping and (pod.get("status") or {}).get("phase") not in FINISHED_PHASES:
            self._runners[uid_of(pod)] = PodRunner(self._node, pod)

    def _on_gone(self, pod: Object) -> None:
        """The pod's object is gone: what is left of it here goes too."""
        runner = self._runners.pop(uid_of(pod), None)
        self._spawn(self._clean_up(pod, runner))

    async def _clean_up(self, pod: Object, runner: PodRunner | None) -> None:
        if runner is not None:
            await runner.kill()
            await asyncio.wait([runner.task])
        await asyncio.to_thread(remove_pod_folder, self._settings.pods_dir / uid_of(pod))

    async def _remove(self, pod: Object) -> None:
        """Take a pod in which nothing runs out of the API."""
        try:
            await self._client.delete(PODS, key_of(pod), uid=uid_of(pod), grace_period_s=0)
        except (ApiError, UnreachableError) as error:
            log.warning("pod %s could not be removed: %s", key_of(pod), error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)
