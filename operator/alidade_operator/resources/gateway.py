"""The gateway of a ModelServe: a process in front of its replicas, told what to do by its environment alone."""

from dataclasses import dataclass
from typing import Any

from alidade_crds import contract
from alidade_crds.blocks import Compute
from alidade_crds.modelserve import Gateway, ModelServeSpec
from alidade_crds.uris import parse_uri
from alidade_operator.api import DEPLOYMENT, MODEL_SERVE, JsonObject
from alidade_operator.arenas import votes_folder
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.engines.server import KEYS_FOLDER, SERVER_PORT, probe
from alidade_operator.resources.labels import child_labels
from alidade_operator.resources.observation import GATEWAY_CONTAINER
from alidade_operator.resources.placement import apart, pod_annotations
from alidade_operator.resources.serving import (
    CANARY,
    COMPONENT,
    GATEWAY,
    marked,
    name_of,
    selector_labels,
    side_name,
    strategy,
    url,
)
from alidade_operator.resources.trainingpod import CONTAINER_SECURITY, pod_around

TRIAL = "alidade.dev/canary"
"""Annotation of the gateway's pods: what they count a canary of; empty without one."""
STATUS_PATH = "/internal/status"
"""Where it tells what it has seen."""
_VOTES_FOLDER = "/votes"
_PREFIX = "ALIDADE_GATEWAY_"
# As the replicas behind it: new requests are taken until load balancers know, and what has begun is ended.
_DRAIN_DELAY_S = 5
_DRAIN_TIMEOUT_S = 50
_GRACE_S = 60
# A replica that is started for a request loads its model first; from a network volume to a GPU that takes minutes.
_HOLD_FROM_ZERO_S = 300
# It passes bytes on. Memory is for the requests that it holds while no replica answers.
_RESOURCES = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "512Mi"}}
_PROGRESS_DEADLINE_S = 300


@dataclass(frozen=True)
class Against:
    """The other ModelServe of an arena. model: the address of what it serves, once it does."""

    name: str
    model: str | None


@dataclass(frozen=True)
class Door:
    """A gateway as it is to be: whose, and what it is told of both sides. share: percent of the requests that the
    canary gets; 0 without one. trial: which canary that is."""

    namespace: str
    name: str
    uid: str
    spec: ModelServeSpec
    config: OperatorConfig
    stable_model: str
    canary_model: str | None = None
    share: int = 0
    trial: str = ""
    against: Against | None = None

    @property
    def asked(self) -> Gateway:
        """What the spec says of it, or the defaults where it is there for another reason."""
        return self.spec.gateway or Gateway(chat=False)


def needs_gateway(spec: ModelServeSpec) -> bool:
    """Whether the spec asks for what only a gateway does."""
    return spec.gateway is not None or spec.rollout.canary_percent > 0 or scales_to_zero(spec)


def scales_to_zero(spec: ModelServeSpec) -> bool:
    """Whether there may be no replica while nobody asks."""
    return spec.autoscaling is not None and spec.autoscaling.min == 0


def gateway(door: Door) -> JsonObject:
    """The Deployment of the gateway."""
    labels = child_labels(MODEL_SERVE.kind, door.name, GATEWAY)
    annotations = pod_annotations(_pool(door.config)) | {TRIAL: door.trial}
    return marked(
        door.name,
        door.uid,
        {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.kind,
            "metadata": {
                "name": name_of(door.name, GATEWAY),
                "namespace": door.namespace,
                "labels": labels,
                "annotations": {},
            },
            "spec": {
                "replicas": door.asked.replicas,
                "revisionHistoryLimit": 2,
                "progressDeadlineSeconds": _PROGRESS_DEADLINE_S,
                "selector": {"matchLabels": selector_labels(door.name, GATEWAY)},
                "strategy": strategy(surge=True),
                "template": {
                    "metadata": {"labels": labels, "annotations": annotations},
                    "spec": _pod(door),
                },
            },
        },
    )


def _pod(door: Door) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [{"name": "tmp", "mountPath": "/tmp"}]
    if door.spec.auth is not None:
        volumes.append({"name": "keys", "secret": {"secretName": door.spec.auth.secret_name}})
        mounts.append({"name": "keys", "mountPath": KEYS_FOLDER, "readOnly": True})
    if door.asked.arena is not None:
        location = parse_uri(votes_folder(door.name, door.config))
        volumes.append({"name": "votes", "persistentVolumeClaim": {"claimName": location.root}})
        mounts.append({"name": "votes", "mountPath": _VOTES_FOLDER, "subPath": location.path})
    container = {
        "name": GATEWAY_CONTAINER,
        "image": door.config.serving_image,
        "command": ["alidade-gateway"],
        "env": _environment(door),
        "ports": [{"name": "http", "containerPort": SERVER_PORT}],
        "readinessProbe": probe("/readyz", period_s=2, failures=2),
        "livenessProbe": probe("/livez", period_s=10, failures=6),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": dict(CONTAINER_SECURITY),
        "resources": _RESOURCES,
        "volumeMounts": mounts,
    }
    spec = pod_around(
        container, volumes, compute=Compute(), pool=_pool(door.config), config=door.config, grace_s=_GRACE_S
    )
    return spec | {"topologySpreadConstraints": apart(selector_labels(door.name, GATEWAY))}


def _pool(config: OperatorConfig) -> NodePool:
    """Where it runs: it needs no GPU."""
    return next((pool for pool in config.node_pools if not pool.gpus_per_node), config.node_pools[0])


def _environment(door: Door) -> list[dict[str, Any]]:
    asked, namespace = door.asked, door.namespace
    told: dict[str, str | None] = {
        "NAME": door.name,
        "NAMESPACE": namespace,
        "HOST": f"$({contract.POD_IP_ENV})",
        "PORT": str(SERVER_PORT),
        # A URL is the whole value of its variable: the local cluster finds Services' names there, and has no DNS.
        "STABLE": url(namespace, side_name(door.name, COMPONENT)),
        "CANARY": url(namespace, side_name(door.name, CANARY)) if door.share else None,
        "CANARY_PERCENT": str(door.share),
        "KEYS_FROM": KEYS_FOLDER if door.spec.auth is not None else None,
        "CHAT": str(asked.chat).lower(),
        "HOLD_S": str(_HOLD_FROM_ZERO_S) if scales_to_zero(door.spec) else None,
        "DRAIN_DELAY_S": str(_DRAIN_DELAY_S),
        "DRAIN_TIMEOUT_S": str(_DRAIN_TIMEOUT_S),
    }
    if asked.arena is not None and (door.share or door.against is not None):
        told |= _arena(door)
    ip = {"name": contract.POD_IP_ENV, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    return [ip, *({"name": f"{_PREFIX}{name}", "value": value} for name, value in told.items() if value is not None)]


def _arena(door: Door) -> dict[str, str | None]:
    """What the page needs that compares two models. Models are told to it alone, for its votes: who is not told of
    them is not replaced when they change."""
    told: dict[str, str | None] = {
        "ARENA": "true",
        "VOTES": _VOTES_FOLDER,
        "STABLE_MODEL": door.stable_model,
        "CANARY_MODEL": door.canary_model if door.share else None,
    }
    if door.against is not None:
        told["ARENA_AGAINST"] = url(door.namespace, door.against.name)
        told["ARENA_AGAINST_NAME"] = door.against.name
        told["ARENA_AGAINST_MODEL"] = door.against.model
    return told
