"""`alidade-gateway`: one address before a served model's replicas, until it is told to end."""

import logging
import os
import resource
import sys
from collections.abc import Callable, Sequence

import uvloop

from alidade_gateway.application import create_application
from alidade_gateway.gateway import GATEWAY
from alidade_gateway.settings import Settings, read_settings
from alidade_serving.front.ending import application_runner, drain, stop_signal
from alidade_serving.front.lines import write_lines
from alidade_serving.front.listening import address_of, listen


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM. Exit code 1 when it cannot, 2 for settings that do not go together."""
    settings = read_settings(argv, os.environ)
    write_lines()
    _allow_connections()
    log = logging.getLogger("alidade_serving")
    try:
        uvloop.run(serve(settings, lambda address: log.info("listening: %s", address)))
    except (ValueError, OSError) as error:
        print(f"alidade-gateway: {error}", file=sys.stderr)
        return 1
    return 0


async def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. Raises ValueError without keys, OSError when the port is taken.

    announce: told the address as soon as requests are taken.
    """
    stop = stop_signal()
    application = create_application(settings)
    runner = application_runner(application)
    await runner.setup()
    try:
        listening = await listen(runner, settings.host, settings.port, read_timeout_s=settings.read_timeout_s)
        announce(address_of(listening))
        await stop.wait()
        await drain(application[GATEWAY], listening, delay_s=settings.drain_delay_s, timeout_s=settings.drain_timeout_s)
    finally:
        await runner.cleanup()


def _allow_connections() -> None:
    """Each request has two connections; the limit that shells set for programs with few files would be five hundred."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
