"""What a plan for an AlignmentRun needs to know, gathered from the cache and, for what is not in it, from the API."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from alidade_crds.alignmentrun import AlignmentRunStatus, StageStatus
from alidade_crds.evaluation import EvaluationResult
from alidade_crds.status import JobStatus
from alidade_crds.uris import UriError, parse_uri
from alidade_operator.api import (
    ALIGNMENT_RUN,
    EVALUATION,
    FINE_TUNE_JOB,
    MODEL_SERVE,
    REWARD_MODEL,
    JsonObject,
    Kind,
)
from alidade_operator.cache import INPUTS_LABEL, Key, references
from alidade_operator.observe import Sight, circle, keys_of, observe
from alidade_operator.reconcile.alignmentjob import aligned_stage, alignment_job
from alidade_operator.reconcile.backends import BACKENDS
from alidade_operator.reconcile.plan import parse_status
from alidade_operator.reconcile.run import AlignmentRun, ResourceView, ResultView, RunObserved
from alidade_operator.reconcile.runacceptance import all_addresses, is_due
from alidade_operator.reconcile.runchildren import RUN_GENERATION
from alidade_operator.reconcile.stages import stages_of
from alidade_operator.resources.labels import is_owned_by
from alidade_operator.resources.observation import Observed, TrainingJobView

_TRAINING_KINDS = (FINE_TUNE_JOB, REWARD_MODEL)


async def observe_run(run: AlignmentRun, sight: Sight) -> RunObserved:
    """All that a plan for the run depends on."""
    key = Key(ALIGNMENT_RUN.kind, run.namespace, run.name)
    children = list(sight.cache.children(key))
    made = tuple(
        resource_view(child, run.uid) for kind in _TRAINING_KINDS for child in children if child["kind"] == kind.kind
    )
    seen = RunObserved(
        resources=_named(run, key, sight) | {(view.kind, view.name): view for view in made},
        made=made,
        alike=lambda inputs: _alike(run, sight, inputs),
        aligned=lambda inputs: _aligned(run, sight, inputs),
        circle=circle(sight.cache, key),
        data={item.uri: item.digest for item in run.status.data},
        evaluations=_results_of(children, EVALUATION, run.uid),
        serving=_result(sight.cache.get(Key(MODEL_SERVE.kind, run.namespace, run.name)), run.uid),
        other_jobs=_training_jobs(children, run.uid),
    )
    if run.spec is None or run.terminating:
        return seen
    if is_due(run):
        seen = await _with_place(run, seen, sight)
    stages = stages_of(run, seen, sight.config)
    if not stages.are_ready:
        return seen
    job = alignment_job(run, stages, seen, sight.config)
    observed = await observe(job, sight, start=stages.sft.model)
    own = {item.name for item in observed.jobs}
    others = tuple(item for item in seen.other_jobs if item.name not in own)
    return replace(seen, job=observed, other_jobs=others)


def _named(run: AlignmentRun, key: Key, sight: Sight) -> dict[tuple[str, str], ResourceView]:
    """The resources that the spec names and those that stages have taken, as far as they exist."""
    body = sight.cache.get(key)
    named = references(body) if body is not None else []
    named += [Key(stage.kind, run.namespace, stage.ref) for stage in run.status.stages if stage.ref is not None]
    found = {}
    for reference in named:
        other = sight.cache.get(reference)
        if other is not None:
            found[reference.kind, reference.name] = resource_view(other, run.uid)
    return found


def _alike(run: AlignmentRun, sight: Sight, inputs: str) -> Sequence[ResourceView]:
    kinds = {kind.kind for kind in _TRAINING_KINDS}
    return [resource_view(body, run.uid) for body in sight.cache.alike(run.namespace, inputs) if body["kind"] in kinds]


def _aligned(run: AlignmentRun, sight: Sight, inputs: str) -> tuple[str, StageStatus] | None:
    for body in sight.cache.alike(run.namespace, inputs):
        if body["kind"] != ALIGNMENT_RUN.kind or body["metadata"]["uid"] == run.uid:
            continue
        stage = aligned_stage(parse_status(AlignmentRunStatus, body), inputs)
        if stage is not None:
            return body["metadata"]["name"], stage
    return None


def _training_jobs(children: Sequence[JsonObject], uid: str) -> tuple[TrainingJobView, ...]:
    jobs = [child for child in children if child["kind"] in BACKENDS]
    views = [BACKENDS[child["kind"]].view(child, owner_uid=uid) for child in jobs]
    return tuple(view for view in views if view is not None)


async def _with_place(run: AlignmentRun, seen: RunObserved, sight: Sight) -> RunObserved:
    """With what acceptance asks of the namespace, and the digests of the data in it."""
    assert run.spec is not None, "an unreadable spec does not get here"
    uris = [uri for _, uri in all_addresses(run.spec)]
    config_maps = await sight.config_maps(uris, run.namespace)
    place = Observed(
        claims=await sight.claims(uris, run.namespace),
        config_maps={name: keys_of(body) for name, body in config_maps.items()},
        missing_kinds=frozenset(sight.cache.missing_kinds & BACKENDS.keys()),
    )
    # What was taken up with the spec stays, however often a launch of it is refused.
    data = seen.data if run.is_begun else data_digests(uris, config_maps)
    return replace(seen, place=place, data=data)


def data_digests(uris: Sequence[str], config_maps: dict[str, JsonObject | None]) -> dict[str, str]:
    """sha256 of what each configmap:// address holds, as far as it is there."""
    digests = {}
    for uri in uris:
        try:
            location = parse_uri(uri)
        except UriError:  # acceptance refuses it with the field's name
            continue
        body = config_maps.get(location.root) if location.scheme == "configmap" else None
        content = _content(body, location.path) if body is not None else None
        if content is not None:
            digests[uri] = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return digests


def _content(config_map: JsonObject, key: str) -> bytes | None:
    text = (config_map.get("data") or {}).get(key)
    if text is not None:
        return str(text).encode()
    binary = (config_map.get("binaryData") or {}).get(key)
    return base64.b64decode(binary) if binary is not None else None


def resource_view(body: JsonObject, run_uid: str) -> ResourceView:
    """A resource as a stage of the run of that uid sees it."""
    metadata, spec = body["metadata"], body.get("spec") or {}
    return ResourceView(
        kind=body["kind"],
        name=metadata["name"],
        uid=metadata["uid"],
        owned=is_owned_by(metadata, run_uid),
        inputs=(metadata.get("labels") or {}).get(INPUTS_LABEL),
        run_generation=_generation(metadata),
        suspended=bool(spec.get("suspend")),
        deadline_s=spec.get("activeDeadlineSeconds"),
        terminating=bool(metadata.get("deletionTimestamp")),
        status=parse_status(JobStatus, body),
    )


def _generation(metadata: JsonObject) -> int:
    text = (metadata.get("annotations") or {}).get(RUN_GENERATION, "")
    return int(text) if text.isdigit() else 0


def _results_of(children: Sequence[JsonObject], kind: Kind, uid: str) -> tuple[ResultView, ...]:
    """The children of a kind."""
    views = (_result(child, uid) for child in children if child["kind"] == kind.kind)
    return tuple(view for view in views if view is not None)


def _result(body: JsonObject | None, uid: str) -> ResultView | None:
    if body is None:
        return None
    metadata, status = body["metadata"], body.get("status") or {}
    conditions = status.get("conditions") or []
    return ResultView(
        name=metadata["name"],
        uid=metadata["uid"],
        owned=is_owned_by(metadata, uid),
        terminating=bool(metadata.get("deletionTimestamp")),
        is_current=status.get("observedGeneration") == metadata.get("generation", 1),
        run_generation=_generation(metadata),
        spec=body.get("spec") or {},
        conditions={item["type"]: (item["status"], item.get("message", "")) for item in conditions},
        results=_results(status.get("results") or []),
        done=_done(status.get("progress")),
    )


def _done(progress: Any) -> dict[str, float]:
    if not isinstance(progress, dict) or not progress.get("totalSteps"):
        return {}
    return {"step": float(progress.get("step", 0)), "total_steps": float(progress["totalSteps"])}


def _results(items: Sequence[Any]) -> tuple[EvaluationResult, ...]:
    results = []
    for item in items:
        try:
            results.append(EvaluationResult.model_validate(item))
        except ValidationError:  # of a newer version: the gate says that the metric is missing
            continue
    return tuple(results)
