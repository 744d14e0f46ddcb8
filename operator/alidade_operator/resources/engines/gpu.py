"""What the pods of servers on GPUs have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alidade_crds.modelserve import DEFAULT_TOTAL_TOKENS
from alidade_crds.uris import parse_uri
from alidade_operator.resources.access import access
from alidade_operator.resources.engines.server import (
    SERVER_PORT,
    EnginePod,
    Server,
    environment,
    path_in_pod,
    probe,
    read_volumes,
)
from alidade_operator.resources.observation import SERVER_CONTAINER
from alidade_operator.resources.trainingpod import CONTAINER_SECURITY, SCRATCH_FOLDER, worker_resources

DRAIN_TIMEOUT_S = 50
"""After SIGTERM: how long what was begun may take to end."""
# Before SIGTERM: these servers take nothing new after it, and load balancers need some seconds to notice.
_NOTICE_S = 5
_GRACE_S = _NOTICE_S + DRAIN_TIMEOUT_S + 5
_READINESS_PERIOD_S = 2
_LIVENESS_PERIOD_S = 10
# Nothing answers before the weights are on the GPUs and the kernels compiled: half an hour is for hundreds of gigabytes
# from a network volume.
_STARTUP_PERIOD_S = 5
_STARTUP_FAILURES = 360

_HOME = {
    "HOME": SCRATCH_FOLDER,
    "HF_HOME": f"{SCRATCH_FOLDER}/hf",
    "XDG_CACHE_HOME": f"{SCRATCH_FOLDER}/cache",
    "TRITON_CACHE_DIR": f"{SCRATCH_FOLDER}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{SCRATCH_FOLDER}/inductor",
    # The images know no user of the pod's number, and torch's compiler asks for the name.
    "USER": "alidade",
}


@dataclass(frozen=True)
class Program:
    """What runs in the container.

    env: beside what every server on GPUs is told. script: a shell script that runs the command, "$@", with more; empty
    where that is run as it is.
    """

    image: str
    command: tuple[str, ...]
    flags: Sequence[str]
    env: dict[str, str]
    script: str = ""


def gpu_pod(server: Server, program: Program) -> EnginePod:
    """The pod of a server on GPUs."""
    read, mounted = read_volumes(server)
    outside = access(server.spec.compute, server.pool, server.config)
    volumes: list[dict[str, Any]] = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
        # The processes of one server, one for each GPU, exchange what they compute there.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": server.pool.shm_size}},
        *read,
        *outside.volumes,
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "scratch", "mountPath": SCRATCH_FOLDER},
        {"name": "tmp", "mountPath": "/tmp"},
        {"name": "shm", "mountPath": "/dev/shm"},
        *mounted,
    ]
    container = _container(server, program) | {"volumeMounts": mounts}
    return EnginePod(outside.given_to(container), _GRACE_S, volumes)


def model_flags(server: Server) -> tuple[str, str | None]:
    """What the server calls its model, a folder or a repository of the hub, and the hub's revision."""
    location = parse_uri(server.model.uri)
    if location.scheme == "hf":
        return location.root, location.revision
    return path_in_pod(location), None


def token_limits(server: Server) -> tuple[int, int]:
    """The longest prompt, and the longest prompt with its answer, for engines that have to be told."""
    limits = server.spec.limits
    longest = limits.max_total_tokens or DEFAULT_TOTAL_TOKENS
    return limits.max_input_tokens or longest // 2, longest


def _container(server: Server, program: Program) -> dict[str, Any]:
    compute, pool = server.spec.compute, server.pool
    told = _HOME | program.env
    if parse_uri(server.model.uri).scheme != "hf":
        told |= {"HF_HUB_OFFLINE": "1"}
    command = list(program.command)
    if program.script:
        command = ["/bin/sh", "-ec", program.script, "sh", *command]
    return {
        "name": SERVER_CONTAINER,
        "image": compute.image or program.image,
        "command": [*command, *program.flags],
        "env": environment(told, pool),
        "ports": [{"name": "http", "containerPort": SERVER_PORT}],
        "startupProbe": probe("/health", period_s=_STARTUP_PERIOD_S, failures=_STARTUP_FAILURES),
        "readinessProbe": probe("/health", period_s=_READINESS_PERIOD_S, failures=2),
        "livenessProbe": probe("/health", period_s=_LIVENESS_PERIOD_S, failures=6),
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_NOTICE_S)]}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": dict(CONTAINER_SECURITY),
        "resources": worker_resources(compute, pool),
    }
