"""HorizontalPodAutoscaler, PodDisruptionBudget and NetworkPolicy: defaults, and what is refused."""

from typing import Any

import pytest

from tests.local.apiserver.conftest import PODS, Api, Refused, pod

Json = dict[str, Any]
AUTOSCALERS = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
NETWORK_POLICIES = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"

QUEUE = {"metric": {"name": "tgi_queue_size"}, "target": {"type": "AverageValue", "averageValue": "4"}}


def autoscaler(**spec: Any) -> Json:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    return {"metadata": {"name": "x"}, "spec": {"scaleTargetRef": target, "maxReplicas": 3, **spec}}


async def refusal(api: Api, path: str, body: Json) -> list[tuple[str, str]]:
    """(field, message) of each cause for which a new object is refused."""
    with pytest.raises(Refused) as refused:
        await api.post(path, body)
    assert refused.value.code == 422
    return refused.value.causes


async def test_an_autoscaler_gets_its_defaults(api: Api) -> None:
    made = await api.post(AUTOSCALERS, autoscaler())
    assert made["spec"]["minReplicas"] == 1
    [metric] = made["spec"]["metrics"]
    assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}


async def test_an_autoscaler_of_a_metric_of_pods_is_taken_as_it_is(api: Api) -> None:
    behavior = {"scaleDown": {"stabilizationWindowSeconds": 300, "policies": [_policy()]}}
    metrics = [{"type": "Pods", "pods": QUEUE}]
    made = await api.post(AUTOSCALERS, autoscaler(minReplicas=2, metrics=metrics, behavior=behavior))
    assert made["spec"]["metrics"] == metrics
    assert made["spec"]["behavior"] == behavior


def _policy(**changes: Any) -> Json:
    return {"type": "Pods", "value": 1, "periodSeconds": 60, **changes}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"maxReplicas": 0}, "spec.maxReplicas", "Invalid value: 0: must be greater than 0"),
        ({"minReplicas": 0}, "spec.minReplicas", "Invalid value: 0: must be greater than or equal to 1"),
        (
            {"minReplicas": 4},
            "spec.maxReplicas",
            "Invalid value: 3: must be greater than or equal to `minReplicas`",
        ),
        ({"scaleTargetRef": {"kind": "Deployment", "name": ""}}, "spec.scaleTargetRef.name", "Required value"),
        (
            {"metrics": [{"type": "Pods"}]},
            "spec.metrics[0].pods",
            "Required value: must populate information for the given metric source",
        ),
        (
            {"metrics": [{"type": "Pods", "pods": QUEUE, "external": QUEUE}]},
            "spec.metrics[0].external",
            "Forbidden: must populate the given metric source only",
        ),
        (
            {"metrics": [{"type": "Pods", "pods": QUEUE | {"target": {"type": "Value", "value": "1"}}}]},
            "spec.metrics[0].pods.target.type",
            'Unsupported value: "Value": supported values: "AverageValue"',
        ),
        (
            {"metrics": [{"type": "Pods", "pods": QUEUE | {"target": {"type": "AverageValue", "averageValue": "0"}}}]},
            "spec.metrics[0].pods.target.averageValue",
            'Invalid value: "0": must be positive',
        ),
        (
            {"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601}}},
            "spec.behavior.scaleUp.stabilizationWindowSeconds",
            "Invalid value: 3601: must be between 0 and 3600, inclusive",
        ),
        (
            {"behavior": {"scaleDown": {"policies": [_policy(periodSeconds=0)]}}},
            "spec.behavior.scaleDown.policies[0].periodSeconds",
            "Invalid value: 0: must be between 1 and 1800, inclusive",
        ),
        (
            {"behavior": {"scaleDown": {"selectPolicy": "Any"}}},
            "spec.behavior.scaleDown.selectPolicy",
            'Unsupported value: "Any": supported values: "Max", "Min", "Disabled"',
        ),
    ],
)
async def test_an_autoscaler_that_makes_no_sense_is_refused(api: Api, spec: Json, field: str, message: str) -> None:
    assert (field, message) in await refusal(api, AUTOSCALERS, autoscaler(**spec))


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"minAvailable": -1}, "spec.minAvailable", "Invalid value: -1: must be greater than or equal to 0"),
        ({"maxUnavailable": "101%"}, "spec.maxUnavailable", 'Invalid value: "101%": must not be greater than 100%'),
        (
            {"unhealthyPodEvictionPolicy": "Never"},
            "spec.unhealthyPodEvictionPolicy",
            'Unsupported value: "Never": supported values: "AlwaysAllow", "IfHealthyBudget"',
        ),
        (
            {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
            "spec.selector.matchExpressions[0].values",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused(api: Api, spec: Json, field: str, message: str) -> None:
    assert (field, message) in await refusal(api, BUDGETS, {"metadata": {"name": "x"}, "spec": spec})


async def test_a_budget_of_both_kinds_or_of_words_is_refused(api: Api) -> None:
    both = {"metadata": {"name": "x"}, "spec": {"minAvailable": 1, "maxUnavailable": 1}}
    assert "minAvailable and maxUnavailable cannot be both set" in (await refusal(api, BUDGETS, both))[0][1]
    words = {"metadata": {"name": "x"}, "spec": {"minAvailable": "some"}}
    assert "a valid percent string must be" in (await refusal(api, BUDGETS, words))[0][1]


async def test_a_network_policy_gets_its_defaults(api: Api) -> None:
    rule = {"ports": [{"port": "http"}], "from": [{"podSelector": {}}]}
    made = await api.post(NETWORK_POLICIES, {"metadata": {"name": "x"}, "spec": {"ingress": [rule]}})
    assert (made["spec"]["podSelector"], made["spec"]["policyTypes"]) == ({}, ["Ingress"])
    assert made["spec"]["ingress"][0]["ports"] == [{"port": "http", "protocol": "TCP"}]
    both = await api.post(NETWORK_POLICIES, {"metadata": {"name": "y"}, "spec": {"egress": [{}]}})
    assert both["spec"]["policyTypes"] == ["Ingress", "Egress"]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        (
            {"policyTypes": ["Inward"]},
            "spec.policyTypes[0]",
            'Unsupported value: "Inward": supported values: "Egress", "Ingress"',
        ),
        ({"ingress": [{"from": [{}]}]}, "spec.ingress[0].from[0]", "Required value: must specify a peer"),
        (
            {"ingress": [{"ports": [{"port": 0}]}]},
            "spec.ingress[0].ports[0].port",
            "Invalid value: 0: must be between 1 and 65535, inclusive",
        ),
        (
            {"egress": [{"ports": [{"port": 80, "endPort": 79}]}]},
            "spec.egress[0].ports[0].endPort",
            "Invalid value: 79: must be greater than or equal to `port`, and at most 65535",
        ),
        (
            {"egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}]},
            "spec.egress[0].to[0].ipBlock.except[0]",
            'Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`',
        ),
        (
            {"ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}, "podSelector": {}}]}]},
            "spec.ingress[0].from[0]",
            "Forbidden: may not be specified when both ipBlock and a selector are",
        ),
    ],
)
async def test_a_network_policy_that_makes_no_sense_is_refused(api: Api, spec: Json, field: str, message: str) -> None:
    assert (field, message) in await refusal(api, NETWORK_POLICIES, {"metadata": {"name": "x"}, "spec": spec})


async def _running(api: Api, name: str, *, ready: bool = True) -> None:
    await api.post(PODS, pod(name, nodeName="local"))
    await api.merge(f"{PODS}/{name}", {"metadata": {"labels": {"guarded": "yes"}}})
    conditions = [{"type": "Ready", "status": str(ready)}]
    await api.merge(f"{PODS}/{name}/status", {"status": {"phase": "Running", "conditions": conditions}})


async def _evict(api: Api, name: str) -> Json:
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    return await api.post(f"{PODS}/{name}/eviction", body)


async def test_an_eviction_keeps_to_the_budget(api: Api) -> None:
    selector = {"matchLabels": {"guarded": "yes"}}
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": selector}}
    await api.post(BUDGETS, budget)
    for name in ("one", "two"):
        await _running(api, name)
    await _running(api, "broken", ready=False)
    await _evict(api, "one")
    with pytest.raises(Refused) as refused:
        await _evict(api, "two")
    assert refused.value.code == 429
    assert refused.value.message == "Cannot evict pod as it would violate the pod's disruption budget."
    [cause] = refused.value.status["details"]["causes"]
    assert cause["message"] == "The disruption budget b needs 1 healthy pods and has 1 currently"
    await _evict(api, "broken")  # it is not what the budget's one healthy pod is
    await _evict(api, "one")  # it is going already
    await api.delete(f"{BUDGETS}/b")
    await _evict(api, "two")
