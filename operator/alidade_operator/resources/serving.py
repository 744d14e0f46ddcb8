"""The Deployments and Services of a ModelServe's replicas: `NAME`, and `NAME-canary` beside it."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

from alidade_crds.modelserve import ModelServeSpec
from alidade_operator.api import DEPLOYMENT, MODEL_SERVE, SERVICE, JsonObject
from alidade_operator.cache import PARENT_KIND_LABEL, PARENT_NAME_LABEL
from alidade_operator.resources.engines.choice import engine_pod
from alidade_operator.resources.engines.server import Server, loads_while_running
from alidade_operator.resources.labels import QUEUE_LABEL, child_labels, owner_reference
from alidade_operator.resources.placement import apart, pod_annotations
from alidade_operator.resources.trainingpod import pod_around

Component = Literal["server", "canary", "gateway"]
COMPONENT: Component = "server"
CANARY: Component = "canary"
GATEWAY: Component = "gateway"
SERVICE_PORT = 80

APPLIED = "alidade.dev/applied"
"""Annotation: the hash of what was applied last."""
SERVED_MODEL = "alidade.dev/served-model"
"""Annotation: the address of the model that the Deployment serves."""
MODEL_DIGEST = "alidade.dev/model-digest"
"""Annotation of Deployment and pods: files that change at the same place are a new model."""

ADAPTER_DIGESTS = "alidade.dev/adapter-digests"
"""Annotation of the pods: the same of adapters, as far as the platform has made them."""

# Loading and converting a model of many gigabytes from a network volume takes minutes.
_PROGRESS_DEADLINE_S = 900


def wanted_replicas(spec: ModelServeSpec) -> int:
    """Replicas that the spec asks for."""
    return 1 if spec.replicas is None else spec.replicas


def name_of(serve: str, component: Component) -> str:
    """Name of the Deployment of a component."""
    return serve if component == COMPONENT else f"{serve}-{component}"


def side_name(serve: str, component: Component) -> str:
    """Name of the Service by which the gateway reaches a side."""
    return f"{serve}-stable" if component == COMPONENT else f"{serve}-{component}"


def selector_labels(name: str, component: Component = COMPONENT) -> dict[str, str]:
    """Labels by which a ModelServe's replicas are told from everything else; they may never change."""
    return {PARENT_NAME_LABEL: name, PARENT_KIND_LABEL: MODEL_SERVE.kind, "app.kubernetes.io/component": component}


def strategy(*, surge: bool) -> dict[str, Any]:
    """How pods are replaced. With surge a new pod takes over only once it answers: nothing is served by fewer than
    there were. Without, one goes first, so that no node has to have room for one more."""
    numbers = {"maxUnavailable": 0, "maxSurge": 1} if surge else {"maxUnavailable": 1, "maxSurge": 0}
    return {"type": "RollingUpdate", "rollingUpdate": numbers}


def deployment(server: Server, replicas: int, component: Component = COMPONENT) -> JsonObject:
    """The Deployment of one side."""
    labels = child_labels(MODEL_SERVE.kind, server.name, component)
    # Kueue's webhook gives the pods what they need of it.
    queue = {QUEUE_LABEL: server.spec.compute.queue} if server.spec.compute.queue is not None else {}
    digest = {MODEL_DIGEST: server.model.digest} if server.model.digest else {}
    return marked(
        server.name,
        server.uid,
        {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.kind,
            "metadata": {
                "name": name_of(server.name, component),
                "namespace": server.namespace,
                "labels": labels | queue,
                "annotations": {SERVED_MODEL: server.model.uri} | digest,
            },
            "spec": {
                "replicas": replicas,
                "revisionHistoryLimit": 2,
                "progressDeadlineSeconds": _PROGRESS_DEADLINE_S,
                "selector": {"matchLabels": selector_labels(server.name, component)},
                "strategy": strategy(surge=server.spec.rollout.surge),
                "template": {
                    "metadata": {"labels": labels, "annotations": _pod_annotations(server, digest)},
                    "spec": _pod(server, component),
                },
            },
        },
    )


def service(owner: tuple[str, str, str], name: str, component: Component) -> JsonObject:
    """A Service of a name that leads to a component's pods; owner: namespace, name and uid of the ModelServe."""
    namespace, serve, uid = owner
    return marked(
        serve,
        uid,
        {
            "apiVersion": SERVICE.api_version,
            "kind": SERVICE.kind,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": child_labels(MODEL_SERVE.kind, serve, component),
                "annotations": {},
            },
            "spec": {
                "selector": selector_labels(serve, component),
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": "http", "protocol": "TCP"}],
            },
        },
    )


def url(namespace: str, name: str) -> str:
    """Where the Service answers, inside the cluster."""
    return f"http://{name}.{namespace}.svc"


def marked(serve: str, uid: str, body: JsonObject) -> JsonObject:
    """The object with its owner and the hash of itself, the number of replicas apart: others may set that."""
    body["metadata"]["ownerReferences"] = [owner_reference(MODEL_SERVE.kind, serve, uid)]
    told = copy.deepcopy(body)
    told.get("spec", {}).pop("replicas", None)
    body["metadata"]["annotations"][APPLIED] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[
        :16
    ]
    return body


def applied_hash(body: Mapping[str, Any]) -> str:
    """The hash of an object that is to be applied."""
    return str(body["metadata"]["annotations"][APPLIED])


def _pod_annotations(server: Server, digest: dict[str, str]) -> dict[str, str]:
    return pod_annotations(server.pool) | digest | _adapter_digests(server)


def _adapter_digests(server: Server) -> dict[str, str]:
    if loads_while_running(server):
        return {ADAPTER_DIGESTS: server.made_anew} if server.made_anew else {}
    known = [f"{one.name}={one.digest}" for one in server.adapters if one.digest is not None]
    return {ADAPTER_DIGESTS: ",".join(known)} if known else {}


def _pod(server: Server, component: Component) -> dict[str, Any]:
    pod = engine_pod(server)
    spec = pod_around(
        pod.container,
        pod.volumes,
        compute=server.spec.compute,
        pool=server.pool,
        config=server.config,
        grace_s=pod.grace_s,
    )
    return spec | {"topologySpreadConstraints": apart(selector_labels(server.name, component))}
