"""Whether an Evaluation can be launched: what its spec names is there, and is of use."""

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from alidade_crds.blocks import Model
from alidade_crds.evaluation import FAILED, LEAKED, SUITE_METRICS, UNFINISHED, EvaluationSpec, Suite, SuiteType
from alidade_crds.reasons import Reason
from alidade_crds.uris import UriError, parse_uri
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import acceptance
from alidade_operator.reconcile.acceptance import Refusal
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.resources.batchjob import longest_name
from alidade_operator.resources.observation import Observed

ANY_SUITE = (LEAKED, FAILED, UNFINISHED)


@dataclass(frozen=True)
class Candidate:
    """An Evaluation whose spec could be parsed, with all that the checks look at."""

    job: TrainingJob
    spec: EvaluationSpec
    observed: Observed
    config: OperatorConfig
    field: str = "spec"


def refusal(candidate: Candidate) -> Refusal | None:
    """The foremost objection to launching, or None."""
    return acceptance.foremost(check(candidate) for check in _CHECKS)


def _name(candidate: Candidate) -> Refusal | None:
    workers = candidate.spec.compute.workers
    return acceptance.name_refusal(candidate.job, longest_name(workers=workers), workers=workers)


def _node_pool(candidate: Candidate) -> Refusal | None:
    return acceptance.node_pool_refusal(candidate.spec.compute, candidate.config, candidate.field)


def _metrics(candidate: Candidate) -> Refusal | None:
    for index, suite in enumerate(candidate.spec.suites):
        for metric in suite.metrics:
            found = metric_refusal(suite, metric, f"{candidate.field}.suites[{index}].metrics")
            if found is not None:
                return found
    return None


def metric_refusal(suite: Suite, metric: str, field: str) -> Refusal | None:
    """The objection to a metric that a suite does not have, or None; some suites' metrics are not known beforehand."""
    known = SUITE_METRICS.get(suite.type)
    if known is None or metric in (*known, *ANY_SUITE):
        return None
    near = difflib.get_close_matches(metric, known, n=3, cutoff=0.4) or list(known)
    return Refusal(
        Reason.METRIC_UNKNOWN,
        f"{field} names {metric}, which a suite of type {suite.type} does not have. Did you mean {' or '.join(near)}?",
    )


def _shared_output(candidate: Candidate) -> Refusal | None:
    spec = candidate.spec
    if spec.compute.workers == 1 or spec.output is None or not spec.output.uri.startswith(("s3://", "gs://")):
        return None
    return Refusal(
        Reason.INVALID_SPEC,
        f"{candidate.field}.output.uri is {spec.output.uri}; {spec.compute.workers} workers share their samples "
        "through the output, which a bucket cannot hold for them. Name a volume (pvc://), or set compute.workers: 1.",
    )


def _uris(candidate: Candidate) -> Refusal | None:
    return acceptance.uris_refusal(
        candidate.spec, candidate.field, candidate.job.namespace, candidate.observed, candidate.config
    )


def _workspace(candidate: Candidate) -> Refusal | None:
    return acceptance.workspace_refusal(
        candidate.spec, candidate.field, candidate.job.namespace, candidate.observed, candidate.config
    )


def _sources(candidate: Candidate) -> Refusal | None:
    if candidate.observed.source_circle:
        circle = " → ".join(candidate.observed.source_circle)
        return Refusal(Reason.REFERENCE_CYCLE, f"{candidate.field} names resources in a circle: {circle}.")
    for field, model in _models(candidate.spec, candidate.field):
        found = _source(candidate, field, model)
        if found is not None:
            return found
    return None


def _models(spec: EvaluationSpec, field: str) -> Iterator[tuple[str, Model]]:
    for index, one in enumerate(spec.models):
        yield f"{field}.models[{index}].model", one.model
    for index, suite in enumerate(spec.suites):
        if suite.reward_model is not None:
            yield f"{field}.suites[{index}].rewardModel", suite.reward_model


def _source(candidate: Candidate, field: str, model: Model) -> Refusal | None:
    source = model.from_
    if source is None:
        return None
    view = candidate.observed.sources[source.kind, source.name]
    found = acceptance.source_refusal(field, f"{source.kind} {source.name}", view)
    if found is not None:
        return found
    assert view.model is not None, "asked by source_refusal"
    try:
        location = parse_uri(view.model.uri)
    except UriError as error:
        return Refusal(
            Reason.REFERENCE_FAILED, f"{source.kind} {source.name} reports a model that cannot be used: {error}."
        )
    where = f"the model of {source.kind} {source.name}"
    return acceptance.volume_refusal(where, location, candidate.job.namespace, candidate.observed)


def _endpoint(candidate: Candidate) -> Refusal | None:
    endpoint, view = candidate.spec.endpoint, candidate.observed.endpoint
    if endpoint is None or endpoint.model_serve is None:
        return None
    named = f"{candidate.field}.endpoint.modelServe names {endpoint.model_serve}"
    if view is None or not view.exists:
        return Refusal(Reason.REFERENCE_PENDING, f"{named}, which does not exist yet.", "Unknown")
    if view.url is None:
        return Refusal(Reason.REFERENCE_PENDING, f"{named}, which does not answer yet.", "Unknown")
    return None


def _rewards(candidate: Candidate) -> Refusal | None:
    """A reward model and a model that answers are trained for different things."""
    for index, suite in enumerate(candidate.spec.suites):
        model = suite.reward_model
        if suite.type in (SuiteType.REWARD, SuiteType.ARENA) and model is not None and model.init is not None:
            return Refusal(
                Reason.INVALID_SPEC,
                f"{candidate.field}.suites[{index}].rewardModel.init has learned nothing: name a trained reward model "
                "by uri or from.",
            )
    return None


_CHECKS: tuple[Callable[[Candidate], Refusal | None], ...] = (
    _name,
    _node_pool,
    _metrics,
    _shared_output,
    _rewards,
    _uris,
    _workspace,
    _sources,
    _endpoint,
)
