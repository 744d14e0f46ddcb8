"""What has to hold of a run whatever was done to it. Every check answers with what is wrong, in sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from alidade_operator.api import ALIGNMENT_RUN, EVALUATION, FINE_TUNE_JOB, JOB, MODEL_SERVE, PYTORCH_JOB, REWARD_MODEL
from tests.chaos.standin import CHECKPOINT_EVERY
from tests.chaos.trial import Body, Trial
from tests.chaos.volume import WORKSPACE

RESOURCES = (ALIGNMENT_RUN, FINE_TUNE_JOB, REWARD_MODEL, EVALUATION, MODEL_SERVE)
ATTEMPTS = (PYTORCH_JOB, JOB)


def course(status: Body) -> Body:
    """What a run has come to, without when and in how many attempts."""
    return {
        "phase": status.get("phase"),
        "conditions": {one["type"]: one["status"] for one in status.get("conditions", [])},
        "stages": [
            {key: stage.get(key) for key in ("name", "phase", "reused", "metrics")}
            | {"digest": (stage.get("model") or {}).get("digest")}
            for stage in status.get("stages", [])
        ],
        "digest": (status.get("model") or {}).get("digest"),
    }


def ends_as_undisturbed(trial: Trial, status: Body, undisturbed: Body) -> Iterator[str]:
    """The run ends as it would have: the same conditions, stages, metrics and models."""
    del trial
    ended, expected = course(status), course(undisturbed)
    for part, value in expected.items():
        if ended[part] != value:
            yield f"status.{part} is {ended[part]}, and would have been {value}"


def nothing_twice(
    trial: Trial, ledger: list[Body], *, restarts: bool, counts: Counter[tuple[str, str]]
) -> Iterator[str]:
    """No stage is run twice, nor by two at a time. restarts: whether processes may have begun again.

    ledger: what the stand-ins have noted. counts: what an undisturbed run makes.
    """
    for (kind, name), uids in trial.record.made.items():
        if len(uids) > 1 and (kind, name) not in trial.remade:
            yield f"{kind} {name} was made {len(uids)} times"
    if not trial.remade:
        kinds = RESOURCES if restarts else RESOURCES + ATTEMPTS
        names = {kind.kind for kind in kinds}
        made, expected = trial.record.counts(*kinds), {key: n for key, n in counts.items() if key[0] in names}
        if dict(made) != expected:
            yield f"{dict(made)} were made in place of {expected}"
    yield from _noted(trial, ledger, restarts=restarts)


def _noted(trial: Trial, ledger: list[Body], *, restarts: bool) -> Iterator[str]:
    begins: Counter[tuple[str, str]] = Counter()
    ends: Counter[tuple[str, str]] = Counter()
    steps: Counter[tuple[str, str, int]] = Counter()
    for line in ledger:
        job = (line["kind"], line["name"])
        if line["event"] == "overlap":
            yield f"two processes wrote to the output of {job}: {line['pod']} came while another was there"
        begins[job] += line["event"] == "begin" and line["rank"] == 0
        ends[job] += line["event"] == "end"
        if line["event"] == "step":
            steps[*job, line["step"]] += 1
    if trial.remade:
        return
    for job, count in ends.items():
        if count > 1:
            yield f"{job} was brought to its end {count} times"
    for job, count in begins.items():
        if count > 1 and not restarts:
            yield f"{job} was begun {count} times, though nobody had ended it"
    lost = Counter({job: sum(n - 1 for (*one, _), n in steps.items() if tuple(one) == job) for job in begins})
    for job, count in lost.items():
        if count > CHECKPOINT_EVERY * (begins[job] - 1):
            yield f"{job} did {count} steps again in {begins[job]} attempts: more than a checkpoint holds back"


def models(status: Body) -> dict[str, str]:
    """Digests of the models that a status tells of, by their paths on the volume."""
    told = [stage.get("model") for stage in status.get("stages", [])] + [status.get("model")]
    return {model["uri"].removeprefix(f"pvc://{WORKSPACE}/"): model["digest"] for model in filter(None, told)}


def models_are_there(status: Body, digests: dict[str, str]) -> Iterator[str]:
    """No result is lost, and the status is true of the disk: each model lies where it is said to, with its digest.

    digests: of what lies there, by path.
    """
    for path, digest in models(status).items():
        if digests[path] != digest:
            yield f"the status tells of {digest} at {path}, where {digests[path]} lies"


def statuses_were_true(trial: Trial) -> Iterator[str]:
    """No status says that a run has both succeeded and failed, takes an end back, or lets a stage fall back."""
    settled: dict[str, Any] = {}
    generation, ended = -1, ""  # a status that nobody has written yet says -1
    for status in trial.record.statuses:
        truths = {one["type"] for one in status.get("conditions", []) if one["status"] == "True"}
        if {"Succeeded", "Failed"} <= truths:
            yield "a status said both Succeeded and Failed"
        if status.get("observedGeneration", -1) < generation:
            yield f"observedGeneration fell from {generation}"
        if status.get("observedGeneration", -1) > generation:
            generation, ended, settled = status["observedGeneration"], "", {}
        if ended and ended not in truths:
            yield f"{ended} was taken back"
        ended = next(iter(sorted(truths & {"Succeeded", "Failed"})), "")
        now = {one["name"]: (one["phase"], one.get("model")) for one in status.get("stages", [])}
        for name, (phase, model) in settled.items():
            if phase == "Succeeded" and now.get(name) != (phase, model) and not trial.remade:
                yield f"stage {name} was {phase} with {model}, and then {now.get(name)}"
        settled = now


async def nothing_orphaned(trial: Trial) -> list[str]:
    """Everything that carries the operator's labels has an owner that is there."""
    everything = await trial.owned()
    there = {body["metadata"]["uid"] for _, body in everything}
    for kind, name, _ in trial.workload.resources:
        there.add((await trial.rig.api.get(kind, trial.namespace, name))["metadata"]["uid"])
    return [
        f"{kind.kind} {body['metadata']['name']} belongs to nobody who is there"
        for kind, body in everything
        if not there & {owner["uid"] for owner in body["metadata"].get("ownerReferences") or []}
    ]
