"""Everything that acts on objects: controllers, scheduler and kubelet, on one API connection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from alidade_local.client import ApiClient
from alidade_local.controllers.accounts import DefaultAccounts
from alidade_local.controllers.autoscaling import Autoscaler
from alidade_local.controllers.claims import ClaimBinder
from alidade_local.controllers.controller import Controller
from alidade_local.controllers.deployment import deployment_planner
from alidade_local.controllers.disruption import DisruptionController
from alidade_local.controllers.endpoints import EndpointsController
from alidade_local.controllers.garbage import GarbageCollector
from alidade_local.controllers.job import job_planner
from alidade_local.controllers.job_tracking import OrphanReleaser
from alidade_local.controllers.namespaces import NamespaceLifecycle
from alidade_local.controllers.plan import PlanActor, Planner
from alidade_local.controllers.ports import PortChooser
from alidade_local.controllers.pytorchjob import pytorchjob_planner, rendezvous_ports
from alidade_local.controllers.replicaset import replica_set_planner
from alidade_local.controllers.scheduler import Scheduler
from alidade_local.events import EventRecorder
from alidade_local.informer import Informers
from alidade_local.kubelet.kubelet import Kubelet
from alidade_local.kubelet.settings import KubeletSettings
from alidade_local.pki import Certificates
from alidade_local.resources import DEPLOYMENTS, JOBS, PODS, PYTORCH_JOBS, REPLICA_SETS, SERVICES, Resource
from alidade_local.services.proxy import ServiceProxy


@dataclass
class ControlPlane:
    """The running parts; `stop` ends them in the order in which nothing is lost.

    _of_pods: the tasks that live as long as pods do.
    """

    kubelet: Kubelet
    _of_pods: list[asyncio.Task[None]]
    _controllers: list[asyncio.Task[None]]

    async def stop(self) -> None:
        """End the pods with their grace periods, then the controllers.

        Controllers are silent meanwhile: what they would do about ending pods is for the next start.
        """
        await _cancel(self._controllers)
        await self.kubelet.stop()
        await _cancel(self._of_pods)

    async def failure(self) -> BaseException:
        """Return when a part of the control plane ended by a mistake of ours."""
        done, _ = await asyncio.wait([*self._of_pods, *self._controllers], return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
        return task.exception() or RuntimeError(f"{task.get_name()} ended")


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def start_control_plane(
    client: ApiClient, settings: KubeletSettings, asking: Certificates | None = None
) -> ControlPlane:
    """Start everything; returns once the caches have been filled.

    asking: of a real API server, the certificates by which it and the kubelet know each other; then what Kubernetes
    has beside its API server is here, too.
    """
    informers = Informers(client)
    # Before the kubelet: a pod that is to end gets no connections any more when the kubelet hears of it.
    proxy = ServiceProxy(client, informers)
    kubelet = Kubelet(client, informers, settings, asking)
    controllers: list[Controller] = []
    recorders: list[EventRecorder] = []

    def add_plan(parent: Resource, children: Sequence[Resource], planner: Planner, component: str) -> None:
        actor = PlanActor(client, informers, parent, children, planner, component=component)
        controller = Controller(parent.plural, actor.reconcile)
        controller.follow(informers, parent)
        for child in children:
            controller.follow_owned(informers, child, parent)
        controllers.append(controller)
        recorders.append(actor.events)

    ports = PortChooser(lambda: rendezvous_ports(informers.of(SERVICES).all()))
    informers.of(PYTORCH_JOBS).listen(lambda before, after: ports.forget(before) if before and not after else None)
    add_plan(PYTORCH_JOBS, [PODS, SERVICES], pytorchjob_planner(ports.choose), "pytorchjob-controller")
    add_plan(JOBS, [PODS], job_planner(settings.first_backoff_s), "job-controller")
    add_plan(REPLICA_SETS, [PODS], replica_set_planner, "replicaset-controller")
    add_plan(DEPLOYMENTS, [REPLICA_SETS], deployment_planner, "deployment-controller")
    scheduler = Scheduler(client, informers)
    autoscaler = Autoscaler(client, informers)
    claims = ClaimBinder(client, informers, settings.volumes_dir)
    controllers += [
        scheduler.controller,
        claims.controller,
        OrphanReleaser(client, informers).controller,
        DefaultAccounts(client, informers).controller,
        DisruptionController(client, informers).controller,
        autoscaler.controller,
    ]
    collector: GarbageCollector | None = None
    if asking is None:
        controllers.append(EndpointsController(client, informers).controller)
    else:  # which takes no endpoints on loopback
        collector = GarbageCollector(client, informers)
        controllers.append(NamespaceLifecycle(client, informers).controller)
    recorders += [scheduler.events, claims.events, autoscaler.events]
    informer_task = asyncio.create_task(informers.run(), name="informers")
    await informers.wait_until_synced(except_for=[PYTORCH_JOBS])
    tasks = [asyncio.create_task(recorder.run(), name="events") for recorder in recorders]
    tasks += [asyncio.create_task(controller.run(), name=controller.name) for controller in controllers]
    if collector is not None:
        tasks.append(asyncio.create_task(collector.run(), name="garbage collector"))
    proxy_task = asyncio.create_task(proxy.run(), name="service proxy")
    kubelet_task = asyncio.create_task(kubelet.run(), name="kubelet")
    return ControlPlane(kubelet, [kubelet_task, proxy_task, informer_task], tasks)
