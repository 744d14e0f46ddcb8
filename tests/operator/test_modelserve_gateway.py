"""Rules of the gateway's Deployment: what it is told, and what its pod may do."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_gateway.settings import Settings, read_settings
from alidade_operator.api import DEPLOYMENT, MODEL_SERVE
from tests.operator.served import GATEWAY, A, B, Served

KEEP = {"canaryPercent": 25, "previous": "keep"}
AGAINST = {"gateway": {"arena": {"against": "other"}}}
BETWEEN = {"gateway": {"arena": {}}, "rollout": KEEP}


def pod_of(cluster: Served) -> dict[str, Any]:
    """The gateway's pod."""
    template: dict[str, Any] = cluster.body(DEPLOYMENT, GATEWAY)["spec"]["template"]
    return template


def settings_of(cluster: Served) -> Settings:
    """What `alidade-gateway` makes of its environment; it ends where that does not go together."""
    (container,) = pod_of(cluster)["spec"]["containers"]
    assert container["command"] == ["alidade-gateway"]
    environment = {one["name"]: one["value"] for one in container["env"] if "value" in one}
    return read_settings([], environment)


@pytest.mark.parametrize(
    "fields",
    [
        {"gateway": {}},
        {"gateway": {"chat": False, "replicas": 3}},
        {"rollout": {"canaryPercent": 10}},
        {"autoscaling": {"min": 0, "max": 2}},
        {"gateway": {}, "auth": {"secretName": "keys"}},
        AGAINST,
        BETWEEN,
    ],
)
def test_the_gateway_understands_what_it_is_told(fields: dict[str, Any]) -> None:
    cluster = Served()
    cluster.serve(**fields)
    cluster.settle()
    told = settings_of(cluster)
    assert (told.name, told.namespace, told.port) == ("chat", "team-a", 8080)
    assert told.stable == "http://chat-stable.team-a.svc"
    assert told.drain_delay_s + told.drain_timeout_s < pod_of(cluster)["spec"]["terminationGracePeriodSeconds"]
    assert (told.keys_from is not None) == ("auth" in fields)


def test_without_two_models_there_is_no_arena_yet() -> None:
    cluster = Served()
    cluster.serve(**BETWEEN)
    cluster.settle()
    assert settings_of(cluster).arena is False
    cluster.serve(model=B, **BETWEEN)
    cluster.settle()
    told = settings_of(cluster)
    assert (told.arena, told.canary, told.canary_percent) == (True, "http://chat-canary.team-a.svc", 25)
    assert (told.stable_model, told.canary_model) == (A["uri"], B["uri"])
    assert str(told.votes) == "/votes"
    volumes = {one["name"]: one for one in pod_of(cluster)["spec"]["volumes"]}
    assert volumes["votes"]["persistentVolumeClaim"]["claimName"] == "alidade-workspace"
    (mount,) = [one for one in pod_of(cluster)["spec"]["containers"][0]["volumeMounts"] if one["name"] == "votes"]
    assert mount["subPath"] == "arenas/chat"


def test_an_arena_against_another_model_serve_follows_what_that_one_serves() -> None:
    cluster = Served()
    cluster.serve(**AGAINST)
    cluster.settle()
    told = settings_of(cluster)
    assert (told.arena_against, told.arena_against_name) == ("http://other.team-a.svc", "other")
    assert told.arena_against_model == ""
    cluster.put(MODEL_SERVE, "other", spec={"model": B})
    cluster.write_status(MODEL_SERVE, "other", model="pvc://data/other")
    cluster.settle()
    assert settings_of(cluster).arena_against_model == "pvc://data/other"


def test_an_arena_against_itself_is_refused() -> None:
    cluster = Served()
    cluster.serve(gateway={"arena": {"against": "chat"}})
    cluster.settle()
    assert cluster.truths["Accepted"] == ("False", "InvalidSpec")
    assert "the ModelServe itself" in cluster.told_of("Accepted")


def test_another_model_alone_replaces_no_gateway() -> None:
    cluster = Served()
    cluster.serve(gateway={})
    cluster.settle()
    before = pod_of(cluster)
    cluster.serve(model=B, gateway={})
    cluster.settle()
    assert cluster.models() == {B["uri"]}
    assert pod_of(cluster) == before


def test_the_gateway_passes_the_restricted_pod_security_standard() -> None:
    cluster = Served()
    cluster.serve(gateway={})
    cluster.settle()
    spec = pod_of(cluster)["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    context = spec["containers"][0]["securityContext"]
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"]}
