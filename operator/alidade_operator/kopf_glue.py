"""kopf's part: login, life cycle, and the events of the watched kinds. No other module imports kopf.

Works embedded (`alidade-operator`) and as `kopf run -A -m alidade_operator.main`.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from alidade_operator.admissionserver import AdmissionServer, certificate_source
from alidade_operator.api import Api, Connection, Kind
from alidade_operator.config import CONFIG_ENV, OperatorConfig, Tracing, listening_host, load_config
from alidade_operator.controller import Controller, end_with
from alidade_operator.health import HealthServer
from alidade_operator.leader import Leader
from alidade_operator.resync import WATCHED_KINDS, selector_of

if TYPE_CHECKING:
    from alidade_operator.tracing import Exporter


@contextlib.contextmanager
def _without_official_clients() -> Iterator[None]:
    """Keeps kopf from importing Kubernetes clients that it finds installed: it would only look at them, and the
    resident memory would rise from 41 to 79 MB."""
    absent = [name for name in ("kubernetes", "kubernetes_asyncio", "pykube") if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


with _without_official_clients():
    import kopf


class NoDifferences(kopf.DiffBaseStorage):  # type: ignore[misc]  # kopf's types are not followed
    """kopf keeps what an object was, to tell what has changed. Nothing here asks for that, and copying every object of
    every event for it took half of the operator's CPU time."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        """Nothing of the object is compared."""
        del body, extra_fields
        return {}

    def fetch(self, *, body: Any) -> None:
        """Nothing is kept."""
        del body

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        """Nothing is kept."""
        del body, patch, essence


class NoProgress(kopf.ProgressStorage):  # type: ignore[misc]  # kopf's types are not followed
    """kopf keeps how far its handlers are with an object. Handlers of events have no progress."""

    def fetch(self, *, key: Any, body: Any) -> None:
        """Nothing is kept."""
        del key, body

    def store(self, *, key: Any, record: Any, body: Any, patch: Any) -> None:
        """Nothing is kept."""
        del key, record, body, patch

    def purge(self, *, key: Any, body: Any, patch: Any) -> None:
        """Nothing is kept."""
        del key, body, patch

    def touch(self, *, body: Any, patch: Any, value: Any) -> None:
        """Objects are not written to."""
        del body, patch, value

    def clear(self, *, essence: Any) -> Any:
        """There is nothing of kopf's in the object."""
        return essence


# A plain registry: the default one adds logins through whichever client is installed.
REGISTRY = kopf.OperatorRegistry()
kopf.set_default_registry(REGISTRY)

# Watches hold one connection each (one for each kind and namespace), and listings need a few.
_WATCH_CONNECTIONS = 16
_LIST_PAGE = 500
# kopf gives its tasks 5 s.
_END_S = 8.0

_log = logging.getLogger(__name__)


class LoginError(RuntimeError):
    """There is neither a kubeconfig nor a service account."""


def log_in() -> Connection:
    """The API server and credentials: KUBECONFIG or ~/.kube/config, else the pod's service account.

    Read anew at each call, since service account tokens expire. Raises LoginError.
    """
    settings = kopf.OperatorSettings()
    info = kopf.login_with_kubeconfig(settings=settings) or kopf.login_with_service_account(settings=settings)
    if info is None:
        raise LoginError("There is no cluster to serve: set KUBECONFIG, or run in a pod with a service account.")
    return Connection(
        server=info.server, headers=info.as_http_headers(), ssl=info.as_ssl_context(), proxy=info.proxy_url
    )


async def log_kopf_in(memo: Any, **_: Any) -> kopf.AiohttpSession:
    """kopf's session; its own has no bound on connections (377 MB and 961 descriptors at a restart with 2,000 jobs)."""
    connection = log_in()
    connector = aiohttp.TCPConnector(limit=watch_connections(memo.controller.config), ssl=connection.ssl)
    session = aiohttp.ClientSession(connector=connector, headers=dict(connection.headers), proxy=connection.proxy)
    return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)


def watch_connections(config: OperatorConfig) -> int:
    """Connections that kopf may hold: one for each watched kind and namespace, and some for listings."""
    return _WATCH_CONNECTIONS + len(WATCHED_KINDS) * max(1, len(config.namespaces))


async def start(settings: kopf.OperatorSettings, memo: Any, **_: Any) -> None:
    """Starts the controller and the health server, and tells kopf to do nothing but watch."""
    config = load_config()
    configure(settings, config)
    path = os.environ.get(CONFIG_ENV)
    api = Api(log_in, connections=config.api_connections)
    exporter = _exporter(config.tracing) if config.tracing is not None else None
    controller = Controller(
        config, api, config_path=Path(path) if path else None, on_span=exporter.take if exporter is not None else None
    )
    health = HealthServer(
        host=listening_host(config.metrics_host),
        port=config.metrics_port,
        is_ready=controller.ready.is_set,
        refresh=controller.refresh_gauges,
    )
    await health.start()
    leader = Leader(api, config) if config.leader_election else None
    admission = _admission(config, api, controller) if config.admission.enabled else None
    if admission is not None:
        admission.start().add_done_callback(end_with)
    memo.api, memo.controller, memo.health, memo.leader, memo.admission = api, controller, health, leader, admission
    memo.exporter = exporter
    controller.start(may_work=leader.start() if leader is not None else None)


def _exporter(tracing: Tracing) -> "Exporter":
    # An optional dependency, and 19 MB of memory.
    from alidade_operator.tracing import Exporter

    return Exporter(tracing)


def _admission(config: OperatorConfig, api: Api, controller: Controller) -> AdmissionServer:
    source = certificate_source(config, api)
    return AdmissionServer(config.admission, source, controller, is_ready=controller.ready.is_set)


async def stop(memo: Any, **_: Any) -> None:
    """Ends what start() began."""
    if memo.admission is not None:
        await memo.admission.stop()
    await memo.controller.stop()
    if memo.leader is not None:
        await memo.leader.stop()
    if memo.exporter is not None:
        # It may wait for a collector that does not answer, while another replica is at work already.
        await asyncio.to_thread(memo.exporter.close)
    await memo.health.stop()
    await memo.api.close()
    if "stopped" in memo:
        memo.stopped.set()


def configure(settings: kopf.OperatorSettings, config: OperatorConfig) -> None:
    """kopf as an event source; docs/decisions/0004-kopf-only-watches.md says why."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.queueing.idle_timeout = 1.0
    settings.watching.client_timeout = 600.0
    settings.watching.chunk_size = _LIST_PAGE
    settings.networking.request_timeout = 30.0
    settings.persistence.diffbase_storage = NoDifferences()
    settings.persistence.progress_storage = NoProgress()
    settings.scanning.disabled = bool(config.namespaces)
    for kind in WATCHED_KINDS:
        selector = selector_of(kind)
        if selector:
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = selector


def _watch(kind: Kind) -> None:
    async def take(event: Any, memo: Any, **_: Any) -> None:
        memo.controller.take_event(kind, event["type"], event["object"])

    kopf.on.event(
        group=kind.group, version=kind.version, plural=kind.plural, id=f"watch-{kind.plural}", registry=REGISTRY
    )(take)


kopf.on.login(registry=REGISTRY)(log_kopf_in)
# A start that fails (a taken port, a wrong configuration) ends the process; whoever supervises it tries again.
kopf.on.startup(registry=REGISTRY, errors=kopf.ErrorsMode.PERMANENT)(start)
kopf.on.cleanup(registry=REGISTRY)(stop)
for _kind in WATCHED_KINDS:
    _watch(_kind)


async def serve(config: OperatorConfig) -> None:
    """Runs until a signal, or until kopf gives up, which ends the process: whoever supervises it starts it again.

    kopf gives up when a watch is answered with an error that it does not know to pass, such as 410 in place of an event
    of that code. It would wait for ever then for its other watches, which ask a session that is closed.
    """
    scope: dict[str, Any] = {"namespaces": list(config.namespaces)} if config.namespaces else {"clusterwide": True}
    memo = kopf.Memo(stopped=asyncio.Event())
    running = asyncio.create_task(kopf.operator(registry=REGISTRY, memo=memo, **scope))
    stopped = asyncio.create_task(memo.stopped.wait())
    await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({running}, timeout=_END_S)
    if not running.done():
        _log.critical("kopf does not end", extra={"action": "stop", "why": "its watches have failed, or are stuck"})
        os._exit(1)
    await running
