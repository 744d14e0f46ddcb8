"""What is to serve, and what an engine makes of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from alidade_crds import contract
from alidade_crds.modelserve import ModelServeSpec
from alidade_crds.uris import Location, parse_uri
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.trainingpod import VOLUMES_FOLDER

EMBEDDED = "embedded"
VLLM = "vllm"
TGI = "tgi"

SERVER_PORT = 8080
KEYS_FOLDER = "/etc/alidade/keys"
ADAPTERS_FOLDER = "/etc/alidade/adapters"
ADAPTERS_FILE = "list"
"""In ADAPTERS_FOLDER: `NAME=FOLDER` of each adapter, one a line."""

METRICS_PATH = "/metrics"
QUEUE_METRICS = {EMBEDDED: "tgi_queue_size", VLLM: "vllm:num_requests_waiting", TGI: "tgi_queue_size"}
"""By engine: the gauge of requests that wait."""


@dataclass(frozen=True)
class ServedModel:
    """A model that can be served: a folder in Hugging Face format or a GGUF file. digest: of its files, if known."""

    uri: str
    digest: str | None = None


@dataclass(frozen=True)
class AdapterPlace:
    """A LoRA adapter that is served beside the model. rank: of its matrices; digest: of what it was made with, the
    model that has it merged in. Both if known."""

    name: str
    uri: str
    rank: int | None = None
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
    adapters: tuple[AdapterPlace, ...] = ()
    made_anew: str = ""
    """Where adapters are loaded while the server runs: what changes when one is made anew at its place."""


@dataclass(frozen=True)
class EnginePod:
    """The pod of an engine: its one container, the volumes that this mounts, and how long it may take to end."""

    container: dict[str, Any]
    grace_s: int
    volumes: list[dict[str, Any]] = field(default_factory=list)


def loads_while_running(server: Server) -> bool:
    """Whether adapters come and go while the server runs.

    vLLM can, for all who reach it, and so without keys only. Not with canaries: two models do not share adapters.
    """
    has_canaries = 0 < server.spec.rollout.canary_percent < 100
    may = server.config.runtime_adapters and server.spec.auth is None and not has_canaries
    return may and server.engine == VLLM and bool(server.adapters)


def adapters_name(serve: str) -> str:
    """Name of the ConfigMap of a ModelServe's adapters."""
    return f"{serve}-adapters"


def path_in_pod(location: Location) -> str:
    """Where a pod sees what lies on a volume, or on the local cluster's disk."""
    if location.scheme == "file":
        return f"/{location.path.lstrip('/')}"
    folder = f"{VOLUMES_FOLDER}/{location.root}"
    return f"{folder}/{location.path}" if location.path else folder


def read_volumes(server: Server) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes, and their mounts: what is read, the model, its adapters and the keys."""
    volumes: list[dict[str, Any]] = []
    mounts: list[dict[str, Any]] = []
    for index, claim in enumerate(dict.fromkeys(_claims(server))):
        # Named by place and not by claim: a claim's name may be longer than a volume's.
        name = "model" if claim == parse_uri(server.model.uri).root else f"adapters-{index}"
        volumes.append({"name": name, "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": name, "mountPath": f"{VOLUMES_FOLDER}/{claim}", "readOnly": True})
    if loads_while_running(server):
        volumes.append({"name": "adapters", "configMap": {"name": adapters_name(server.name)}})
        mounts.append({"name": "adapters", "mountPath": ADAPTERS_FOLDER, "readOnly": True})
    if server.spec.auth is not None:
        volumes.append({"name": "keys", "secret": {"secretName": server.spec.auth.secret_name}})
        mounts.append({"name": "keys", "mountPath": KEYS_FOLDER, "readOnly": True})
    return volumes, mounts


def _claims(server: Server) -> Iterator[str]:
    for uri in (server.model.uri, *(adapter.uri for adapter in server.adapters)):
        location = parse_uri(uri)
        if location.scheme == "pvc":
            yield location.root


def adapter_paths(server: Server) -> list[str]:
    """`NAME=FOLDER` of each adapter."""
    return [f"{one.name}={path_in_pod(parse_uri(one.uri))}" for one in server.adapters]


def environment(told: dict[str, str], pool: NodePool) -> list[dict[str, Any]]:
    """The container's environment: what it is told, its address, and the pool's, which wins."""
    own: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in told.items()]
    own.append({"name": contract.POD_IP_ENV, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    replaced = {item.get("name") for item in pool.env}
    return [item for item in own if item["name"] not in replaced] + [dict(item) for item in pool.env]


def probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    """A probe of the container's port `http`."""
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
