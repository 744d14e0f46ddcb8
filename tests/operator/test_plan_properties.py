"""Properties of plans, over situations that nobody thought of."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alidade_operator.api import JOB, PYTORCH_JOB, TRAIN_JOB
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile.plan import Plan, TrainingJob
from alidade_operator.resources.observation import Observed, TrainingJobView
from alidade_operator.resources.trainjob import digest_of
from tests.operator.builders import (
    CONFIG,
    NOW,
    after,
    ended_pod,
    evaluated,
    evaluation,
    failure,
    job,
    observed,
    plan,
    pod,
    success,
    training_job,
)

WITH_TRAINJOBS = CONFIG.model_copy(update={"training_backend": "TrainJob"})
configs = st.sampled_from([CONFIG, WITH_TRAINJOBS])
DIGEST = digest_of(plan(job(), observed(), config=WITH_TRAINJOBS).children[0].body)
LAUNCHED = (PYTORCH_JOB, TRAIN_JOB, JOB)
STATES = ("waiting", "running", "suspended", "succeeded", "failed")
PODS = {
    "waiting": lambda attempt: pod(attempt, phase="Pending", ip=None, ready_to_report=False, started_at=None),
    "running": pod,
    "succeeded": lambda attempt: ended_pod(attempt, result=success()),
    "measured": lambda attempt: ended_pod(attempt, result=evaluated()),
    "killed": lambda attempt: ended_pod(attempt, exit_code=137),
    "final": lambda attempt: ended_pod(attempt, exit_code=1, result=failure()),
    "taken": lambda attempt: ended_pod(attempt, exit_code=143, disruption="DeletionByTaintManager"),
    "going": lambda attempt: pod(attempt, disruption="PreemptionByScheduler"),
    "evicted": lambda attempt: pod(attempt, phase="Failed", reason="Evicted", ready_to_report=False),
}

training_jobs = st.builds(
    lambda attempt, kind, state, terminating, owned: training_job(
        attempt, kind=kind, state=state, terminating=terminating, owned=owned, active_since=NOW - timedelta(minutes=1)
    ),
    st.integers(1, 4),
    st.sampled_from([PYTORCH_JOB, TRAIN_JOB]),
    st.sampled_from(STATES),
    st.booleans(),
    st.booleans(),
)
pods = st.builds(lambda make, attempt: make(attempt), st.sampled_from(list(PODS.values())), st.integers(1, 4))
situations = st.builds(
    lambda jobs, pods, document, claims, operator, digest: observed(
        jobs=tuple({item.name: item for item in jobs}.values()),
        pods=tuple({item.name: item for item in pods}.values()),
        document_exists=document,
        claims=frozenset(claims),
        missing_kinds=frozenset(() if operator else ("PyTorchJob", "TrainJob")),
        runtime_digest=digest,
    ),
    st.lists(training_jobs, max_size=4),
    st.lists(pods, max_size=4),
    st.booleans(),
    st.sampled_from([("alidade-workspace", "data"), ("data",), ()]),
    st.booleans(),
    st.sampled_from([DIGEST, ""]),
)
resources = st.builds(
    lambda make, suspend, backoff_limit, deadline, ttl: make(
        suspend=suspend, backoffLimit=backoff_limit, activeDeadlineSeconds=deadline, ttlSecondsAfterFinished=ttl
    ),
    st.sampled_from([job, evaluation]),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from([None, 30, 3600]),
    st.sampled_from([None, 0, 60]),
)
times = st.integers(0, 600).map(lambda seconds: NOW + timedelta(seconds=seconds))


def live(seen: Observed, made: Plan) -> list[TrainingJobView]:
    """Jobs of ours that go on once the plan has been carried out."""
    gone = {item.uid for item in made.deletions}
    return [
        item
        for item in seen.jobs
        if item.owned and not item.terminating and item.uid not in gone and item.state not in ("succeeded", "failed")
    ]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(resources, situations, times, configs)
def test_a_plan_is_the_same_every_time_and_its_status_settles(
    resource: TrainingJob, seen: Observed, now: Any, config: OperatorConfig
) -> None:
    made = plan(resource, seen, now=now, config=config)
    assert plan(resource, seen, now=now, config=config) == made, "deterministic"
    settled, status = resource, made
    for _ in range(3):
        settled = after(settled, status)
        status = plan(settled, seen, now=now, config=config)
    assert status.status is None, "written until nothing is left to write"
    assert not status.notices
    assert type(settled.status).model_validate(settled.status.to_dict()) == settled.status, (
        "what is written reads the same"
    )


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(resources, situations, times, configs)
def test_at_most_one_attempt_is_live_and_none_beside_a_new_one(
    resource: TrainingJob, seen: Observed, now: Any, config: OperatorConfig
) -> None:
    made = plan(resource, seen, now=now, config=config)
    launches = [child for child in made.children if child.kind in LAUNCHED]
    assert len(launches) <= 1
    assert len(live(seen, made)) + len(launches) <= 1
    if launches:
        running = [item for item in seen.pods if not item.ended]
        assert not running, "no pod of an earlier launch writes beside the new one"
        assert launches[0].body["metadata"]["name"] not in {item.name for item in seen.jobs}


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow])
@given(resources, situations, times, configs)
def test_what_is_still_to_do_is_come_back_to(
    resource: TrainingJob, seen: Observed, now: Any, config: OperatorConfig
) -> None:
    """A status write of ours brings no event: what the next plan would do must have been asked for by this one."""
    made = plan(resource, seen, now=now, config=config)
    following = plan(after(resource, made), seen, now=now, config=config)
    still_to_do = following.children or following.deletions or following.look_again_s is not None
    if still_to_do and not (made.children or made.deletions):
        assert made.look_again_s is not None
        if following.look_again_s is not None:
            assert made.look_again_s <= following.look_again_s + 1


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(resources, situations, times, configs)
def test_attempts_never_fall_and_stay_within_the_limit(
    resource: TrainingJob, seen: Observed, now: Any, config: OperatorConfig
) -> None:
    resource = replace(resource, status=resource.status.model_copy(update={"attempts": 1}))
    made = plan(resource, seen, now=now, config=config)
    if made.status is None:
        return
    newest = max([item.attempt for item in seen.jobs if item.owned], default=0)
    assert made.status.attempts >= 1
    spec = resource.spec
    assert spec is not None
    launches = [child for child in made.children if child.kind in LAUNCHED]
    if launches:
        assert made.status.attempts <= max(1, newest, spec.backoff_limit + 1)
