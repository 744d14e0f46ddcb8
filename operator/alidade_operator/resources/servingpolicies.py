"""What a served model's pods have around them: budgets for disruption, network policies, autoscalers, monitors."""

from dataclasses import dataclass
from typing import Any

from alidade_crds.modelserve import Autoscaling, AutoscalingProvider, ModelServeSpec
from alidade_operator.api import (
    AUTOSCALER,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    MODEL_SERVE,
    NETWORK_POLICY,
    POD_MONITOR,
    SCALED_OBJECT,
    JsonObject,
    Kind,
)
from alidade_operator.cache import PARENT_KIND_LABEL, PARENT_NAME_LABEL
from alidade_operator.config import OperatorConfig
from alidade_operator.resources.engines.server import EMBEDDED, METRICS_PATH, QUEUE_METRICS
from alidade_operator.resources.gateway import needs_gateway
from alidade_operator.resources.labels import child_labels
from alidade_operator.resources.serving import (
    CANARY,
    COMPONENT,
    GATEWAY,
    Component,
    marked,
    name_of,
    selector_labels,
    wanted_replicas,
)

# A HorizontalPodAutoscaler takes no longer window.
_LONGEST_WINDOW_S = 3600
# How often KEDA asks Prometheus; a request that is held waits for as long.
_KEDA_INTERVAL_S = 5

HELD_METRIC = "modelserve_gateway_waiting"
"""The gateway's metric of requests that it holds."""

Policies = dict[tuple[str, str], tuple[Kind, JsonObject]]
"""Objects by kind and name."""


@dataclass(frozen=True)
class Around:
    """Whose pods they are around."""

    namespace: str
    name: str
    uid: str
    spec: ModelServeSpec
    config: OperatorConfig
    engine: str
    has_gateway: bool


def policies(around: Around) -> Policies:
    """All that there is to be."""
    found: Policies = {}
    for kind, body in (*_budgets(around), *_network(around), *_scalers(around), *_monitors(around)):
        found[kind.kind, body["metadata"]["name"]] = (kind, body)
    return found


def policy_names(name: str, spec: ModelServeSpec, config: OperatorConfig) -> list[tuple[Kind, str]]:
    """Kinds and names of all that there may come to be for a spec."""
    around = Around("", name, "", spec, config, engine=EMBEDDED, has_gateway=needs_gateway(spec))
    return [(kind, body["metadata"]["name"]) for kind, body in policies(around).values()]


def most_replicas(spec: ModelServeSpec) -> int:
    """As many replicas as there may come to be."""
    return spec.autoscaling.max if spec.autoscaling is not None else wanted_replicas(spec)


def _object(around: Around, kind: Kind, component: Component, spec: JsonObject) -> tuple[Kind, JsonObject]:
    metadata = {
        "name": name_of(around.name, component),
        "namespace": around.namespace,
        "labels": child_labels(MODEL_SERVE.kind, around.name, component),
        "annotations": {},
    }
    body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
    return kind, marked(around.name, around.uid, body)


def _budgets(around: Around) -> list[tuple[Kind, JsonObject]]:
    """Nodes are drained one pod at a time. A single pod has none: that would keep its node from being drained."""
    asked = around.spec.gateway
    several: list[Component] = [COMPONENT] if most_replicas(around.spec) > 1 else []
    several += [GATEWAY] if around.has_gateway and asked is not None and asked.replicas > 1 else []
    return [
        _object(
            around,
            DISRUPTION_BUDGET,
            one,
            {"maxUnavailable": 1, "selector": {"matchLabels": selector_labels(around.name, one)}},
        )
        for one in several
    ]


def _network(around: Around) -> list[tuple[Kind, JsonObject]]:
    """Traffic comes in on one port. Behind a gateway, whose answers count, replicas are asked by their namespace only,
    by Prometheus and by the operator; what is the front door is asked by whoever reaches it."""
    if not around.config.network_policies:
        return []
    own_namespace: JsonObject = {"podSelector": {}}
    others = [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
        for name in (around.config.operator_namespace, around.config.monitoring_namespace)
    ]
    guarded = [own_namespace, *others] if around.has_gateway else None
    made = [_object(around, NETWORK_POLICY, COMPONENT, _ingress(around, [COMPONENT, CANARY], guarded))]
    if around.has_gateway:
        made.append(_object(around, NETWORK_POLICY, GATEWAY, _ingress(around, [GATEWAY], None)))
    return made


def _ingress(around: Around, components: list[Component], sources: list[JsonObject] | None) -> JsonObject:
    rule: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": "http"}]}
    return {
        "podSelector": _pods(around, components),
        "policyTypes": ["Ingress"],
        "ingress": [rule | ({"from": sources} if sources is not None else {})],
    }


def _pods(around: Around, components: list[Component]) -> JsonObject:
    return {
        "matchLabels": {PARENT_NAME_LABEL: around.name, PARENT_KIND_LABEL: MODEL_SERVE.kind},
        "matchExpressions": [
            {"key": "app.kubernetes.io/component", "operator": "In", "values": [str(one) for one in components]}
        ],
    }


def _scalers(around: Around) -> list[tuple[Kind, JsonObject]]:
    asked = around.spec.autoscaling
    if asked is None or asked.provider is AutoscalingProvider.OPERATOR:
        return []
    target = {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "name": around.name}
    if asked.provider is AutoscalingProvider.HPA:
        return [_object(around, AUTOSCALER, COMPONENT, {"scaleTargetRef": target} | _hpa(around, asked))]
    return [_object(around, SCALED_OBJECT, COMPONENT, {"scaleTargetRef": target} | _keda(around, asked))]


def _hpa(around: Around, asked: Autoscaling) -> JsonObject:
    # Adapters of Prometheus to the metrics API give names without colons.
    metric = QUEUE_METRICS[around.engine].replace(":", "_")
    value = {"type": "AverageValue", "averageValue": str(asked.target.queue_depth_per_replica)}
    window_s = min(asked.scale_down_after_seconds, _LONGEST_WINDOW_S)
    return {
        "minReplicas": asked.min,
        "maxReplicas": asked.max,
        "metrics": [{"type": "Pods", "pods": {"metric": {"name": metric}, "target": value}}],
        "behavior": {
            "scaleUp": {"stabilizationWindowSeconds": 0},
            "scaleDown": {"stabilizationWindowSeconds": window_s},
        },
    }


def _keda(around: Around, asked: Autoscaling) -> JsonObject:
    # A Deployment's pods have two more words in their names; the canary's and the gateway's have three.
    replicas = f'namespace="{around.namespace}",pod=~"{around.name}-[a-z0-9]+-[a-z0-9]+"'
    query = f"sum({QUEUE_METRICS[around.engine]}{{{replicas}}})"
    if around.has_gateway:
        gateways = f'namespace="{around.namespace}",pod=~"{around.name}-gateway-.+"'
        query = f"({query} or vector(0)) + (sum({HELD_METRIC}{{{gateways}}}) or vector(0))"
    return {
        "minReplicaCount": asked.min,
        "maxReplicaCount": asked.max,
        "pollingInterval": _KEDA_INTERVAL_S,
        "cooldownPeriod": asked.scale_down_after_seconds,
        "triggers": [
            {
                "type": "prometheus",
                "metadata": {
                    "serverAddress": around.config.prometheus_url,
                    "query": query,
                    "threshold": str(asked.target.queue_depth_per_replica),
                    "activationThreshold": "0",
                },
            }
        ],
    }


def _monitors(around: Around) -> list[tuple[Kind, JsonObject]]:
    if not around.config.pod_monitors:
        return []
    endpoints = [{"port": "http", "path": METRICS_PATH}]
    spec = {"selector": _pods(around, [COMPONENT, CANARY, GATEWAY]), "podMetricsEndpoints": endpoints}
    return [_object(around, POD_MONITOR, COMPONENT, spec)]
