"""What a plan for a training job needs to know, gathered from the cache and, for what is not in it, from the API."""

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from alidade_crds.contract import GatewayDocument, ProgressDocument
from alidade_crds.evaluation import EvaluationSpec
from alidade_crds.jobs import TrainingJobSpec
from alidade_crds.status import ModelInfo
from alidade_crds.uris import UriError, parse_uri
from alidade_operator.api import (
    CLAIM,
    CONFIG_MAP,
    JOB,
    MODEL_SERVE,
    POD,
    TRAIN_JOB,
    TRAINING_RUNTIME,
    WORKLOADS,
    Api,
    ApiError,
    JsonObject,
    Kind,
)
from alidade_operator.cache import Cache, Key, references
from alidade_operator.config import OperatorConfig
from alidade_operator.jobspecs import addresses
from alidade_operator.reconcile.backends import BACKENDS
from alidade_operator.reconcile.craft import workloads_of
from alidade_operator.reconcile.plan import TrainingJob
from alidade_operator.resources.adapters import LoadedAdapters
from alidade_operator.resources.batchjob import batch_job_view
from alidade_operator.resources.jobdocument import document_name, is_as_written
from alidade_operator.resources.labels import is_owned_by
from alidade_operator.resources.observation import (
    EndpointView,
    Observed,
    PodView,
    QueueView,
    ReplicaLoad,
    SourceView,
    TrainingJobView,
    endpoint_view,
    pod_view,
    queue_view,
    source_view,
)
from alidade_operator.resources.trainjob import digest_of, runtime_name

_VIEWS = {JOB.kind: batch_job_view} | {name: backend.view for name, backend in BACKENDS.items()}


@dataclass(frozen=True)
class Sight:
    """Where observations come from. progress, serving: the newest document of each pod, by the pod's uid. adapters: of
    replicas that load them while they run, what they have, by the same."""

    cache: Cache
    api: Api
    config: OperatorConfig
    progress: Mapping[str, ProgressDocument]
    serving: Mapping[str, GatewayDocument | ReplicaLoad] = field(default_factory=dict)
    adapters: Mapping[str, LoadedAdapters] = field(default_factory=dict)

    async def claims(self, uris: Iterable[str], namespace: str) -> frozenset[str]:
        """Those of the claims that the addresses name which exist, and the workspace's if it does.

        One that the cache does not know is asked for: a claim applied together with the job may reach the watch after
        it.
        """
        found = set()
        for name in sorted({*_roots(uris, "pvc"), self.config.workspace_claim}):
            if self.cache.get(Key(CLAIM.kind, namespace, name)) is not None:
                found.add(name)
                continue
            body = await self.get(CLAIM, namespace, name)
            if body is not None:
                self.cache.put(CLAIM, body)
                found.add(name)
        return frozenset(found)

    async def config_maps(self, uris: Iterable[str], namespace: str) -> dict[str, JsonObject | None]:
        """The ConfigMaps that the addresses name. Users' ConfigMaps are not watched, so each is asked for."""
        return {name: await self.get(CONFIG_MAP, namespace, name) for name in sorted(_roots(uris, "configmap"))}

    async def get(self, kind: Kind, namespace: str, name: str) -> JsonObject | None:
        """An object, or None when it does not exist."""
        try:
            return await self.api.get(kind, namespace, name)
        except ApiError as error:
            if error.not_found:
                return None
            raise


async def observe(job: TrainingJob, sight: Sight, *, start: ModelInfo | None = None) -> Observed:
    """All that a plan for the job depends on.

    start: the model that it starts from, where that is known without the resource that has made it.
    """
    cache = sight.cache
    key = Key(job.kind.kind, job.namespace, job.name)
    workloads = {kind.kind for kind in workloads_of(job.kind)}
    jobs: list[TrainingJobView] = []
    pods: list[PodView] = []
    for child in cache.children(key):
        if child["kind"] in workloads:
            view = _VIEWS[child["kind"]](child, owner_uid=job.uid)
            jobs += [view] if view is not None and view.base == job.base else []
        elif child["kind"] == POD.kind:
            pods.append(pod_view(child))
    jobs += _of_others(job, jobs, cache)
    own = {view.name for view in jobs}
    master = next((pod for pod in pods if pod.is_master and not pod.ended and pod.job_name in own), None)
    source, sources = _source(job, cache), _sources(job, cache)
    may_launch = not any(
        item.status == "True" and item.type in ("Succeeded", "Failed") for item in job.status.conditions
    )
    may_launch &= not any(item.owned and not item.terminating and item.state != "failed" for item in jobs)
    claims: frozenset[str] = frozenset()
    config_maps: dict[str, frozenset[str] | None] = {}
    document: JsonObject | None = None
    runtime_digest = ""
    if job.spec is not None and may_launch:
        uris = [uri for _, uri in addresses(job.spec)]
        known = start or (source.model if source is not None else None)
        models = [known.uri] if known is not None else []
        models += [view.model.uri for view in sources.values() if view.model is not None]
        claims = await sight.claims([*uris, *models], job.namespace)
        config_maps = {name: keys_of(body) for name, body in (await sight.config_maps(uris, job.namespace)).items()}
        document = await sight.get(CONFIG_MAP, job.namespace, document_name(job.base))
        runtime_digest = await _runtime_digest(job, sight)
    is_ours = document is not None and is_owned_by(document["metadata"], job.uid)
    return Observed(
        jobs=tuple(jobs),
        pods=tuple(pods),
        document_exists=document is not None and is_ours and is_as_written(document),
        document_foreign=document is not None and not is_ours,
        claims=claims,
        config_maps=config_maps,
        source=source,
        source_circle=circle(cache, key) if source is not None or sources else (),
        sources=sources,
        endpoint=_endpoint(job, cache),
        progress=sight.progress.get(master.uid) if master is not None else None,
        queue=await _queue(job, jobs, sight),
        runtime_digest=runtime_digest,
        missing_kinds=frozenset(cache.missing_kinds & BACKENDS.keys()),
    )


# Kueue's label of the Workload that it makes for a job.
_JOB_UID_LABEL = "kueue.x-k8s.io/job-uid"
_KUEUE_MISSING = QueueView(
    "KueueMissing", "the cluster has no Kueue; install it, or leave spec.compute.queue out and apply anew"
)


async def _queue(job: TrainingJob, jobs: Iterable[TrainingJobView], sight: Sight) -> QueueView | None:
    """What Kueue says of a job of ours that is held back; None where none is, or where it may not be asked."""
    waiting = next((item for item in jobs if item.owned and item.suspended and not item.terminating), None)
    if waiting is None or job.spec is None or job.spec.compute.queue is None:
        return None
    for kind in WORKLOADS:
        try:
            found, _ = await sight.api.list(kind, namespace=job.namespace, selector=f"{_JOB_UID_LABEL}={waiting.uid}")
        except ApiError as error:
            # Its words are for people; no job waits for the right to read them.
            if error.status == 403:
                return None
            if not error.not_found:
                raise
            continue
        return queue_view(found)
    return _KUEUE_MISSING


def _of_others(job: TrainingJob, jobs: Iterable[TrainingJobView], cache: Cache) -> list[TrainingJobView]:
    """Jobs without our labels under the name of a next launch, known from a creation that was refused."""
    known = {(view.kind.kind, view.name) for view in jobs}
    names = {f"{job.base}-{number}" for number in (max(1, job.status.attempts), job.status.attempts + 1)}
    views = []
    for kind, name in sorted((kind.kind, name) for kind in workloads_of(job.kind) for name in names):
        body = cache.get(Key(kind, job.namespace, name))
        view = _VIEWS[kind](body, owner_uid=job.uid) if body is not None and (kind, name) not in known else None
        views += [view] if view is not None else []
    return views


async def _runtime_digest(job: TrainingJob, sight: Sight) -> str:
    """What tells the TrainingRuntime of the job's attempts from an earlier state of it; empty where there is none."""
    assert job.spec is not None, "an unreadable spec is not launched"
    is_training = TRAIN_JOB in workloads_of(job.kind)
    if not is_training or sight.config.training_backend_of(job.spec.compute.node_pool) != TRAIN_JOB.kind:
        return ""
    body = await sight.get(TRAINING_RUNTIME, job.namespace, runtime_name(job.base, job.uid))
    return digest_of(body) if body is not None else ""


def _source(job: TrainingJob, cache: Cache) -> SourceView | None:
    """The resource that spec.model.from names."""
    source = job.spec.model.from_ if isinstance(job.spec, TrainingJobSpec) else None
    return source_view(cache.get(Key(source.kind, job.namespace, source.name))) if source is not None else None


def _sources(job: TrainingJob, cache: Cache) -> dict[tuple[str, str], SourceView]:
    """The resources whose models an Evaluation takes."""
    if not isinstance(job.spec, EvaluationSpec):
        return {}
    models = [one.model for one in job.spec.models]
    models += [suite.reward_model for suite in job.spec.suites if suite.reward_model is not None]
    named = {(model.from_.kind, model.from_.name) for model in models if model.from_ is not None}
    return {(kind, name): source_view(cache.get(Key(kind, job.namespace, name))) for kind, name in sorted(named)}


def _endpoint(job: TrainingJob, cache: Cache) -> EndpointView | None:
    """The ModelServe that an Evaluation asks."""
    if not isinstance(job.spec, EvaluationSpec) or job.spec.endpoint is None or job.spec.endpoint.model_serve is None:
        return None
    return endpoint_view(cache.get(Key(MODEL_SERVE.kind, job.namespace, job.spec.endpoint.model_serve)))


def circle(cache: Cache, key: Key) -> tuple[str, ...]:
    """`Kind/name` of the resources on a way from a resource that comes back to one of them; empty when none does."""
    seen = {key}

    def follow(path: tuple[Key, ...]) -> tuple[Key, ...]:
        body = cache.get(path[-1])
        for reference in references(body) if body is not None else ():
            if reference in path:
                return (*path, reference)
            if reference not in seen:
                seen.add(reference)
                found = follow((*path, reference))
                if found:
                    return found
        return ()

    return tuple(f"{item.kind}/{item.name}" for item in follow((key,)))


def _roots(uris: Iterable[str], scheme: str) -> set[str]:
    """Claims or ConfigMaps that addresses name; what is no address, acceptance refuses with the field's name."""
    roots = set()
    for uri in uris:
        with contextlib.suppress(UriError):
            location = parse_uri(uri)
            if location.scheme == scheme:
                roots.add(location.root)
    return roots


def keys_of(config_map: JsonObject | None) -> frozenset[str] | None:
    """The keys of a ConfigMap; None for one that does not exist."""
    if config_map is None:
        return None
    return frozenset({**(config_map.get("data") or {}), **(config_map.get("binaryData") or {})})
