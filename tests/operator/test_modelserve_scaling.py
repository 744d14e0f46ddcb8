"""Rules of autoscaling: what the number of replicas follows, down to none and back, and who sets it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from alidade_crds.modelserve import Autoscaling, ScalingReport
from alidade_operator.api import AUTOSCALER, DEPLOYMENT, DISRUPTION_BUDGET, POD_MONITOR, SCALED_OBJECT
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile.autoscaling import Load, scale
from alidade_operator.resources.observation import ReplicaLoad
from tests.operator.builders import NOW
from tests.operator.served import BROKEN, GATEWAY, STABLE, A, B, Served

QUIET, BUSY = ReplicaLoad(0, 0), ReplicaLoad(0, 1)
TO_ZERO = {"min": 0, "max": 3, "scaleDownAfterSeconds": 60, "target": {"queueDepthPerReplica": 2}}


def asked(**fields: Any) -> Autoscaling:
    """From 1 to 5 replicas, 4 waiting requests each."""
    return Autoscaling.model_validate({"min": 1, "max": 5} | fields)


# The number


@pytest.mark.parametrize(
    ("present", "waiting", "held", "expected"),
    [
        (1, [0], None, 1),
        (1, [4], None, 1),
        (1, [5], None, 2),
        (1, [100], None, 5),
        (2, [3, 6], None, 3),
        (1, [0], 9, 3),
        (2, [None, 9], None, 3),
    ],
)
def test_the_number_is_the_queue_over_the_target_within_bounds(
    present: int, waiting: list[int | None], held: int | None, expected: int
) -> None:
    loads = tuple(ReplicaLoad(one, 1) if one is not None else None for one in waiting)
    assert scale(asked(), Load(present, loads, held), None, NOW).replicas == expected


def test_fewer_replicas_only_once_as_many_were_not_needed_for_the_whole_time() -> None:
    known, now = None, NOW
    seen = []
    # Three are needed once more after 200 seconds, so that the 300 seconds begin anew.
    for seconds, waiting in ((0, 9), (10, 0), (200, 9), (210, 0), (400, 0), (505, 0), (515, 0)):
        now = NOW + timedelta(seconds=seconds)
        present = known.replicas if known is not None else 1
        loads = (ReplicaLoad(waiting, 1), *[QUIET] * (present - 1))
        made = scale(asked(), Load(present, loads, None), known, now)
        known = made.report
        seen.append(made.replicas)
    assert seen == [3, 3, 3, 3, 3, 3, 1]


def test_as_many_stay_as_were_needed_at_most_in_the_meantime() -> None:
    load = Load(4, (ReplicaLoad(6, 1), QUIET, QUIET, QUIET), None)
    first = scale(asked(), load, None, NOW)
    assert (first.replicas, first.report.needed, first.look_again_s) == (4, 2, 300.0)
    later = scale(asked(), Load(4, (QUIET,) * 4, None), first.report, NOW + timedelta(seconds=301))
    assert later.replicas == 2


def test_none_is_taken_away_while_a_replica_says_nothing() -> None:
    known = ScalingReport(replicas=2, needed=1, since=NOW - timedelta(hours=1))
    assert scale(asked(), Load(2, (QUIET, None), None), known, NOW).replicas == 2
    assert scale(asked(), Load(2, (QUIET, QUIET), None), known, NOW).replicas == 1


def test_replicas_that_answer_are_not_taken_away() -> None:
    known = ScalingReport(replicas=2, needed=1, since=NOW - timedelta(hours=1))
    assert scale(asked(), Load(2, (BUSY, BUSY), None), known, NOW).replicas == 2


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(1, (QUIET,), 0), 0),
        (Load(1, (QUIET,), None), 1),
        (Load(1, (BUSY,), 0), 1),
        (Load(1, (QUIET,), 0, passed_on=1), 1),
        (Load(1, (QUIET,), 0, last_request_at=NOW - timedelta(seconds=299)), 1),
        (Load(1, (QUIET,), 0, last_request_at=NOW - timedelta(seconds=301)), 0),
        (Load(0, (), 1), 1),
        (Load(0, (), 0), 0),
        (Load(0, (), 40), 5),
    ],
)
def test_the_last_replica_goes_when_nobody_asks_and_the_gateway_holds_the_next_request(
    load: Load, expected: int
) -> None:
    known = ScalingReport(replicas=1, needed=0, since=NOW - timedelta(hours=1))
    assert scale(asked(min=0), load, known, NOW).replicas == expected


# The ModelServe


def idle() -> Served:
    """A ModelServe that has been scaled to zero."""
    cluster = Served()
    cluster.serve(autoscaling=TO_ZERO)
    cluster.settle()
    assert (cluster.replicas(), cluster.models()) == (1, {A["uri"]}), "it shows first that it can be served"
    cluster.load()
    cluster.count()
    cluster.settle()
    cluster.clock(seconds=61)
    cluster.settle()
    return cluster


def test_without_requests_no_replica_is_left_and_the_next_request_starts_one() -> None:
    cluster = idle()
    assert (cluster.replicas(), cluster.front(), cluster.state["phase"]) == (0, "gateway", "Idle")
    assert cluster.truths["Available"] == ("True", "ScaledToZero")
    assert cluster.truths["Progressing"] == ("False", "Completed")
    assert cluster.state["model"] == A["uri"]
    assert cluster.gateway_env()["HOLD_S"] == "300"
    cluster.count(waiting=1)
    cluster.settle()
    assert (cluster.replicas(), cluster.models()) == (1, {A["uri"]})
    assert cluster.reasons().count("Autoscaled") == 2
    assert cluster.truths["Available"] == ("True", "Serving")


def test_a_new_model_is_started_once_even_while_nobody_asks() -> None:
    cluster = idle()
    cluster.serve(model=B, autoscaling=TO_ZERO)
    cluster.deliver()
    cluster.work()
    assert cluster.replicas() == 1
    cluster.settle()
    cluster.load()
    assert (cluster.models(), cluster.truths["Progressing"]) == ({B["uri"]}, ("False", "Completed"))


def test_replicas_follow_the_load_while_the_spec_cannot_be_served() -> None:
    cluster = idle()
    cluster.serve(model={"uri": "pvc://lost/model"}, autoscaling=TO_ZERO)
    cluster.settle()
    assert cluster.truths["Accepted"] == ("False", "VolumeMissing")
    cluster.count(waiting=1)
    cluster.settle()
    assert (cluster.replicas(), cluster.models()) == (1, {A["uri"]})


def test_the_gateway_stays_until_there_is_a_replica_again() -> None:
    cluster = idle()
    cluster.serve(model=BROKEN, replicas=1)
    cluster.settle()
    assert cluster.front() == "gateway", "it holds requests; there is nobody else"
    cluster.serve(replicas=1)
    cluster.settle()
    assert (cluster.front(), cluster.there(DEPLOYMENT)) == ("server", [STABLE])


def test_queues_start_replicas_and_a_budget_guards_them() -> None:
    cluster = Served()
    cluster.serve(autoscaling={"min": 1, "max": 3})
    cluster.settle()
    assert cluster.there(DEPLOYMENT) == [STABLE], "nothing needs a gateway"
    assert cluster.there(DISRUPTION_BUDGET) == [STABLE]
    assert cluster.truths["Scaling"] == ("Unknown", "LoadUnknown")
    cluster.load(waiting=9)
    cluster.settle()
    assert cluster.replicas() == 3
    assert cluster.truths["Scaling"] == ("True", "Autoscaled")


def test_several_gateways_have_a_budget_of_their_own_and_one_has_none() -> None:
    cluster = Served()
    cluster.serve(gateway={"replicas": 2})
    cluster.settle()
    assert cluster.there(DISRUPTION_BUDGET) == [GATEWAY]
    budget = cluster.body(DISRUPTION_BUDGET, GATEWAY)["spec"]
    labels = cluster.body(DEPLOYMENT, GATEWAY)["spec"]["template"]["metadata"]["labels"]
    assert budget["maxUnavailable"] == 1
    assert budget["selector"]["matchLabels"].items() <= labels.items()
    cluster.serve(gateway={})
    cluster.settle()
    assert cluster.there(DISRUPTION_BUDGET) == []


def test_an_autoscaler_of_the_cluster_sets_the_number_and_is_not_contradicted() -> None:
    cluster = Served()
    cluster.serve(autoscaling={"min": 2, "max": 4, "provider": "hpa"})
    cluster.settle()
    assert cluster.replicas() == 2
    spec = cluster.body(AUTOSCALER)["spec"]
    assert spec["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": STABLE}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 4)
    assert spec["metrics"][0]["pods"]["metric"]["name"] == "tgi_queue_size"
    body = cluster.body(DEPLOYMENT)
    body["spec"]["replicas"] = 4
    body["metadata"]["generation"] += 1
    cluster.api._write(body)
    cluster.settle()
    cluster.serve(model=B, autoscaling={"min": 2, "max": 4, "provider": "hpa"})
    cluster.settle()
    assert (cluster.replicas(), cluster.models()) == (4, {B["uri"]})
    cluster.serve(model=B, autoscaling={"min": 2, "max": 4})
    cluster.settle()
    assert cluster.there(AUTOSCALER) == []


def test_what_an_autoscaler_lacks_is_said_in_its_words() -> None:
    cluster = Served()
    cluster.serve(autoscaling={"min": 1, "max": 4, "provider": "hpa"})
    cluster.settle()
    body = cluster.body(AUTOSCALER)
    told = {"type": "ScalingActive", "status": "False", "message": "no metrics returned from custom metrics API"}
    body["status"] = {"conditions": [told]}
    cluster.api._write(body)
    cluster.settle()
    assert cluster.truths["Scaling"] == ("Unknown", "LoadUnknown")
    assert "no metrics returned" in cluster.told_of("Scaling")


def test_keda_asks_prometheus_for_queues_and_held_requests() -> None:
    cluster = Served(OperatorConfig(prometheus_url="http://prometheus:9090"))
    cluster.serve(autoscaling={"min": 0, "max": 4, "provider": "keda"})
    cluster.settle()
    spec = cluster.body(SCALED_OBJECT)["spec"]
    assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (0, 4)
    (trigger,) = spec["triggers"]
    assert trigger["metadata"]["serverAddress"] == "http://prometheus:9090"
    assert "modelserve_gateway_waiting" in trigger["metadata"]["query"]


def test_what_the_cluster_does_not_know_is_told_and_nothing_else_waits_for_it() -> None:
    cluster = Served(OperatorConfig(prometheus_url="http://prometheus:9090", pod_monitors=True))
    cluster.operator._cache.missing_kinds |= {SCALED_OBJECT.kind, POD_MONITOR.kind}
    cluster.serve(autoscaling={"min": 1, "max": 4, "provider": "keda"})
    cluster.settle()
    assert cluster.truths["Scaling"] == ("False", "AutoscalerMissing")
    assert cluster.truths["Monitored"] == ("False", "MonitoringMissing")
    assert (cluster.there(SCALED_OBJECT), cluster.there(POD_MONITOR)) == ([], [])
    assert cluster.truths["Available"] == ("True", "Serving")


def test_keda_without_a_prometheus_is_refused_with_the_setting() -> None:
    cluster = Served()
    cluster.serve(autoscaling={"min": 1, "max": 4, "provider": "keda"})
    cluster.settle()
    assert cluster.truths["Accepted"] == ("False", "InvalidSpec")
    assert "no prometheusUrl" in cluster.told_of("Accepted")


def test_monitors_name_the_pods_where_they_are_asked_for() -> None:
    cluster = Served(OperatorConfig(pod_monitors=True))
    cluster.serve(gateway={})
    cluster.settle()
    spec = cluster.body(POD_MONITOR)["spec"]
    assert spec["podMetricsEndpoints"] == [{"port": "http", "path": "/metrics"}]
    (expression,) = spec["selector"]["matchExpressions"]
    assert expression["values"] == ["server", "canary", "gateway"]
    assert cluster.truths["Monitored"][0] == "True"


def test_stopping_is_no_scaling() -> None:
    cluster = Served()
    cluster.serve(replicas=1, gateway={})
    cluster.settle()
    cluster.serve(replicas=0, gateway={})
    cluster.settle()
    assert (cluster.replicas(), cluster.state["phase"]) == (0, "Stopped")
    assert cluster.truths["Available"] == ("False", "Stopped")
    assert "Scaling" not in cluster.truths
