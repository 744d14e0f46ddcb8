"""The pod of the embedded server."""

from typing import Any

from alidade_crds import contract
from alidade_crds.uris import parse_uri
from alidade_operator.resources.engines.server import (
    KEYS_FOLDER,
    SERVER_PORT,
    EnginePod,
    Server,
    adapter_paths,
    environment,
    path_in_pod,
    probe,
    read_volumes,
)
from alidade_operator.resources.observation import SERVER_CONTAINER
from alidade_operator.resources.trainingpod import (
    CONTAINER_SECURITY,
    SCRATCH_FOLDER,
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
# Not TMPDIR: the engine's socket lies in the folder for temporary files, and a socket's path must be short.
_TOLD = {"HOME": SCRATCH_FOLDER, "HF_HOME": f"{SCRATCH_FOLDER}/hf", "HF_HUB_OFFLINE": "1"}


def embedded_pod(server: Server) -> EnginePod:
    """The pod of `alidade-serve`."""
    read, mounted = read_volumes(server)
    volumes: list[dict[str, Any]] = [{"name": "scratch", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}, *read]
    mounts: list[dict[str, Any]] = [
        {"name": "scratch", "mountPath": SCRATCH_FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},
        *mounted,
    ]
    return EnginePod(_container(server) | {"volumeMounts": mounts}, _GRACE_S, volumes)


def _container(server: Server) -> dict[str, Any]:
    compute, pool = server.spec.compute, server.pool
    container: dict[str, Any] = {
        "name": SERVER_CONTAINER,
        "image": compute.image or server.config.serving_image,
        "command": ["alidade-serve", *_flags(server)],
        "env": environment(_TOLD, pool),
        "ports": [{"name": "http", "containerPort": SERVER_PORT}],
        "readinessProbe": probe("/health", period_s=_READINESS_PERIOD_S, failures=2),
        "livenessProbe": probe("/livez", period_s=_LIVENESS_PERIOD_S, failures=6),
        # What it says when it ends by itself is its log's last line.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": dict(CONTAINER_SECURITY),
    }
    resources = worker_resources(compute, pool)
    return container | ({"resources": resources} if resources else {})


def _flags(server: Server) -> list[str]:
    limits = server.spec.limits
    flags = [
        f"--model={path_in_pod(parse_uri(server.model.uri))}",
        f"--name={server.name}",
        f"--host=$({contract.POD_IP_ENV})",
        f"--port={SERVER_PORT}",
        f"--cache={SCRATCH_FOLDER}/gguf",
        f"--slots={min(_MOST_SLOTS, limits.max_concurrent_requests)}",
        # 0 leaves them to the server, which knows the model's context.
        f"--max-input-tokens={limits.max_input_tokens or 0}",
        f"--max-total-tokens={limits.max_total_tokens or 0}",
        f"--max-concurrent-requests={limits.max_concurrent_requests}",
        f"--drain-delay-s={_DRAIN_DELAY_S}",
        f"--drain-timeout-s={_DRAIN_TIMEOUT_S}",
    ]
    if server.adapters:
        flags.append(f"--adapters={','.join(adapter_paths(server))}")
    return flags + ([f"--keys-from={KEYS_FOLDER}"] if server.spec.auth is not None else [])
