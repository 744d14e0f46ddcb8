"""The server itself: listens, knows who asks, and hands each path to what answers it."""

import asyncio
import contextlib
import logging
import ssl
from typing import Any

from aiohttp import web

from alidade_local.apiserver import event_expiry
from alidade_local.apiserver.auth import Authenticator, UserInfo
from alidade_local.apiserver.builtin import builtin_resources
from alidade_local.apiserver.connections import Connections, heard
from alidade_local.apiserver.custom_resources import Definitions
from alidade_local.apiserver.discovery import REVIEWS, Discovery, version
from alidade_local.apiserver.endpoints import Endpoints
from alidade_local.apiserver.errors import ApiError, method_not_allowed, no_such_resource
from alidade_local.apiserver.garbage import GarbageCollector
from alidade_local.apiserver.impersonation import impersonated
from alidade_local.apiserver.kinds_services import SERVICES_KEY, ServiceAddresses, service_rules
from alidade_local.apiserver.namespaces import NamespaceLifecycle
from alidade_local.apiserver.negotiation import negotiate, parse_accept
from alidade_local.apiserver.openapi import V2_PROTOBUF, OpenApi
from alidade_local.apiserver.paths import ResourcePath, parse_resource_path
from alidade_local.apiserver.rbac import Authorizer
from alidade_local.apiserver.registry import Registry
from alidade_local.apiserver.requests import error_response, json_response, read_object
from alidade_local.apiserver.rest import Objects
from alidade_local.apiserver.reviews import Reviewer
from alidade_local.apiserver.service_accounts import ServiceAccountTokens, signing_key
from alidade_local.apiserver.settings import ApiServerSettings
from alidade_local.apiserver.storage import Store
from alidade_local.loopback import ClusterNetwork

Json = dict[str, Any]

_LOG = logging.getLogger(__name__)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
_INITIAL_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class ApiServer:
    """A running server."""

    def __init__(self, settings: ApiServerSettings) -> None:
        self.settings = settings
        self.store = Store(settings.data_dir / "state.db", history_per_resource=settings.history_per_resource)
        addresses = ServiceAddresses(
            ClusterNetwork.of(settings.data_dir).services, lambda: (item.obj for item in self.store.all(SERVICES_KEY))
        )
        self.registry = Registry(builtin_resources(service_rules(addresses)))
        self.objects = Objects(self.store)
        self._background = (
            Definitions(self.objects, self.registry).worker,
            NamespaceLifecycle(self.objects, self.registry).worker,
            GarbageCollector(self.objects, self.registry).worker,
        )
        accounts = ServiceAccountTokens(self.store, signing_key(settings.data_dir / "service-accounts.key"))
        self._authenticator = Authenticator(settings.tokens, accounts.user)
        self._authorizer = Authorizer(self.store)
        self._reviewer = Reviewer(self._authenticator, self._authorizer)
        self._discovery = Discovery(self.registry)
        self._open_api = OpenApi(self.registry)
        self._endpoints = Endpoints(self.objects, self.registry, self._authorizer, accounts, settings)
        self._commits: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._runner: web.ServerRunner | None = None
        self.port = settings.port

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"https://{self.settings.host}:{self.port}"

    async def start(self) -> None:
        """Begin to listen; returns when requests are answered."""
        self._commits = asyncio.create_task(self.store.run(), name="api server commits")
        self._create_namespaces()
        self._give_addresses()
        self._tasks = [asyncio.create_task(worker.run()) for worker in self._background]
        self._tasks.append(asyncio.create_task(event_expiry.run(self.store, self.settings.events_kept_s)))
        await self.store.committed()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.settings.tls_cert, self.settings.tls_key)
        context.set_alpn_protocols(["http/1.1"])
        self._runner = web.ServerRunner(
            Connections(self._handle, headers_within_s=self.settings.headers_timeout_s), shutdown_timeout=5.0
        )
        await self._runner.setup()
        site = web.TCPSite(
            self._runner, self.settings.host, self.settings.port, ssl_context=context, backlog=1024, reuse_address=True
        )
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def failure(self) -> BaseException:
        """Return when a part of it ended by a mistake of ours."""
        parts = [*self._tasks, *([self._commits] if self._commits is not None else [])]
        done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        task = done.pop()
        return task.exception() or RuntimeError(f"{task.get_name()} ended")

    async def stop(self) -> None:
        """End watches, finish what is being answered, commit, close the files."""
        await self._endpoints.close()
        if self._runner is not None:
            await self._hang_up(self._runner)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._commits is not None:
            await self.store.close(self._commits)

    @staticmethod
    async def _hang_up(runner: web.ServerRunner) -> None:
        """Finish answers and close connections, without waiting for clients that do not close their side."""
        handlers = runner.server.connections if runner.server is not None else []
        transports = [handler.transport for handler in handlers]
        await runner.cleanup()
        for transport in transports:
            if transport is not None:
                # CPython 3.11.2 lets go of the protocol of a TLS transport that is closed twice, and then fails here.
                with contextlib.suppress(AttributeError):
                    transport.abort()
        await asyncio.sleep(0)  # aborted connections are gone one turn of the loop later

    def _create_namespaces(self) -> None:
        namespaces = self.registry.find("", "v1", "namespaces")
        assert namespaces is not None
        for name in _INITIAL_NAMESPACES:
            if self.store.get(namespaces.key, "", name) is None:
                self.objects.create_internally(namespaces, "", name, {})

    def _give_addresses(self) -> None:
        """Services of a version that had no addresses get theirs."""
        services = self.registry.find("", "v1", "services")
        assert services is not None
        for stored in self.store.all(services.key):
            self.objects.change_internally(
                services.key, stored, lambda service: services.rules.prepare_update(service, service)
            )

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer_or_refuse(request)
        except ApiError as error:
            return error_response(error)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            _LOG.exception("%s %s failed", request.method, request.path)
            return error_response(ApiError(500, "InternalError", "Internal error occurred; the server's log says more"))

    async def _answer_or_refuse(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._answer(request)
        except ApiError:
            await self.store.committed()  # what a refusal rests on must be as lasting as what an answer shows
            raise

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        heard(request)
        if request.method not in _METHODS:
            raise method_not_allowed()
        path = request.path.rstrip("/") or "/"
        if path in _OPEN_PATHS or path.startswith(("/livez/", "/readyz/", "/healthz/")):
            return self._answer_open(path)
        user = self._authenticator.user(request.headers.get("Authorization"))
        user = impersonated(user, request.headers, self._authorizer)
        resource_path = parse_resource_path(path)
        if resource_path is not None and resource_path.group in REVIEWS:
            return await self._answer_review(request, resource_path, user)
        if resource_path is not None:
            return await self._endpoints.answer(request, resource_path, user)
        if path.startswith("/openapi/"):
            return self._answer_open_api(request, path)
        return self._answer_discovery(request, path)

    async def _answer_review(self, request: web.BaseRequest, path: ResourcePath, user: UserInfo) -> web.Response:
        kinds = {plural: kind for plural, kind, _ in REVIEWS[path.group]}
        if path.plural not in kinds or path.version != "v1" or path.name:
            raise no_such_resource()
        if request.method != "POST":
            raise method_not_allowed()
        kind = kinds[path.plural]
        body = {**await read_object(request, self.settings), "apiVersion": f"{path.group}/v1", "kind": kind}
        return json_response(self._reviewer.review(kind, body, user), status=201)

    def _answer_open(self, path: str) -> web.Response:
        if path == "/version":
            return json_response(version())
        return web.Response(text="ok")

    def _answer_open_api(self, request: web.BaseRequest, path: str) -> web.Response:
        parts = path.strip("/").split("/")[1:]
        accept = request.headers.get("Accept")
        if parts == ["v2"] and accept == V2_PROTOBUF:
            # In answers, the type has a point for the at sign.
            return web.Response(body=self._open_api.v2_in_protobuf(), content_type=V2_PROTOBUF.replace("@", "."))
        negotiate(accept, ())
        document: bytes | Json | None = None
        if parts == ["v2"]:
            document = self._open_api.v2()
        elif parts == ["v3"]:
            document = self._open_api.index()
        elif parts[:2] == ["v3", "api"] and len(parts) == 3:
            document = self._open_api.v3("", parts[2])
        elif parts[:2] == ["v3", "apis"] and len(parts) == 4:
            document = self._open_api.v3(parts[2], parts[3])
        if document is None:
            raise no_such_resource()
        return json_response(document)

    def _answer_discovery(self, request: web.BaseRequest, path: str) -> web.Response:
        parts = [part for part in path.split("/") if part]
        accept = request.headers.get("Accept", "")
        body: Json | None = None
        if parts in (["api"], ["apis"]):
            return self._answer_groups(core=parts == ["api"], accept=accept)
        if parts[:1] == ["api"] and len(parts) == 2 and parts[1] == "v1":
            body = self._discovery.resources("", "v1")
        elif parts[:1] == ["apis"] and len(parts) == 2:
            body = self._discovery.group(parts[1])
        elif parts[:1] == ["apis"] and len(parts) == 3:
            body = self._discovery.resources(parts[1], parts[2])
        elif not parts:
            body = {
                "paths": [
                    "/api",
                    "/api/v1",
                    "/apis",
                    "/healthz",
                    "/livez",
                    "/openapi/v2",
                    "/openapi/v3",
                    "/readyz",
                    "/version",
                ]
            }
        if body is None:
            raise no_such_resource()
        return json_response(body, yaml_form=negotiate(accept, ()).yaml)

    def _answer_groups(self, *, core: bool, accept: str) -> web.Response:
        for media, parameters in parse_accept(accept):
            if media == "application/json" and parameters.get("as") == "APIGroupDiscoveryList":
                wanted = parameters.get("v", "v2")
                if wanted in ("v2", "v2beta1"):
                    content_type = f"application/json;g=apidiscovery.k8s.io;v={wanted};as=APIGroupDiscoveryList"
                    return json_response(
                        self._discovery.aggregated(wanted, core=core),
                        content_type=content_type,
                        headers={"Vary": "Accept"},
                    )
            elif media in ("application/json", "*/*"):
                break
        address = f"{self.settings.host}:{self.port}"
        return json_response(self._discovery.core_versions(address) if core else self._discovery.groups())


async def start_api_server(settings: ApiServerSettings) -> ApiServer:
    """A server that answers requests, with its objects loaded."""
    server = ApiServer(settings)
    await server.start()
    return server
