"""Keeps a relay for every port of every Service that has an address and a ready pod."""

from __future__ import annotations

import asyncio
import logging

from alidade_local.client import ApiClient
from alidade_local.controllers.controller import Controller
from alidade_local.events import EventRecorder, warning
from alidade_local.informer import Informers
from alidade_local.objects import Key, Object, key_of, labels_of, matches_labels, namespace_of
from alidade_local.resources import ENDPOINTS, PODS, SERVICES
from alidade_local.services.endpoints import Place, routes
from alidade_local.services.relay import Relay

log = logging.getLogger(__name__)

# A place where something else listens is tried again this often.
_RETRY_S = 5.0


class ServiceProxy:
    """Listens at the addresses of Services; create it before the kubelet.

    Which pods get connections changes in the moment in which the cluster's copy of a pod does: one that is being
    deleted has left before it is told to end. A port behind which nothing is ready is not listened on, so that
    connections to it are refused.
    """

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.controller = Controller("service proxy", self._reconcile)
        self.events = EventRecorder(client, "kube-proxy")
        self._services = informers.of(SERVICES)
        self._pods = informers.of(PODS)
        self._endpoints = informers.of(ENDPOINTS)
        self._relays: dict[Key, dict[Place, Relay]] = {}
        self._closed: list[Relay] = []
        self._services.listen(self._on_same_name)
        self._endpoints.listen(self._on_same_name)
        self._pods.listen(self._on_pod)

    async def run(self) -> None:
        """Work until cancelled; then all connections end."""
        recorder = asyncio.create_task(self.events.run())
        try:
            await self.controller.run()
        finally:
            recorder.cancel()
            for relay in [*self._closed, *(relay for relays in self._relays.values() for relay in relays.values())]:
                relay.abort()

    def _on_same_name(self, before: Object | None, after: Object | None) -> None:
        if (document := after or before) is not None:
            self._look(key_of(document))

    def _on_pod(self, before: Object | None, after: Object | None) -> None:
        present = [pod for pod in (before, after) if pod is not None]
        for service in self._services.all(namespace_of(present[0])):
            selector = service["spec"].get("selector")
            if selector and any(matches_labels(selector, labels_of(pod)) for pod in present):
                self._look(key_of(service))

    def _routes(self, key: Key) -> dict[Place, tuple[Place, ...]]:
        service = self._services.get(key)
        if service is None:
            return {}
        return routes(service, self._pods.all(key.namespace), self._endpoints.get(key))

    def _look(self, key: Key) -> None:
        """Let connections go where they should from now on; what has to be opened or closed is the worker's."""
        wanted, relays = self._routes(key), self._relays.get(key, {})
        for place, relay in relays.items():
            relay.turn.set(wanted.get(place, ()))
        if wanted.keys() != relays.keys():
            self.controller.queue.add(key)

    async def _reconcile(self, key: Key) -> float | None:
        wanted, relays = self._routes(key), self._relays.setdefault(key, {})
        for place in relays.keys() - wanted.keys():
            self._let_go(relays.pop(place))
        failed = False
        for place in wanted.keys() - relays.keys():
            relay = Relay(place, wanted[place])
            try:
                await relay.open()
            except OSError as error:
                failed = True
                self._report(key, place, error)
            else:
                relays[place] = relay
        if not relays:
            self._relays.pop(key, None)
        elif not failed:
            self._look(key)  # what changed while the worker waited
        return _RETRY_S if failed else None

    def _let_go(self, relay: Relay) -> None:
        """Close a relay; it is kept in mind as long as it has connections."""
        relay.close()
        self._closed = [closed for closed in [*self._closed, relay] if closed.connections]

    def _report(self, key: Key, place: Place, error: OSError) -> None:
        service = self._services.get(key)
        message = f"nothing can listen on {place}: {error.strerror or error}; end what does, or recreate the Service"
        log.warning("service %s: %s", key, message)
        if service is not None:
            self.events.record(SERVICES, service, warning("FailedToListen", message))
