"""An Evaluation as a job: what it is told, the Job that it is, and what comes out."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from alidade_crds.blocks import Model
from alidade_crds.contract import (
    ENDPOINT_KEY_ENV,
    ENDPOINT_URL_ENV,
    JUDGE_KEY_ENV,
    EvaluationDocument,
    JobEndpoint,
    JobEvaluatedModel,
    JobModel,
    JobSuite,
    Owner,
    ResultDocument,
)
from alidade_crds.evaluation import Endpoint, EvaluationResult, EvaluationSpec, Suite
from alidade_crds.jobs import JobBlocks
from alidade_crds.status import Progress
from alidade_operator.api import JOB, JsonObject, Kind
from alidade_operator.config import NodePool, OperatorConfig
from alidade_operator.reconcile import evaluationacceptance
from alidade_operator.reconcile.acceptance import Refusal, model_of
from alidade_operator.reconcile.draft import Draft
from alidade_operator.reconcile.evaluationfit import evaluation_verdict
from alidade_operator.reconcile.fit import Verdict
from alidade_operator.reconcile.launching import Launch, default_output
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.resources.attempt import Attempt, processes_per_worker
from alidade_operator.resources.batchjob import batch_job
from alidade_operator.resources.jobdocument import Document, document_mounts, document_name
from alidade_operator.resources.observation import EVALUATION_CONTAINER, Observed
from alidade_operator.resources.trainingpod import Program

KEY = "api-key"
"""Key of a Secret that holds a bearer token."""
MOST_RESULTS = 1024
_VERDICTS = ("better", "worse", "indistinguishable")


@dataclass(frozen=True)
class Evaluating:
    """An evaluation: a Job whose pods share the prompts."""

    workloads: tuple[Kind, ...] = (JOB,)
    component: str = "evaluation"
    saves_memory: str = "set spec.precision: bf16"
    image_setting: str = "evalImage"
    warning: str = "EvaluationWarning"

    def refusal(self, job: TrainingJob, spec: JobBlocks, observed: Observed, config: OperatorConfig) -> Refusal | None:
        """As `Craft.refusal`."""
        return evaluationacceptance.refusal(evaluationacceptance.Candidate(job, of_evaluation(spec), observed, config))

    def verdict(self, spec: JobBlocks, observed: Observed, pool: NodePool) -> Verdict:
        """As `Craft.verdict`."""
        return evaluation_verdict(of_evaluation(spec), observed, pool)

    def document(self, launch: Launch) -> EvaluationDocument:
        """As `Craft.document`."""
        job, spec, observed = launch.job, of_evaluation(launch.spec), launch.observed
        return EvaluationDocument(
            owner=Owner(kind=job.kind.kind, namespace=job.namespace, name=job.name, uid=job.uid),
            models=[JobEvaluatedModel(name=one.name, model=job_model(one.model, observed)) for one in spec.models],
            endpoint=_endpoint(spec, observed),
            baseline=spec.compared_with(),
            suites=[_suite(suite, observed) for suite in spec.suites],
            leak_check=spec.leak_check,
            precision=spec.precision,
            seed=spec.seed,
            workers=spec.compute.workers,
            processes_per_worker=processes_per_worker(spec.compute),
            output=spec.output.uri if spec.output is not None else default_output(job, launch.config),
        )

    def workload(self, launch: Launch) -> Kind:  # noqa: ARG002
        """As `Craft.workload`."""
        return JOB

    def runtime(self, launch: Launch, attempt: Attempt, document: Document) -> None:
        """As `Craft.runtime`."""

    def body(self, launch: Launch, attempt: Attempt, document: Document) -> JsonObject:
        """As `Craft.body`."""
        spec, config = of_evaluation(launch.spec), launch.config
        program = Program(
            EVALUATION_CONTAINER, ("alidade-eval", "run"), config.eval_image, tuple(_environment(spec, launch.observed))
        )
        return batch_job(
            attempt,
            program,
            component=self.component,
            compute=spec.compute,
            mounts=document_mounts(document, document_name(launch.job.base), launch.config),
            pool=launch.pool,
            config=config,
        )

    def has_result(self, result: ResultDocument) -> bool:
        """As `Craft.has_result`. Results that cannot be unpacked are lost: another attempt reports them again."""
        if result.evaluation is None:
            return False
        try:
            result.evaluation.results()
        except ValueError:
            return False
        return True

    def take(self, draft: Draft, result: ResultDocument, spec: JobBlocks | None) -> str:
        """As `Craft.take`."""
        assert result.evaluation is not None, "asked before by has_result"
        results = result.evaluation.results()
        omitted = result.evaluation.omitted + max(0, len(results) - MOST_RESULTS)
        verdict = counted_verdicts(results)
        draft.state(results=results[:MOST_RESULTS], omitted=omitted or None, verdict=verdict)
        if spec is not None:
            draft.state(baseline=of_evaluation(spec).compared_with())
        rest = f" {omitted} more are in results.json beside the report." if omitted else ""
        return f"{len(results)} numbers. {verdict or 'One model, compared with none'}.{rest}"

    def shown(self, progress: Progress) -> dict[str, Any]:
        """As `Craft.shown`."""
        return {"done": f"{progress.step}/{progress.total_steps}"}


def of_evaluation(spec: JobBlocks) -> EvaluationSpec:
    """The spec as what the kind says it is."""
    assert isinstance(spec, EvaluationSpec), "the kind tells the spec's type"
    return spec


def job_model(model: Model, observed: Observed) -> JobModel:
    """A model with its reference resolved."""
    source = observed.sources.get((model.from_.kind, model.from_.name)) if model.from_ is not None else None
    uri, digest = model_of(model, source)
    return JobModel(uri=uri, digest=digest, trust_remote_code=model.trust_remote_code)


def _suite(suite: Suite, observed: Observed) -> JobSuite:
    reward = job_model(suite.reward_model, observed) if suite.reward_model is not None else None
    fields = {name: getattr(suite, name) for name in type(suite).model_fields if name != "reward_model"}
    return JobSuite(**fields, reward=reward)


def _endpoint(spec: EvaluationSpec, observed: Observed) -> JobEndpoint | None:
    endpoint = spec.endpoint
    if endpoint is None:
        return None
    return JobEndpoint(
        name=endpoint.name,
        url=_endpoint_url(endpoint, observed),
        api=endpoint.api,
        model=endpoint.model,
        concurrency=endpoint.concurrency,
        timeout_seconds=endpoint.timeout_seconds,
        retries=endpoint.retries,
    )


def _endpoint_url(endpoint: Endpoint, observed: Observed) -> str:
    url = endpoint.url or (observed.endpoint.url if observed.endpoint is not None else None)
    assert url is not None, "checked before the launch"
    return url


def _environment(spec: EvaluationSpec, observed: Observed) -> Iterator[dict[str, Any]]:
    """Where a ModelServe is, and bearer tokens from Secrets, which the operator itself never reads."""
    if spec.endpoint is not None and spec.endpoint.model_serve is not None:
        yield {"name": ENDPOINT_URL_ENV, "value": _endpoint_url(spec.endpoint, observed)}
    if spec.endpoint is not None and spec.endpoint.secret_name is not None:
        yield _secret(ENDPOINT_KEY_ENV, spec.endpoint.secret_name)
    for place, suite in enumerate(spec.suites):
        if suite.judge is not None and suite.judge.secret_name is not None:
            yield _secret(JUDGE_KEY_ENV.format(place), suite.judge.secret_name)


def _secret(variable: str, name: str) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": KEY}}}


def counted_verdicts(results: list[EvaluationResult]) -> str | None:
    """The verdicts of each model, as `aligned: 7 better, 1 worse, 2 indistinguishable`; None without any."""
    counts: dict[str, Counter[str]] = {}
    for result in results:
        if result.verdict is not None:
            counts.setdefault(result.model, Counter())[result.verdict] += 1
    said = [
        f"{model}: " + ", ".join(f"{found[word]} {word}" for word in _VERDICTS if found[word])
        for model, found in counts.items()
    ]
    text = "; ".join(said)
    return (text if len(text) <= 256 else text[:255] + "…") or None
