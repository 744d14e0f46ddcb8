"""What Flux (by kstatus) and Argo CD (by the script of examples/gitops) make of the statuses that the plans write."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml
from lupa.lua51 import LuaRuntime

from alidade_crds.crd import manifests
from alidade_crds.reasons import ConditionType, Reason
from alidade_crds.status import ResourceStatus
from alidade_operator.conditions import Conditions
from alidade_operator.reconcile.modelserve import plan_model_serve
from tests.operator.builders import (
    CONFIG,
    NOW,
    after,
    ended_pod,
    failure,
    job,
    observed,
    plan,
    pod,
    success,
    training_job,
)
from tests.operator.conftest import ROOT
from tests.operator.test_modelserve import after as after_serve
from tests.operator.test_modelserve import look, running, serve
from tests.operator.test_modelserve import plan as plan_serve

Seen = tuple[str, str]


def kstatus(body: dict[str, Any]) -> str:
    """The rules of kstatus for kinds that it does not know (pkg/kstatus/status/generic.go)."""
    if body["metadata"].get("deletionTimestamp"):
        return "Terminating"
    status = body.get("status") or {}
    if "observedGeneration" in status and status["observedGeneration"] != body["metadata"]["generation"]:
        return "InProgress"
    for one in status.get("conditions", []):
        if one["status"] == "True" and one["type"] in ("Reconciling", "Stalled"):
            return "InProgress" if one["type"] == "Reconciling" else "Failed"
    return "Current"


def health_script() -> str:
    """What Argo CD is told to run for every kind of ours."""
    settings = yaml.safe_load((ROOT / "examples/gitops/argocd/health.yaml").read_text())
    own = yaml.safe_load(settings["data"]["resource.customizations"])
    assert list(own) == ["alidade.dev/*"]
    return str(own["alidade.dev/*"]["health.lua"])


def argo(body: dict[str, Any]) -> tuple[str, str]:
    """Status and message by the script, in the Lua that Argo CD has (5.1), with `obj` as it has it."""
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.globals().obj = lua.table_from(body, recursive=True)
    health = lua.execute(health_script())
    return health["status"], health["message"]


def body_of(status: ResourceStatus, generation: int = 1) -> dict[str, Any]:
    return {"metadata": {"generation": generation}, "status": status.to_dict()}


def seen(status: ResourceStatus) -> Seen:
    body = body_of(status)
    return kstatus(body), argo(body)[0]


ON_ITS_WAY = ("InProgress", "Progressing")
AT_REST = ("Current", "Healthy")
STUCK = ("Failed", "Degraded")


def ended(result: Any, code: int) -> ResourceStatus:
    """The status of a FineTuneJob whose first attempt has ended."""
    begun = after(job(), plan(job(), observed()))
    gone = training_job(state="succeeded" if code == 0 else "failed")
    made = plan(begun, observed(jobs=(gone,), pods=(ended_pod(exit_code=code, result=result),)))
    assert made.status is not None
    return made.status


JOBS: list[tuple[str, Any, Seen]] = [
    ("launched", lambda: plan(job(), observed()).status, ON_ITS_WAY),
    (
        "training",
        lambda: plan(after(job(), plan(job(), observed())), observed(jobs=(training_job(),), pods=(pod(),))).status,
        ON_ITS_WAY,
    ),
    ("waits for a volume", lambda: plan(job(), observed(claims=frozenset({"data"}))).status, ON_ITS_WAY),
    ("unknown pool", lambda: plan(job(compute={"nodePool": "h100"}), observed()).status, STUCK),
    ("suspended", lambda: plan(job(suspend=True), observed()).status, ("Current", "Suspended")),
    ("failed", lambda: ended(failure(), 1), STUCK),
    ("tried again", lambda: ended(failure(retryable=True), 1), ON_ITS_WAY),
    ("succeeded", lambda: ended(success(), 0), AT_REST),
]


@pytest.mark.parametrize(("made", "expected"), [one[1:] for one in JOBS], ids=[one[0] for one in JOBS])
def test_a_job_is_on_its_way_at_rest_or_stuck(made: Any, expected: Seen) -> None:
    assert seen(made()) == expected


def test_a_model_is_on_its_way_at_rest_or_stuck() -> None:
    first = plan_serve(serve())
    assert first.status is not None
    assert seen(first.status) == ON_ITS_WAY
    begun = after_serve(serve(), first)
    there = running(first)
    settled = plan_serve(begun, look(**there))
    assert settled.status is not None
    assert seen(settled.status) == AT_REST
    refused = plan_model_serve(replace(begun, spec=None, spec_error="spec.model is wrong"), look(**there), CONFIG, NOW)
    assert refused.status is not None
    assert seen(refused.status) == STUCK
    _, message = argo(body_of(refused.status))
    assert message.startswith("InvalidSpec: spec.model is wrong")


def test_two_models_that_are_kept_side_by_side_are_at_rest() -> None:
    conditions = Conditions([], generation=1, now=NOW)
    conditions.set(ConditionType.ACCEPTED, "True", Reason.VALID, "Fine.")
    conditions.set(ConditionType.PROGRESSING, "False", Reason.CANARY_KEPT, "Both serve.")
    conditions.summarize("Canary")
    assert seen(ResourceStatus(observed_generation=1, phase="Canary", conditions=conditions.list())) == AT_REST


def test_what_was_stuck_is_dated_anew_and_only_one_of_both_is_there() -> None:
    conditions = Conditions([], generation=1, now=NOW)
    conditions.set(ConditionType.ACCEPTED, "False", Reason.INVALID_SPEC, "No.")
    conditions.summarize("Waiting")
    known = conditions.list()
    later = Conditions(known, generation=2, now=NOW + timedelta(hours=1))
    later.set(ConditionType.ACCEPTED, "True", Reason.VALID, "Fine.")
    later.summarize("Running")
    (summary,) = [one for one in later.list() if one.type in ("Reconciling", "Stalled")]
    assert (summary.type, summary.last_transition_time) == ("Reconciling", NOW + timedelta(hours=1))
    later.summarize("Running")
    assert later.list() == later.list()


def test_what_nobody_has_looked_at_yet_is_not_taken_for_finished() -> None:
    """The API server gives a new resource the default of its status."""
    for manifest in manifests():
        (version,) = manifest["spec"]["versions"]
        status = version["schema"]["openAPIV3Schema"]["properties"]["status"]
        body = {"metadata": {"generation": 1}, "status": status["default"]}
        assert (kstatus(body), argo(body)[0]) == ON_ITS_WAY


def test_a_changed_spec_is_on_its_way_before_the_operator_looks() -> None:
    status = ended(success(), 0)
    body = body_of(status, generation=2)
    assert (kstatus(body), argo(body)[0]) == ON_ITS_WAY
