"""The pod of the embedded server."""

from typing import Any

from alidade_crds import contract
from alidade_crds.uris import Location, parse_uri
from alidade_operator.config import NodePool
from alidade_operator.resources.engines.server import KEYS_FOLDER, SERVER_PORT, EnginePod, Server, probe
from alidade_operator.resources.observation import SERVER_CONTAINER
from alidade_operator.resources.trainingpod import (
    CONTAINER_SECURITY,
    SCRATCH_FOLDER,
    VOLUMES_FOLDER,
    worker_resources,
)

# Requests that generate at once share the processor; more than these lengthen every answer for little throughput.
_MOST_SLOTS = 8
# After SIGTERM the server still takes what load balancers send until they have all heard of it, then ends what it has
# begun. Pods are killed when the grace period is over.
_DRAIN_DELAY_S = 5
_DRAIN_TIMEOUT_S = 50
_GRACE_S = 60
_READINESS_PERIOD_S = 2
# A server that has no token for two minutes while it generates calls itself dead.
_LIVENESS_PERIOD_S = 10


def embedded_pod(server: Server) -> EnginePod:
    """The pod of `alidade-serve`."""
    location = parse_uri(server.model.uri)
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [
        {"name": "scratch", "mountPath": SCRATCH_FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if location.scheme == "pvc":
        volumes.append({"name": "model", "persistentVolumeClaim": {"claimName": location.root}})
        mounts.append({"name": "model", "mountPath": f"{VOLUMES_FOLDER}/{location.root}", "readOnly": True})
    if server.spec.auth is not None:
        volumes.append({"name": "keys", "secret": {"secretName": server.spec.auth.secret_name}})
        mounts.append({"name": "keys", "mountPath": KEYS_FOLDER, "readOnly": True})
    return EnginePod(_container(server, location) | {"volumeMounts": mounts}, _GRACE_S, volumes)


def _container(server: Server, location: Location) -> dict[str, Any]:
    compute, pool = server.spec.compute, server.pool
    container: dict[str, Any] = {
        "name": SERVER_CONTAINER,
        "image": compute.image or server.config.serving_image,
        "command": ["alidade-serve", *_flags(server, location)],
        "env": _environment(pool),
        "ports": [{"name": "http", "containerPort": SERVER_PORT}],
        "readinessProbe": probe("/health", period_s=_READINESS_PERIOD_S, failures=2),
        "livenessProbe": probe("/livez", period_s=_LIVENESS_PERIOD_S, failures=6),
        # What it says when it ends by itself is its log's last line.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": dict(CONTAINER_SECURITY),
    }
    resources = worker_resources(compute, pool)
    return container | ({"resources": resources} if resources else {})


def _flags(server: Server, location: Location) -> list[str]:
    limits = server.spec.limits
    folder = f"/{location.path.lstrip('/')}" if location.scheme == "file" else f"{VOLUMES_FOLDER}/{location.root}"
    path = folder if location.scheme == "file" or not location.path else f"{folder}/{location.path}"
    flags = [
        f"--model={path}",
        f"--name={server.name}",
        f"--host=$({contract.POD_IP_ENV})",
        f"--port={SERVER_PORT}",
        f"--cache={SCRATCH_FOLDER}/gguf",
        f"--slots={min(_MOST_SLOTS, limits.max_concurrent_requests)}",
        f"--max-input-tokens={limits.max_input_tokens}",
        f"--max-total-tokens={limits.max_total_tokens}",
        f"--max-concurrent-requests={limits.max_concurrent_requests}",
        f"--drain-delay-s={_DRAIN_DELAY_S}",
        f"--drain-timeout-s={_DRAIN_TIMEOUT_S}",
    ]
    return flags + ([f"--keys-from={KEYS_FOLDER}"] if server.spec.auth is not None else [])


def _environment(pool: NodePool) -> list[dict[str, Any]]:
    # Not TMPDIR: the engine's socket lies in the folder for temporary files, and a socket's path must be short.
    told = {"HOME": SCRATCH_FOLDER, "HF_HOME": f"{SCRATCH_FOLDER}/hf", "HF_HUB_OFFLINE": "1"}
    environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in told.items()]
    environment.append({"name": contract.POD_IP_ENV, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    replaced = {item.get("name") for item in pool.env}
    return [item for item in environment if item["name"] not in replaced] + [dict(item) for item in pool.env]
