"""Rules of canaries: how a new model takes over, is taken back, or stays beside the one before."""

from __future__ import annotations

from typing import Any

import pytest

from alidade_operator.api import DEPLOYMENT, NETWORK_POLICY, SERVICE
from tests.operator.served import BROKEN, CANARY, GATEWAY, STABLE, A, B, Served

ROLLOUT = {"canaryPercent": 20, "analysis": {"minRequests": 40, "seconds": 60}}


def with_canary(**rollout: Any) -> Served:
    """A serves, and B is its canary."""
    cluster = Served()
    cluster.serve(rollout=ROLLOUT | rollout)
    cluster.settle()
    assert cluster.state["phase"] == "Serving"
    cluster.serve(model=B, rollout=ROLLOUT | rollout)
    cluster.settle()
    return cluster


def test_the_first_model_is_served_without_a_canary_and_behind_a_gateway() -> None:
    cluster = Served()
    cluster.serve(rollout=ROLLOUT)
    cluster.settle()
    assert cluster.there(DEPLOYMENT) == [STABLE, GATEWAY]
    assert cluster.there(SERVICE) == [STABLE, CANARY, "chat-stable"]
    assert cluster.front() == "gateway"
    assert cluster.state["gatewayReadyReplicas"] == 1
    assert "CANARY" not in cluster.gateway_env()


def test_clients_are_led_to_replicas_until_the_gateway_is_ready() -> None:
    cluster = Served()
    cluster.serve()
    cluster.settle()
    cluster.serve(gateway={})
    cluster.deliver()
    cluster.work()
    assert cluster.there(DEPLOYMENT) == [STABLE, GATEWAY]
    assert cluster.front() == "server"
    (rule,) = cluster.body(NETWORK_POLICY)["spec"]["ingress"]
    assert "from" not in rule, "clients from other namespaces still come to the replicas"
    cluster.settle()
    assert cluster.front() == "gateway"
    (rule,) = cluster.body(NETWORK_POLICY)["spec"]["ingress"]
    assert rule["from"][0] == {"podSelector": {}}


def test_a_canary_gets_its_share_once_it_answers() -> None:
    cluster = Served()
    cluster.serve(rollout=ROLLOUT)
    cluster.settle()
    cluster.serve(model=B, rollout=ROLLOUT)
    cluster.deliver()
    cluster.work()
    assert cluster.truths["Progressing"] == ("True", "CanaryStarting")
    assert cluster.gateway_env()["CANARY_PERCENT"] == "0"
    cluster.settle()
    assert (cluster.models(), cluster.models(CANARY)) == ({A["uri"]}, {B["uri"]})
    env = cluster.gateway_env()
    assert (env["CANARY"], env["CANARY_PERCENT"]) == ("http://chat-canary.team-a.svc", "20")
    assert cluster.truths["Progressing"] == ("True", "CanaryRunning")
    assert (cluster.state["phase"], cluster.state["model"]) == ("Canary", A["uri"])
    assert (cluster.state["canary"]["model"], cluster.state["canary"]["percent"]) == (B["uri"], 20)
    assert "CanaryRunning" in cluster.reasons()


def test_a_canary_that_is_no_worse_takes_over_after_enough_requests_and_time() -> None:
    cluster = with_canary()
    cluster.count(canary=(50, 0), stable=(200, 0))
    cluster.settle()
    assert cluster.truths["Progressing"] == ("True", "CanaryRunning"), "a minute has not passed"
    assert (cluster.state["canary"]["requests"], cluster.state["canary"]["stableRequests"]) == (50, 200)
    cluster.clock(seconds=61)
    cluster.settle()
    assert cluster.models() == {B["uri"]}
    assert cluster.there(DEPLOYMENT) == [STABLE, GATEWAY], "the canary goes once it has been taken over from"
    assert "canary" not in cluster.state
    assert (cluster.state["phase"], cluster.state["model"]) == ("Serving", B["uri"])
    assert "CanaryPromoted" in cluster.reasons()


def test_too_few_requests_prove_nothing() -> None:
    cluster = with_canary()
    cluster.count(canary=(39, 0), stable=(200, 0))
    cluster.clock(hours=5)
    cluster.settle()
    assert cluster.truths["Progressing"] == ("True", "CanaryRunning")


def test_the_canary_keeps_its_share_while_the_model_before_is_replaced() -> None:
    cluster = with_canary()
    cluster.count(canary=(50, 0), stable=(200, 0))
    cluster.clock(seconds=61)
    cluster.deliver()
    cluster.work()
    assert cluster.body(DEPLOYMENT)["metadata"]["annotations"]["alidade.dev/served-model"] == B["uri"]
    assert cluster.truths["Progressing"] == ("True", "CanaryPromoted")
    assert cluster.gateway_env()["CANARY_PERCENT"] == "20"
    assert cluster.models(CANARY) == {B["uri"]}
    assert cluster.models() == {A["uri"]}


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"canary": (20, 8), "stable": (80, 0)}, "8 of 20 requests ended in errors, 0 of 80 of the model before"),
        (
            {"canary": (40, 0), "stable": (160, 0), "canary_p95": 3.0, "stable_p95": 1.0},
            "95 percent of its answers took up to 3 s, 1 s of the model before",
        ),
    ],
)
def test_a_canary_that_is_worse_is_taken_back_at_once_and_not_tried_again(counts: dict[str, Any], words: str) -> None:
    cluster = with_canary()
    cluster.count(**counts)
    cluster.settle()
    assert cluster.truths["Failed"] == ("True", "CanaryWorse")
    assert words in cluster.told_of("Failed")
    assert cluster.told_of("Failed").count(A["uri"]) == 1, "it says what is served"
    assert cluster.there(DEPLOYMENT) == [STABLE, GATEWAY]
    assert cluster.models() == {A["uri"]}
    assert "CANARY" not in cluster.gateway_env()
    assert "CanaryWorse" in cluster.reasons()
    cluster.start_operator()
    cluster.clock(days=1)
    cluster.settle()
    assert cluster.there(DEPLOYMENT) == [STABLE, GATEWAY], "another operator remembers, too"


def test_a_changed_spec_is_tried_again_and_another_number_of_replicas_is_none() -> None:
    cluster = with_canary()
    cluster.count(canary=(20, 8), stable=(80, 0))
    cluster.settle()
    cluster.serve(model=B, rollout=ROLLOUT, replicas=2)
    cluster.settle()
    assert cluster.truths["Failed"] == ("True", "CanaryWorse")
    assert (cluster.replicas(), cluster.models()) == (2, {A["uri"]})
    cluster.serve(model=B, rollout=ROLLOUT, replicas=2, limits={"maxInputTokens": 64, "maxTotalTokens": 128})
    cluster.settle()
    assert cluster.truths["Progressing"] == ("True", "CanaryRunning")
    assert "returned" not in cluster.state


def test_few_errors_by_chance_take_no_canary_back() -> None:
    cluster = with_canary()
    cluster.count(canary=(50, 1), stable=(200, 1))
    cluster.clock(seconds=61)
    cluster.settle()
    assert cluster.truths["Progressing"] == ("True", "CanaryRunning")


def test_both_models_stay_until_a_person_decides_where_previous_is_keep() -> None:
    cluster = with_canary(previous="keep")
    cluster.count(canary=(500, 0), stable=(2000, 0))
    cluster.clock(hours=1)
    cluster.settle()
    assert cluster.truths["Progressing"] == ("False", "CanaryKept")
    assert (cluster.models(), cluster.models(CANARY)) == ({A["uri"]}, {B["uri"]})
    cluster.serve(model=B, rollout={"canaryPercent": 0})
    cluster.settle()
    assert cluster.models() == {B["uri"]}
    assert cluster.there(DEPLOYMENT) == [STABLE]
    assert cluster.there(SERVICE) == [STABLE], "without a canary there is no need of a gateway"
    assert cluster.front() == "server"


def test_going_back_to_the_model_before_ends_the_canary() -> None:
    cluster = with_canary()
    cluster.serve(model=A, rollout=ROLLOUT)
    cluster.settle()
    assert cluster.there(DEPLOYMENT) == [STABLE, GATEWAY]
    assert (cluster.models(), cluster.state["phase"]) == ({A["uri"]}, "Serving")
    assert "canary" not in cluster.state


def test_another_model_in_the_middle_becomes_the_canary_and_begins_anew() -> None:
    cluster = with_canary()
    cluster.count(canary=(50, 0), stable=(200, 0))
    cluster.settle()
    other = {"uri": "pvc://data/c"}
    cluster.serve(model=other, rollout=ROLLOUT)
    cluster.deliver()
    cluster.work()
    assert cluster.gateway_env()["CANARY_PERCENT"] == "0"
    cluster.settle()
    assert cluster.models(CANARY) == {other["uri"]}
    assert (cluster.state["canary"]["model"], cluster.state["canary"]["requests"]) == (other["uri"], 0)


def test_a_canary_that_never_answers_gets_nothing_and_says_why() -> None:
    cluster = Served()
    cluster.serve(rollout=ROLLOUT)
    cluster.settle()
    cluster.serve(model=BROKEN, rollout=ROLLOUT)
    cluster.settle()
    assert cluster.gateway_env()["CANARY_PERCENT"] == "0"
    body = cluster.body(DEPLOYMENT, CANARY)
    stalled = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    body["status"]["conditions"] = [stalled]
    cluster.api._write(body)
    cluster.deliver()
    cluster.work()
    assert cluster.truths["Failed"] == ("True", "RolloutStalled")
    assert f"{A['uri']} is served as before" in cluster.told_of("Failed")
    assert cluster.models() == {A["uri"]}


def test_a_canary_that_falls_over_is_judged_by_its_answers_and_does_not_begin_anew() -> None:
    cluster = with_canary()
    since = cluster.state["canary"]["since"]
    (pod,) = cluster.pods(CANARY)
    pod["status"]["conditions"], pod["spec"]["is_broken"] = [], True
    cluster.api._write(pod)
    cluster.clock(seconds=61)
    cluster.settle()
    assert cluster.truths["Progressing"] == ("True", "CanaryRunning")
    assert cluster.gateway_env()["CANARY_PERCENT"] == "20"
    cluster.count(canary=(50, 0), stable=(200, 0))
    cluster.settle()
    assert cluster.truths["Progressing"] == ("True", "CanaryRunning"), "what does not answer does not take over"
    assert cluster.state["canary"]["since"] == since


def test_without_surge_a_replica_goes_before_the_next_one_comes() -> None:
    cluster = Served()
    cluster.serve(rollout={"surge": False})
    cluster.settle()
    assert cluster.body(DEPLOYMENT)["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}


@pytest.mark.parametrize("name", [GATEWAY, CANARY])
def test_somebody_elses_objects_are_left_alone(name: str) -> None:
    cluster = Served()
    cluster.serve()
    cluster.settle()
    cluster.put(DEPLOYMENT, name, spec={"replicas": 1})
    cluster.serve(model=B, rollout=ROLLOUT)
    cluster.deliver()
    cluster.work()
    assert cluster.truths["Accepted"] == ("False", "NameTaken")
    assert f"Deployment {name} belongs to something else" in cluster.told_of("Accepted")
    assert cluster.there(DEPLOYMENT) == sorted([STABLE, name])
    assert cluster.models() == {A["uri"]}


def test_a_gateway_that_is_asked_for_no_more_goes_after_its_clients_are_led_elsewhere() -> None:
    cluster = Served()
    cluster.serve(gateway={"replicas": 2})
    cluster.settle()
    assert cluster.state["gatewayReadyReplicas"] == 2
    cluster.serve()
    cluster.settle()
    assert cluster.front() == "server"
    assert (cluster.there(DEPLOYMENT), cluster.there(SERVICE)) == ([STABLE], [STABLE])
    assert cluster.there(NETWORK_POLICY) == [STABLE]
