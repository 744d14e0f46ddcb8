"""From start to end of a process that serves: until SIGTERM, and then without cutting an answer short."""

import asyncio
import logging
import signal
from typing import Protocol

from aiohttp import web

_log = logging.getLogger("alidade_serving")

# For the last of an answer to be written once it is there; then connections are closed.
_HAND_OVER_S = 2.0


class Drainable(Protocol):
    """What can be asked to end."""

    def unready(self) -> None:
        """Asks load balancers to go elsewhere, while requests are still taken."""

    def refuse(self) -> None:
        """Takes no more requests; those that were taken go on."""

    async def idle(self) -> None:
        """Returns when no request is being served and none waits."""


def stop_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def application_runner(application: web.Application) -> web.AppRunner:
    """A client that leaves ends what is done for it, also when it does not stream."""
    return web.AppRunner(
        application,
        handler_cancellation=True,
        access_log=None,
        keepalive_timeout=75,
        shutdown_timeout=_HAND_OVER_S,
    )


async def drain(service: Drainable, listening: asyncio.Server, *, delay_s: float, timeout_s: float) -> None:
    """Unready first, so that no one is sent here; then nothing new; then what was begun ends, within its time."""
    _log.info("draining")
    service.unready()
    await asyncio.sleep(delay_s)
    service.refuse()
    listening.close()
    try:
        await asyncio.wait_for(service.idle(), timeout_s)
    except TimeoutError:
        _log.warning("answers were cut short after %g seconds", timeout_s)
