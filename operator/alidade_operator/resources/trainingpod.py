"""The pod of a job: what its program is told, under the restricted Pod Security Standard."""

from dataclasses import dataclass
from typing import Any

from alidade_crds import contract
from alidade_crds.blocks import Compute
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.access import access
from alidade_operator.resources.placement import placement

JOB_FOLDER = "/etc/alidade/job"
JOB_KEY = "job.json"
VOLUMES_FOLDER = "/volumes"
SCRATCH_FOLDER = "/scratch"
TERMINATION_LOG = "/dev/termination-log"
PROGRESS_PORT = 8080
_CACHE_FOLDER = ".alidade-cache"


@dataclass(frozen=True)
class Program:
    """What runs in a pod. container: its name. image: where the spec names none. env: beside what every job is told."""

    container: str
    command: tuple[str, ...]
    image: str
    env: tuple[dict[str, Any], ...] = ()


def trainer(config: OperatorConfig, container: str) -> Program:
    """The trainer. container: the name by which what runs the job looks for it."""
    return Program(container, ("alidade-trainer", "run"), config.trainer_image)


@dataclass(frozen=True)
class Mounts:
    """What a job reads and writes outside its pod."""

    document: str
    """ConfigMap of the job document."""
    claims: tuple[str, ...] = ()
    config_maps: tuple[str, ...] = ()
    cache: str | None = None
    """The claim, of those, that keeps what is fetched from elsewhere."""
    environment: tuple[dict[str, Any], ...] = ()
    """Variables of the container with which it is let in elsewhere."""


def pod_spec(
    program: Program, *, mounts: Mounts, compute: Compute, pool: NodePool, config: OperatorConfig
) -> dict[str, Any]:
    """The pod template's spec; restart policy and rendezvous are for the workload to add."""
    outside = access(compute, pool, config)
    container = _container(program, mounts=mounts, compute=compute, pool=pool)
    return pod_around(
        outside.given_to(container),
        [*_volumes(mounts, pool), *outside.volumes],
        compute=compute,
        pool=pool,
        config=config,
        grace_s=pool.termination_grace_s or config.termination_grace_s,
    )


CONTAINER_SECURITY: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
"""What the restricted Pod Security Standard asks of a container, and a root that nothing can be written to."""


def pod_around(
    container: dict[str, Any],
    volumes: list[dict[str, Any]],
    *,
    compute: Compute,
    pool: NodePool,
    config: OperatorConfig,
    grace_s: int,
) -> dict[str, Any]:
    """The spec of a pod of one container, where its node pool wants it, under the restricted Pod Security Standard."""
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": config.run_as_user,
            "runAsGroup": config.run_as_user,
            "fsGroup": config.run_as_user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    spec |= placement(compute, pool)
    if pool.service_account_name:
        spec["serviceAccountName"] = pool.service_account_name
    if config.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    return spec


def _container(program: Program, *, mounts: Mounts, compute: Compute, pool: NodePool) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": program.container,
        "image": compute.image or program.image,
        "command": list(program.command),
        "env": [*_environment(pool, mounts), *program.env],
        "ports": [{"name": "metrics", "containerPort": PROGRESS_PORT}],
        "volumeMounts": _volume_mounts(mounts),
        "terminationMessagePath": TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "securityContext": dict(CONTAINER_SECURITY),
    }
    resources = worker_resources(compute, pool)
    if resources:
        container["resources"] = resources
    return container


def worker_resources(compute: Compute, pool: NodePool) -> dict[str, dict[str, str]]:
    """Requests and limits of a worker: CPU is requested, memory, GPUs and what several workers share are also the
    limit."""
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    cpu, memory = compute.cpu or pool.cpu, compute.memory or pool.memory
    if cpu:
        requests["cpu"] = cpu
    if memory:
        requests["memory"] = limits["memory"] = memory
    if compute.gpus_per_worker:
        requests[pool.gpu_resource] = limits[pool.gpu_resource] = str(compute.gpus_per_worker)
    if compute.workers > 1:
        requests |= pool.extra_resources
        limits |= pool.extra_resources
    return {name: values for name, values in (("requests", requests), ("limits", limits)) if values}


def _environment(pool: NodePool, mounts: Mounts) -> list[dict[str, Any]]:
    cache = f"{VOLUMES_FOLDER}/{mounts.cache}/{_CACHE_FOLDER}" if mounts.cache is not None else None
    told = {
        contract.JOB_ENV: f"{JOB_FOLDER}/{JOB_KEY}",
        contract.VOLUMES_ENV: VOLUMES_FOLDER,
        contract.SCRATCH_ENV: SCRATCH_FOLDER,
        contract.TERMINATION_LOG_ENV: TERMINATION_LOG,
        contract.PORT_ENV: str(PROGRESS_PORT),
        "HOME": SCRATCH_FOLDER,
        "HF_HOME": f"{cache or SCRATCH_FOLDER}/hf",
        **({contract.CACHE_ENV: cache} if cache is not None else {}),
        # A folder that exists: Python falls back to the read-only root from one that does not.
        "TMPDIR": SCRATCH_FOLDER,
        "TRITON_CACHE_DIR": f"{SCRATCH_FOLDER}/triton",
        "TORCH_EXTENSIONS_DIR": f"{SCRATCH_FOLDER}/torch_extensions",
        "TORCHINDUCTOR_CACHE_DIR": f"{SCRATCH_FOLDER}/inductor",
        # Images need not know the pod's user by name, for which torch's compiler asks.
        "USER": "alidade",
    }
    environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in told.items()]
    environment += mounts.environment
    environment.append({"name": contract.POD_IP_ENV, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    # The pool's come last and win: they are the administrator's word about their nodes.
    replaced = {item.get("name") for item in pool.env}
    return [item for item in environment if item["name"] not in replaced] + [dict(item) for item in pool.env]


def _volume_mounts(mounts: Mounts) -> list[dict[str, Any]]:
    return [
        {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
        {"name": "scratch", "mountPath": SCRATCH_FOLDER},
        {"name": "shm", "mountPath": "/dev/shm"},
        *(
            {"name": f"claim-{index}", "mountPath": f"{VOLUMES_FOLDER}/{claim}"}
            for index, claim in enumerate(mounts.claims)
        ),
        *(
            {"name": f"data-{index}", "mountPath": f"{VOLUMES_FOLDER}/configmaps/{name}", "readOnly": True}
            for index, name in enumerate(mounts.config_maps)
        ),
    ]


def _volumes(mounts: Mounts, pool: NodePool) -> list[dict[str, Any]]:
    return [
        {"name": "job", "configMap": {"name": mounts.document}},
        {"name": "scratch", "emptyDir": {}},
        # NCCL and data loader workers share memory there; the runtime's 64 MiB end in exit code -7.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": pool.shm_size}},
        *(
            {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim}}
            for index, claim in enumerate(mounts.claims)
        ),
        *({"name": f"data-{index}", "configMap": {"name": name}} for index, name in enumerate(mounts.config_maps)),
    ]
