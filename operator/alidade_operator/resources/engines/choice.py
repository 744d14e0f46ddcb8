"""Which engine serves, and its pod."""

from alidade_operator.resources.engines.embedded import embedded_pod
from alidade_operator.resources.engines.server import EnginePod, Server


def engine_pod(server: Server) -> EnginePod:
    """The pod of the server's engine."""
    return embedded_pod(server)
