"""The environment of a container, by the rules of the kubelet."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from alidade_local.kubelet.environment import (
    MissingReferenceError,
    PodFacts,
    ReferencedData,
    build_environment,
    expand,
    references_of,
)

FACTS = PodFacts(pod_ip="127.20.0.1", host_ip="127.0.0.1", node_name="local", allocatable={"cpu": "4", "memory": "8Gi"})
DATA = ReferencedData(
    config_maps={"settings": {"data": {"rate": "0.1", "name": "a"}}},
    secrets={"keys": {"data": {"token": base64.b64encode(b"s3cret").decode()}}},
)


def pod_with(**container: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "p", "namespace": "n", "uid": "u",
            "labels": {"app": "x", "tier": 'a"b'}, "annotations": {"note": "hi"},
        },
        "spec": {"containers": [{"name": "main", **container}]},
    }  # fmt: skip


def build(base: dict[str, str] | None = None, **container: Any) -> dict[str, str]:
    pod = pod_with(**container)
    return build_environment(pod, pod["spec"]["containers"][0], facts=FACTS, data=DATA, base=base or {})


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ({"fieldRef": {"fieldPath": "metadata.name"}}, "p"),
        ({"fieldRef": {"fieldPath": "metadata.namespace"}}, "n"),
        ({"fieldRef": {"fieldPath": "metadata.uid"}}, "u"),
        ({"fieldRef": {"fieldPath": "metadata.labels['app']"}}, "x"),
        ({"fieldRef": {"fieldPath": "metadata.labels['none']"}}, ""),
        ({"fieldRef": {"fieldPath": "metadata.annotations['note']"}}, "hi"),
        ({"fieldRef": {"fieldPath": "metadata.labels"}}, 'app="x"\ntier="a\\"b"'),
        ({"fieldRef": {"fieldPath": "status.podIP"}}, "127.20.0.1"),
        ({"fieldRef": {"fieldPath": "spec.nodeName"}}, "local"),
        ({"fieldRef": {"fieldPath": "spec.serviceAccountName"}}, "default"),
        ({"configMapKeyRef": {"name": "settings", "key": "rate"}}, "0.1"),
        ({"secretKeyRef": {"name": "keys", "key": "token"}}, "s3cret"),
        ({"resourceFieldRef": {"resource": "limits.cpu"}}, "2"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}, "8192"),
        ({"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}, "500"),
    ],
)
def test_a_variable_takes_its_value_from_where_it_says(source: dict[str, Any], value: str) -> None:
    resources = {"limits": {"cpu": "1500m"}, "requests": {"cpu": "500m"}}
    assert build(env=[{"name": "V", "valueFrom": source}], resources=resources)["V"] == value


def test_later_variables_win_and_may_refer_to_earlier_ones() -> None:
    env = [
        {"name": "HOST", "value": "a"},
        {"name": "URL", "value": "http://$(HOST):$(PORT)/$$(HOST)"},
        {"name": "HOST", "value": "b"},
        {"name": "rate", "value": "2"},
    ]
    found = build({"PORT": "80"}, env=env, envFrom=[{"configMapRef": {"name": "settings"}, "prefix": ""}])
    assert found == {"PORT": "80", "HOST": "b", "URL": "http://a:80/$(HOST)", "rate": "2", "name": "a"}


def test_whole_maps_and_secrets_come_with_a_prefix() -> None:
    assert build(envFrom=[{"secretRef": {"name": "keys"}, "prefix": "K_"}]) == {"K_token": "s3cret"}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"configMapKeyRef": {"name": "settings", "key": "k"}}, "couldn't find key k in ConfigMap n/settings"),
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
        ({"fieldRef": {"fieldPath": "spec.nothing"}}, "not a field of the downward API"),
    ],
)
def test_what_is_missing_is_named(source: dict[str, Any], message: str) -> None:
    with pytest.raises(MissingReferenceError, match=message):
        build(env=[{"name": "V", "valueFrom": source}])


def test_optional_references_may_be_missing() -> None:
    source = {"configMapKeyRef": {"name": "none", "key": "k", "optional": True}}
    assert build(env=[{"name": "V", "valueFrom": source}]) == {}
    assert build(envFrom=[{"configMapRef": {"name": "none", "optional": True}}]) == {}


def test_unknown_names_stay_as_they_are() -> None:
    assert expand("$(A) $(B) $A ${A}", {"A": "1"}) == "1 $(B) $A ${A}"


def test_all_references_of_a_pod_are_found() -> None:
    pod = pod_with(
        env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "c1", "key": "k"}}}],
        envFrom=[{"secretRef": {"name": "s1"}}],
    )
    pod["spec"]["volumes"] = [
        {"name": "v", "configMap": {"name": "c2"}},
        {"name": "w", "secret": {"secretName": "s2"}},
        {"name": "x", "projected": {"sources": [{"configMap": {"name": "c3"}}, {"secret": {"name": "s3"}}]}},
    ]
    assert references_of(pod) == ({"c1", "c2", "c3"}, {"s1", "s2", "s3"})
