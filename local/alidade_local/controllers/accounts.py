"""The default ServiceAccount of every namespace."""

from __future__ import annotations

from alidade_local.client import AlreadyExistsError, ApiClient, NotFoundError
from alidade_local.controllers.controller import Controller
from alidade_local.informer import Informers
from alidade_local.objects import Key, is_deleting
from alidade_local.resources import NAMESPACES, SERVICE_ACCOUNTS


class DefaultAccounts:
    """Makes the ServiceAccount `default` in each namespace, and again when somebody deletes it."""

    def __init__(self, client: ApiClient, informers: Informers) -> None:
        self.controller = Controller("accounts", self._reconcile, workers=1)
        self._client = client
        self._namespaces = informers.of(NAMESPACES)
        self._accounts = informers.of(SERVICE_ACCOUNTS)
        self.controller.follow(informers, NAMESPACES)
        self._accounts.listen(
            lambda before, after: (
                self.controller.queue.add(Key("", before["metadata"]["namespace"])) if before and not after else None
            )
        )

    async def _reconcile(self, key: Key) -> None:
        namespace = self._namespaces.get(key)
        if namespace is None or is_deleting(namespace) or self._accounts.get(Key(key.name, "default")):
            return
        try:
            account = {"metadata": {"name": "default", "namespace": key.name}}
            self._accounts.absorb(await self._client.create(SERVICE_ACCOUNTS, account))
        except (AlreadyExistsError, NotFoundError):
            return  # made by somebody else, or the namespace is gone
