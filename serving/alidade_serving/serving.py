"""From start to end of a process: listen, load, serve, and leave without cutting an answer short."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from alidade_serving.application import build_application
from alidade_serving.front.ending import application_runner, drain, stop_signal
from alidade_serving.front.keys import read_keys
from alidade_serving.front.listening import address_of, listen
from alidade_serving.service import Service
from alidade_serving.settings import Settings

_log = logging.getLogger("alidade_serving")


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. Raises what `Service.start` raises, OSError when the port is taken.

    announce: told the address as soon as it listens; probes then learn that the model is not ready yet.
    """
    stop = stop_signal()
    service = Service(settings)
    keys = read_keys(settings.keys_from)
    runner = application_runner(build_application(service, keys))
    await runner.setup()
    listening = await listen(runner, settings.host, settings.port, read_timeout_s=settings.read_timeout_s)
    announce(address_of(listening))
    try:
        if await _started(service, stop):
            _log.info("ready: %s", settings.name)
            await stop.wait()
            await drain(service, listening, delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s)
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
