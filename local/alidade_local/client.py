"""A thin asynchronous client of the Kubernetes API: what the controllers and the kubelet ask of it, no more."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from alidade_local.objects import Key, Object, key_of
from alidade_local.resources import Resource

# A watch that says nothing for this long is taken for dead; servers send bookmarks about once a minute.
WATCH_SILENCE_S = 150.0
REQUEST_TIMEOUT_S = 30.0
# One line of a watch is one object; the API server refuses objects above 3 MiB.
MAX_LINE_BYTES = 8 * 2**20
TLS_CLOSING_S = 0.05


class ApiError(Exception):
    """The API server's answer was an error; carries the HTTP status and the reason of its Status document."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFoundError(ApiError):
    """The object, or its kind, does not exist."""


class ConflictError(ApiError):
    """The object changed since it was read, or a precondition on its uid failed."""


class AlreadyExistsError(ApiError):
    """An object of that name exists."""


class GoneError(ApiError):
    """The resource version is too old to watch from; list again."""


class UnreachableError(Exception):
    """No answer from the API server: it is down, or the connection broke."""


@dataclass(frozen=True)
class KubeConfig:
    """What is needed to speak to one cluster: server address, certificate authority (PEM), bearer token."""

    server: str
    ca_pem: str
    token: str

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the current context of a kubeconfig file that authenticates with a token."""
        document = yaml.safe_load(path.read_text())
        context = _named(document["contexts"], document["current-context"])["context"]
        cluster = _named(document["clusters"], context["cluster"])["cluster"]
        user = _named(document["users"], context["user"])["user"]
        if "certificate-authority-data" in cluster:
            ca_pem = base64.b64decode(cluster["certificate-authority-data"]).decode()
        else:
            ca_pem = (path.parent / cluster["certificate-authority"]).read_text()
        return cls(server=cluster["server"], ca_pem=ca_pem, token=user["token"])


def _named(entries: list[Object], name: str) -> Object:
    return next(entry for entry in entries if entry["name"] == name)


def _error(status: int, body: bytes) -> ApiError:
    try:
        document = json.loads(body)
        reason, message = document.get("reason", ""), document.get("message", "")
    except ValueError:
        reason, message = "", body[:500].decode(errors="replace")
    if status == 404:
        return NotFoundError(status, reason, message)
    if status == 410:
        return GoneError(status, reason, message)
    if status == 409:
        kind = AlreadyExistsError if reason == "AlreadyExists" else ConflictError
        return kind(status, reason, message)
    return ApiError(status, reason, message)


class ApiClient:
    """One connection pool to one cluster; use it as an asynchronous context manager."""

    def __init__(self, config: KubeConfig, *, user_agent: str = "alidade-local", max_connections: int = 64) -> None:
        self._config = config
        self._user_agent = user_agent
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = ssl.create_default_context(cadata=self._config.ca_pem)
        self._session = aiohttp.ClientSession(
            base_url=self._config.server,
            headers={"Authorization": f"Bearer {self._config.token}", "User-Agent": self._user_agent},
            connector=aiohttp.TCPConnector(ssl=context, limit=self._max_connections),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            read_bufsize=MAX_LINE_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open_session.close()
        # TLS connections are only told to close by this; the loop has to turn for them to do it (aiohttp, "Graceful
        # shutdown").
        await asyncio.sleep(TLS_CLOSING_S)

    @property
    def _open_session(self) -> aiohttp.ClientSession:
        assert self._session is not None, "the client is used outside its context"
        return self._session

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """The JSON answer; raises ApiError for an error status and UnreachableError without an answer."""
        try:
            async with self._open_session.request(
                method,
                path,
                params=dict(query or {}),
                data=None if body is None else json.dumps(body).encode(),
                headers={"Accept": accept} | ({} if body is None else {"Content-Type": content_type}),
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnreachableError(f"{method} {self._config.server}{path}: {error or type(error).__name__}") from error
        if answer.status >= 400:
            raise _error(answer.status, content)
        document: Object = json.loads(content) if content else {}
        return document

    async def get(self, resource: Resource, key: Key) -> Object:
        return await self.request("GET", resource.path(key.namespace, key.name))

    async def find(self, resource: Resource, key: Key) -> Object | None:
        """The object, or None when there is none of that name."""
        try:
            return await self.get(resource, key)
        except NotFoundError:
            return None

    async def list(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> Object:
        """The list document (items, and the resource version to watch from); items carry apiVersion and kind."""
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query = {name: value for name, value in selectors.items() if value}
        document = await self.request("GET", resource.path(namespace), query=query)
        for item in document.get("items") or []:
            item.setdefault("apiVersion", resource.api_version)
            item.setdefault("kind", resource.kind)
        return document

    async def create(self, resource: Resource, document: Object) -> Object:
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **document}
        namespace = body["metadata"].get("namespace", "")
        return await self.request("POST", resource.path(namespace), body=body)

    async def create_subresource(self, resource: Resource, key: Key, subresource: str, body: Object) -> Object:
        return await self.request("POST", resource.path(key.namespace, key.name, subresource), body=body)

    async def update(self, resource: Resource, document: Object) -> Object:
        key = key_of(document)
        return await self.request("PUT", resource.path(key.namespace, key.name), body=document)

    async def update_status(self, resource: Resource, document: Object) -> Object:
        key = key_of(document)
        return await self.request("PUT", resource.path(key.namespace, key.name, "status"), body=document)

    async def patch(self, resource: Resource, key: Key, patch: Object, *, subresource: str = "") -> Object:
        """Apply a JSON merge patch (RFC 7386): null removes a field, lists are replaced whole."""
        return await self.request(
            "PATCH",
            resource.path(key.namespace, key.name, subresource),
            body=patch,
            content_type="application/merge-patch+json",
        )

    async def patch_status(self, resource: Resource, document: Object, status: Object) -> Object:
        """Merge `status` into that of the object as it was read: another object of the same name is a conflict."""
        patch = {"metadata": {"uid": document["metadata"]["uid"]}, "status": status}
        return await self.patch(resource, key_of(document), patch, subresource="status")

    async def apply(self, resource: Resource, document: Object, *, field_manager: str) -> Object:
        """Server-side apply, taking fields over from other managers."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind, **document}
        key = key_of(body)
        return await self.request(
            "PATCH",
            resource.path(key.namespace, key.name),
            body=body,
            content_type="application/apply-patch+yaml",
            query={"fieldManager": field_manager, "force": "true"},
        )

    async def delete(
        self,
        resource: Resource,
        key: Key,
        *,
        uid: str = "",
        grace_period_s: int | None = None,
        propagation: str = "Background",
    ) -> Object | None:
        """Delete the object; one that is gone already, or was replaced by another of its name, is left alone (None).

        Else the answer: the object as it is on its way out, or a Status when it is gone.
        """
        options: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_period_s is not None:
            options["gracePeriodSeconds"] = grace_period_s
        try:
            return await self.request("DELETE", resource.path(key.namespace, key.name), body=options)
        except NotFoundError:
            return None
        except ConflictError:
            if not uid:
                raise
            return None

    async def watch(
        self, resource: Resource, resource_version: str, *, label_selector: str = "", field_selector: str = ""
    ) -> AsyncGenerator[Object, None]:
        """Watch events from a resource version on, until the server ends the stream.

        Raises GoneError when the version is too old, UnreachableError when the connection breaks or goes silent.
        """
        query = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": resource_version}
        selectors = {"labelSelector": label_selector, "fieldSelector": field_selector}
        query |= {name: value for name, value in selectors.items() if value}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_TIMEOUT_S, sock_read=WATCH_SILENCE_S)
        try:
            async with self._open_session.get(resource.path(), params=query, timeout=timeout) as answer:
                if answer.status >= 400:
                    raise _error(answer.status, await answer.read())
                async for line in answer.content:
                    yield _watch_event(json.loads(line))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError(f"watch of {resource.plural}: {error or type(error).__name__}") from error

    async def wait_until_ready(self, timeout_s: float = 30.0) -> None:
        """Return once the API server answers its readiness check."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    async with self._open_session.get("/readyz") as answer:
                        if answer.status == 200:
                            return
                except (aiohttp.ClientError, OSError):
                    pass  # not listening yet: that is what is waited for
                await asyncio.sleep(0.05)


def _watch_event(event: Object) -> Object:
    if event["type"] == "ERROR":
        status = event["object"]
        raise _error(int(status.get("code", 500)), json.dumps(status).encode())
    return event
