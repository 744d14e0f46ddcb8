"""Between the operator and its API server: passes everything on, and lets a fault do its worst on the way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import yaml
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector, web

from alidade_operator.api import Connection
from tests.ports import free_port

WRITES = ("POST", "PATCH", "PUT", "DELETE")


class Disturbance:
    """What can go wrong with calls; by default nothing does. chance: whose throws decide when."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.struck = 0

    def count(self) -> int:
        """How many times it has done something."""
        return self.struck

    def strikes(self, probability: float) -> bool:
        """Whether it is to do something now, which is counted."""
        hit = self.chance.random() < probability
        self.struck += hit
        return hit

    async def before(self, request: web.Request) -> web.StreamResponse | None:
        """An answer in place of the API server's, which then never hears of the call."""
        del request
        return None

    async def after(self, request: web.Request) -> web.StreamResponse | None:
        """An answer in place of the one that the API server has given to a call that it has carried out."""
        del request
        return None

    def listed(self, request: web.Request, content: bytes) -> bytes:
        """What a listing shows."""
        del request
        return content

    async def told(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """The lines of a watch, as they arrive."""
        async for event in events:
            yield event


def refusal(code: int, reason: str, **headers: str) -> web.Response:
    """An error as the API server words it."""
    status = {
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": f"a fault was injected: {reason}",
    }  # fmt: skip
    return web.json_response(status, status=code, headers=headers)


def error_event(code: int, reason: str) -> bytes:
    """The last line of a watch that fails."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": ""}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"


def cut(request: web.Request) -> web.Response:
    """Ends the connection as a crash of the other side does; what is returned arrives nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def is_watch(request: web.Request) -> bool:
    """Whether the answer is a stream of events."""
    return request.query.get("watch") in ("true", "1")


def is_listing(request: web.Request) -> bool:
    """Whether a whole kind is read: a path that ends with a plural, outside discovery."""
    parts = request.path.strip("/").split("/")
    depth = len(parts) - (2 if parts[0] == "api" else 3)
    return request.method == "GET" and not is_watch(request) and depth in (1, 3) and "namespaces" not in parts[-1:]


def write_kubeconfig(path: Path, server: str, token: str) -> None:
    """The way to a server."""
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{"name": "proxy", "cluster": {"server": server}}],
        "users": [{"name": "proxy", "user": {"token": token}}],
        "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
    }  # fmt: skip
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


class Proxy:
    """A server on loopback that speaks for an API server. writes: calls that change something, since the start."""

    def __init__(self) -> None:
        self.fault: Disturbance = Disturbance(random.Random(0))
        self.writes: list[str] = []
        self._token = secrets.token_urlsafe()
        self._streams: list[web.Request] = []

    async def start(self, upstream: Connection, kubeconfig: Path) -> None:
        """Begins to serve, with the credentials of `upstream`; kubeconfig: is written."""
        self._upstream = upstream
        timeout = ClientTimeout(total=None, sock_connect=5)
        self._session = ClientSession(
            connector=TCPConnector(ssl=upstream.ssl, limit=0), timeout=timeout, read_bufsize=2**20
        )
        app = web.Application(client_max_size=4 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        await asyncio.to_thread(write_kubeconfig, kubeconfig, f"http://127.0.0.1:{port}", self._token)

    async def stop(self) -> None:
        """Ends the server and its connections."""
        self.end_watches()
        await self._runner.cleanup()
        await self._session.close()

    def end_watches(self) -> None:
        """Cuts every watch, so that a fault begins and ends with watches of its own."""
        for request in self._streams:
            cut(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self._token}":  # others of this machine
            return refusal(401, "Unauthorized")
        fault = self.fault
        instead = await fault.before(request)
        if instead is not None:
            return instead
        headers = {name: request.headers[name] for name in ("Accept", "Content-Type") if name in request.headers}
        headers |= self._upstream.headers
        url = self._upstream.server + request.path_qs
        try:
            body = await request.read()
            async with self._session.request(
                request.method, url, headers=headers, data=body or None, proxy=self._upstream.proxy
            ) as response:
                if is_watch(request) and response.status == 200:
                    return await self._stream(request, response, fault)
                content = await response.read()
        except (ClientError, OSError):
            return cut(request)
        if request.method in WRITES:
            self.writes.append(f"{request.method} {request.path}")
            instead = await fault.after(request)
            if instead is not None:
                return instead
        elif is_listing(request) and response.status == 200:
            content = fault.listed(request, content)
        told = {name: response.headers[name] for name in ("Content-Type", "Retry-After") if name in response.headers}
        return web.Response(status=response.status, body=content, headers=told)

    async def _stream(self, request: web.Request, response: ClientResponse, fault: Disturbance) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        self._streams.append(request)
        try:
            async with contextlib.aclosing(fault.told(aiter(response.content))) as events:
                async for event in events:
                    await stream.write(event)
        finally:
            self._streams.remove(request)
        return stream


# What can go wrong


class Refusing(Disturbance):
    """Calls are answered with an error; some of those that change something, after they have been carried out."""

    def __init__(self, chance: random.Random, code: int, reason: str, *, probability: float = 0.2) -> None:
        super().__init__(chance)
        self._code, self._reason, self._probability = code, reason, probability

    async def before(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        if not self._concerns(request) or not self.strikes(self._probability):
            return None
        return self._refusal()

    async def after(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says; of a conflict, or of too many requests, the API server has carried out nothing."""
        del request
        return self._refusal() if self._code == 500 and self.strikes(self._probability) else None

    def _concerns(self, request: web.Request) -> bool:
        return request.method in WRITES if self._code == 409 else True

    def _refusal(self) -> web.Response:
        return refusal(self._code, self._reason, **({"Retry-After": "1"} if self._code == 429 else {}))


class Expired(Disturbance):
    """Resource versions are too old: watches end with an event that says so, and pages of listings are answered 410."""

    async def before(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        return refusal(410, "Expired") if "continue" in request.query and self.strikes(0.3) else None

    async def told(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """As the base says."""
        async for event in events:
            if self.strikes(0.2):
                yield error_event(410, "Expired")
                return
            yield event


class Refused(Disturbance):
    """Some watches are answered with an error, or end with an event that tells of one, that clients do not expect."""

    MOST = 2
    """In a run."""

    async def before(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        strikes = is_watch(request) and self.struck < self.MOST and self.strikes(0.1)
        return refusal(410, "Expired") if strikes else None

    async def told(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """As the base says."""
        async for event in events:
            if self.struck < self.MOST and self.strikes(0.1):
                yield error_event(500, "InternalError")
                return
            yield event


class Silent(Disturbance):
    """Some calls are never answered, before or after they have been carried out: the operator has to give up."""

    MOST = 2
    """In a run: each costs the operator's 30 s."""

    async def before(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        return await self._hang(0.05) if not is_watch(request) else None

    async def after(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        del request
        return await self._hang(0.1)

    async def _hang(self, probability: float) -> web.StreamResponse | None:
        if self.struck < self.MOST and self.strikes(probability):
            await asyncio.Event().wait()  # until the caller leaves
        return None


class Cutting(Disturbance):
    """Connections break: before a call is heard, after it has been carried out, and in the middle of watches."""

    async def before(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        return cut(request) if self.strikes(0.1) else None

    async def after(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        return cut(request) if self.strikes(0.2) else None

    async def told(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """As the base says: half a line, and no more."""
        async for event in events:
            if self.strikes(0.1):
                yield event[: len(event) // 2]
                raise ConnectionResetError("a fault was injected")
            yield event


class Slow(Disturbance):
    """Events of watches come late, each up to two seconds."""

    async def told(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """As the base says."""
        async for event in events:
            if self.strikes(0.5):
                await asyncio.sleep(self.chance.uniform(0, 2))
            yield event


class Repeating(Disturbance):
    """Events of watches come several times."""

    async def told(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """As the base says: at once, and again when others have come."""
        seen: list[bytes] = []
        async for event in events:
            yield event
            seen.append(event)
            if self.strikes(0.5):
                yield self.chance.choice(seen[-10:])


class Shuffling(Disturbance):
    """Events that come within a third of a second come in any order."""

    async def told(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """As the base says."""
        arrived: asyncio.Queue[bytes | None] = asyncio.Queue()

        async def take() -> None:
            async for event in events:
                arrived.put_nowait(event)
            arrived.put_nowait(None)

        taking = asyncio.create_task(take())
        try:
            while (first := await arrived.get()) is not None:
                await asyncio.sleep(0.3)
                held = [first]
                while not arrived.empty():
                    held.append(arrived.get_nowait() or b"")
                self.struck += len(held) > 1
                self.chance.shuffle(held)
                for event in held:
                    yield event
                if b"" in held:
                    return
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)


class Stale(Disturbance):
    """Listings come from a server that lags behind: what was listed first is listed again and again."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self._first: dict[str, bytes] = {}

    def listed(self, request: web.Request, content: bytes) -> bytes:
        """As the base says."""
        first = self._first.setdefault(request.path_qs, content)
        return first if self.strikes(0.7) else content


class Several(Disturbance):
    """Some disturbances at once."""

    def __init__(self, chance: random.Random, parts: list[Disturbance]) -> None:
        super().__init__(chance)
        self._parts = parts

    def count(self) -> int:
        """As the base says."""
        return sum(part.count() for part in self._parts)

    async def before(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        for part in self._parts:
            instead = await part.before(request)
            if instead is not None:
                return instead
        return None

    async def after(self, request: web.Request) -> web.StreamResponse | None:
        """As the base says."""
        for part in self._parts:
            instead = await part.after(request)
            if instead is not None:
                return instead
        return None

    def listed(self, request: web.Request, content: bytes) -> bytes:
        """As the base says."""
        for part in self._parts:
            content = part.listed(request, content)
        return content

    def told(self, events: AsyncIterator[bytes]) -> AsyncGenerator[bytes]:
        """As the base says."""
        first, *others = self._parts
        stream = first.told(events)
        for part in others:
            stream = part.told(stream)
        return stream
