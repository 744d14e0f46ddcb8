"""HTTP through the API server to a pod, or to a pod behind a service."""

import random
from collections.abc import Iterator
from typing import Any

import aiohttp
from aiohttp import web

from alidade_local.apiserver.errors import ApiError, bad_request
from alidade_local.apiserver.kinds_services import SERVICES_KEY
from alidade_local.apiserver.rest import Objects, Target
from alidade_local.apiserver.storage import Store

Json = dict[str, Any]

_NOT_PASSED_ON = frozenset(
    (
        *("authorization", "connection", "host", "keep-alive", "proxy-authenticate", "proxy-authorization", "te"),
        *("trailer", "trailers", "transfer-encoding", "upgrade", "content-length"),
    )
)
_CONNECT_TIMEOUT_S = 5.0


def split_name(text: str) -> tuple[str, str, str]:
    """(scheme, name, port) of the `[scheme:]name[:port]` in a proxy path."""
    parts = text.split(":")
    if len(parts) == 3:
        return parts[0] or "http", parts[1], parts[2]
    if len(parts) == 2:
        return "http", parts[0], parts[1]
    if len(parts) == 1:
        return "http", text, ""
    raise bad_request(f"invalid proxy target {text!r}: write [http:]NAME[:PORT]")


def pod_address(pod: Json, port: str) -> tuple[str, int]:
    """Where a pod listens: the port by number or name, or the first one that its containers declare."""
    address = (pod.get("status") or {}).get("podIP")
    if not address:
        raise _unreachable(f"pod {pod['metadata']['name']} has no address yet")
    declared = [item for container in pod["spec"]["containers"] for item in container.get("ports") or ()]
    if port.isdigit():
        return address, int(port)
    for item in declared:
        if not port or item.get("name") == port:
            return address, int(item["containerPort"])
    raise bad_request(f"pod {pod['metadata']['name']} declares no port {port or 'at all'}; name its number")


def service_addresses(store: Store, service: Json, port: str) -> list[tuple[str, int]]:
    """Where the ready pods behind a service listen, in an order of chance."""
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    ports = service["spec"].get("ports") or []
    chosen = next((item for item in ports if not port or port in (item.get("name"), str(item["port"]))), None)
    if chosen is None:
        raise bad_request(f"service {name} has no port {port or 'at all'}")
    endpoints = store.get("endpoints.", namespace, name)
    found = list(_ready_addresses(endpoints.obj if endpoints else {}, chosen.get("name", "")))
    if not found:
        raise _unreachable(f'no endpoints available for service "{name}"')
    random.shuffle(found)
    return found


def _ready_addresses(endpoints: Json, port_name: str) -> Iterator[tuple[str, int]]:
    for subset in endpoints.get("subsets") or ():
        for port in subset.get("ports") or ():
            if port.get("name", "") == port_name:
                for address in subset.get("addresses") or ():
                    yield address["ip"], port["port"]


def _unreachable(why: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", why)


class Proxy:
    """Passes requests on; one connection pool for all of them."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections to pods."""
        if self._session is not None:
            await self._session.close()

    async def answer(self, request: web.BaseRequest, target: Target, path: str) -> web.StreamResponse:
        """What the pod answers to the rest of the path."""
        scheme, name, port = split_name(target.name)
        if scheme != "http":
            raise bad_request(f"the proxy speaks http to pods, not {scheme}")
        stored = self._objects.get(Target(target.resource, target.namespace, name))
        if target.resource.key == SERVICES_KEY:
            places = service_addresses(self._objects.store, stored.obj, port)
        else:
            places = [pod_address(stored.obj, port)]
        query = f"?{request.query_string}" if request.query_string else ""
        refused = ""
        for address, number in places:
            url = f"http://{address}:{number}/{path}{query}"
            try:
                return await self._pass_on(request, url)
            except aiohttp.ClientConnectorError as error:
                refused = f"dial {url}: {error.strerror}"  # nothing of the request was sent: another may have it
        raise _unreachable(f"error trying to reach service: {refused}")

    async def _pass_on(self, request: web.BaseRequest, url: str) -> web.StreamResponse:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        headers = [(name, value) for name, value in request.headers.items() if name.lower() not in _NOT_PASSED_ON]
        data = request.content if request.body_exists else None
        async with self._session.request(
            request.method, url, headers=headers, data=data, allow_redirects=False
        ) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            for name, value in answer.headers.items():
                if name.lower() not in _NOT_PASSED_ON:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response
