"""What is to serve, and what an engine makes of it."""

from dataclasses import dataclass, field
from typing import Any

from alidade_crds.modelserve import ModelServeSpec
from alidade_operator.config import NodePool, OperatorConfig

EMBEDDED = "embedded"

SERVER_PORT = 8080
KEYS_FOLDER = "/etc/alidade/keys"


@dataclass(frozen=True)
class ServedModel:
    """A model that can be served: a folder in Hugging Face format or a GGUF file. digest: of its files, if known."""

    uri: str
    digest: str | None = None


@dataclass(frozen=True)
class Server:
    """What is to serve: which ModelServe, what, and where."""

    namespace: str
    name: str
    uid: str
    spec: ModelServeSpec
    model: ServedModel
    pool: NodePool
    config: OperatorConfig
    engine: str = EMBEDDED


@dataclass(frozen=True)
class EnginePod:
    """The pod of an engine: its one container, the volumes that this mounts, and how long it may take to end."""

    container: dict[str, Any]
    grace_s: int
    volumes: list[dict[str, Any]] = field(default_factory=list)


def probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    """A probe of the container's port `http`."""
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
