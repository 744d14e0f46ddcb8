"""The Deployment and the Service of a ModelServe with the embedded server."""

import hashlib
import json
from typing import Any

from alidade_crds.modelserve import ModelServeSpec
from alidade_operator.api import DEPLOYMENT, MODEL_SERVE, SERVICE, JsonObject
from alidade_operator.cache import PARENT_KIND_LABEL, PARENT_NAME_LABEL
from alidade_operator.resources.engines.choice import engine_pod
from alidade_operator.resources.engines.server import Server
from alidade_operator.resources.labels import child_labels, owner_reference
from alidade_operator.resources.trainingpod import pod_around

COMPONENT = "server"
SERVICE_PORT = 80

APPLIED = "alidade.dev/applied"
"""Annotation: the hash of what was applied last."""
SERVED_MODEL = "alidade.dev/served-model"
"""Annotation: the address of the model that the Deployment serves."""
MODEL_DIGEST = "alidade.dev/model-digest"
"""Annotation of the pods: files that change at the same place are a new model."""

# Loading and converting a model of many gigabytes from a network volume takes minutes.
_PROGRESS_DEADLINE_S = 900


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
    pod = engine_pod(server)
    return pod_around(
        pod.container,
        pod.volumes,
        compute=server.spec.compute,
        pool=server.pool,
        config=server.config,
        grace_s=pod.grace_s,
    )
