"""From start to end of a process: listen, load, serve, and leave without cutting an answer short."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from aiohttp import web

from alidade_serving.application import SILENT, build_application
from alidade_serving.service import Service
from alidade_serving.settings import Settings, read_keys

_log = logging.getLogger("alidade_serving")

# For the last of an answer to be written once it is generated; then connections are closed.
_HAND_OVER_S = 2.0
# What the kernel keeps for a client that does not read; left alone it grows to 4 MiB for each of them.
_SEND_BUFFER_BYTES = 1 << 17


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. Raises what `Service.start` raises, OSError when the port is taken.

    announce: told the address as soon as it listens; probes then learn that the model is not ready yet.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    service = Service(settings)
    keys = read_keys(settings.keys_from)
    runner = web.AppRunner(
        build_application(service, keys),
        handler_cancellation=True,  # a client that leaves frees its slot, also when it does not stream
        access_log=None,
        keepalive_timeout=75,
        shutdown_timeout=_HAND_OVER_S,
    )
    await runner.setup()
    listening = await _listen(runner, settings)
    host, port = listening.sockets[0].getsockname()[:2]
    announce(f"http://{host}:{port}")
    try:
        if await _started(service, stop):
            _log.info("ready: %s", settings.name)
            await stop.wait()
            await _drain(service, listening, settings)
    finally:
        listening.close()
        await runner.cleanup()
        await service.close()


async def _started(service: Service, stop: asyncio.Event) -> bool:
    """Whether the model was loaded before anyone asked to stop."""
    loading = asyncio.create_task(service.start())
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait([loading, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not loading.done():
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading
        return False
    loading.result()
    return True


async def _drain(service: Service, listening: asyncio.Server, settings: Settings) -> None:
    """Unready first, so that no one is sent here; then nothing new; then what was begun ends, within its time."""
    _log.info("draining")
    service.unready()
    await asyncio.sleep(settings.drain_delay_s)
    service.refuse()
    listening.close()
    try:
        await asyncio.wait_for(service.idle(), settings.drain_timeout_s)
    except TimeoutError:
        _log.warning("answers were cut short after %g seconds", settings.drain_timeout_s)


async def _listen(runner: web.AppRunner, settings: Settings) -> asyncio.Server:
    """aiohttp waits for a connection's first request without end: those that send none are closed here."""
    loop = asyncio.get_running_loop()
    server = runner.server
    assert server is not None
    silent = runner.app[SILENT]

    def hang_up(protocol: web.RequestHandler) -> None:
        del silent[protocol]
        if protocol.transport is not None:
            protocol.transport.abort()

    def connection() -> web.RequestHandler:
        protocol = server()
        silent[protocol] = loop.call_later(settings.read_timeout_s, hang_up, protocol)
        return protocol

    listening = await loop.create_server(connection, settings.host, settings.port, backlog=1024)
    for listener in listening.sockets:  # connections inherit it
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return listening
