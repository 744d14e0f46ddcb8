"""The Deployment and the Service of a ModelServe with the embedded server."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from alidade_crds import contract
from alidade_crds.modelserve import ModelServeSpec
from alidade_crds.uris import Location, parse_uri
from alidade_operator.api import DEPLOYMENT, MODEL_SERVE, SERVICE, JsonObject
from alidade_operator.cache import PARENT_KIND_LABEL, PARENT_NAME_LABEL
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.resources.labels import child_labels, owner_reference
from alidade_operator.resources.observation import SERVER_CONTAINER
from alidade_operator.resources.trainingpod import (
    CONTAINER_SECURITY,
    SCRATCH_FOLDER,
    VOLUMES_FOLDER,
    pod_around,
    worker_resources,
)

COMPONENT = "server"
SERVER_PORT = 8080
SERVICE_PORT = 80
KEYS_FOLDER = "/etc/alidade/keys"

APPLIED = "alidade.dev/applied"
"""Annotation: the hash of what was applied last."""
SERVED_MODEL = "alidade.dev/served-model"
"""Annotation: the address of the model that the Deployment serves."""
MODEL_DIGEST = "alidade.dev/model-digest"
"""Annotation of the pods: files that change at the same place are a new model."""

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
# Loading and converting a model of many gigabytes from a network volume takes minutes.
_PROGRESS_DEADLINE_S = 900


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


def wanted_replicas(spec: ModelServeSpec) -> int:
    """Replicas that the spec asks for."""
    return 1 if spec.replicas is None else spec.replicas


def selector_labels(name: str) -> dict[str, str]:
    """Labels by which a ModelServe's replicas are told from everything else; they may never change."""
    return {PARENT_NAME_LABEL: name, PARENT_KIND_LABEL: MODEL_SERVE.kind, "app.kubernetes.io/component": COMPONENT}


def deployment(server: Server) -> JsonObject:
    """The Deployment. A new pod takes over only once it answers: nothing is served by fewer than there were."""
    labels = child_labels(MODEL_SERVE.kind, server.name, COMPONENT)
    annotations = {MODEL_DIGEST: server.model.digest} if server.model.digest else {}
    return _marked(
        server,
        {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.kind,
            "metadata": {
                "name": server.name,
                "namespace": server.namespace,
                "labels": labels,
                "annotations": {SERVED_MODEL: server.model.uri},
            },
            "spec": {
                "replicas": wanted_replicas(server.spec),
                "revisionHistoryLimit": 2,
                "progressDeadlineSeconds": _PROGRESS_DEADLINE_S,
                "selector": {"matchLabels": selector_labels(server.name)},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": _pod(server)},
            },
        },
    )


def service(server: Server) -> JsonObject:
    """The Service."""
    return _marked(
        server,
        {
            "apiVersion": SERVICE.api_version,
            "kind": SERVICE.kind,
            "metadata": {
                "name": server.name,
                "namespace": server.namespace,
                "labels": child_labels(MODEL_SERVE.kind, server.name, COMPONENT),
                "annotations": {},
            },
            "spec": {
                "selector": selector_labels(server.name),
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
            },
        },
    )


def url(namespace: str, name: str) -> str:
    """Where the Service answers, inside the cluster."""
    return f"http://{name}.{namespace}.svc"


def _marked(server: Server, body: JsonObject) -> JsonObject:
    """The object with its owner and the hash of itself."""
    body["metadata"]["ownerReferences"] = [owner_reference(MODEL_SERVE.kind, server.name, server.uid)]
    text = json.dumps(body, sort_keys=True)
    body["metadata"]["annotations"][APPLIED] = hashlib.sha256(text.encode()).hexdigest()[:16]
    return body


def _pod(server: Server) -> dict[str, Any]:
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
    return pod_around(
        _container(server, location) | {"volumeMounts": mounts},
        volumes,
        compute=server.spec.compute,
        pool=server.pool,
        config=server.config,
        grace_s=_GRACE_S,
    )


def _container(server: Server, location: Location) -> dict[str, Any]:
    compute, pool = server.spec.compute, server.pool
    container: dict[str, Any] = {
        "name": SERVER_CONTAINER,
        "image": compute.image or server.config.serving_image,
        "command": ["alidade-serve", *_flags(server, location)],
        "env": _environment(pool),
        "ports": [{"name": "http", "containerPort": SERVER_PORT}],
        "readinessProbe": _probe("/health", period_s=_READINESS_PERIOD_S, failures=2),
        "livenessProbe": _probe("/livez", period_s=_LIVENESS_PERIOD_S, failures=6),
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


def _probe(path: str, *, period_s: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }
