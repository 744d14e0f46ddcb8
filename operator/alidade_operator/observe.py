"""What a plan for a FineTuneJob needs to know, gathered from the cache and, for users' ConfigMaps, from the API."""

from collections.abc import Iterator, Mapping

from alidade_crds.contract import ProgressDocument
from alidade_crds.jobs import FineTuneJobSpec
from alidade_crds.uris import UriError, parse_uri
from alidade_operator.api import CLAIM, CONFIG_MAP, POD, PYTORCH_JOB, Api, ApiError
from alidade_operator.cache import Cache, Key, model_reference
from alidade_operator.reconcile.acceptance import addresses
from alidade_operator.reconcile.plan import FineTuneJob
from alidade_operator.resources.jobdocument import document_name
from alidade_operator.resources.labels import is_owned_by
from alidade_operator.resources.observation import (
    Observed,
    PodView,
    SourceView,
    TrainingJobView,
    pod_view,
    source_view,
    training_job_view,
)


async def observe(job: FineTuneJob, *, cache: Cache, api: Api, progress: Mapping[str, ProgressDocument]) -> Observed:
    """All that a plan for the job depends on. progress: the newest document of each pod, by the pod's uid."""
    key = Key("FineTuneJob", job.namespace, job.name)
    jobs: list[TrainingJobView] = []
    pods: list[PodView] = []
    document: bool | None = None
    for child in cache.children(key):
        if child["kind"] == PYTORCH_JOB.kind:
            view = training_job_view(child, owner_uid=job.uid)
            jobs += [view] if view is not None else []
        elif child["kind"] == POD.kind:
            pods.append(pod_view(child))
        elif child["kind"] == CONFIG_MAP.kind and child["metadata"]["name"] == document_name(job.name):
            document = is_owned_by(child["metadata"], job.uid)
    master = next((pod for pod in pods if pod.is_master and not pod.ended), None)
    source, chain = _source(cache, key)
    under_way = any(item.owned and not item.terminating and item.state not in ("failed",) for item in jobs)
    looked_up = {} if job.spec is None or under_way else await _config_maps(job.spec, job.namespace, api)
    return Observed(
        jobs=tuple(jobs),
        pods=tuple(pods),
        document_exists=document is True,
        document_foreign=document is False,
        claims=frozenset(
            claim["metadata"]["name"] for claim in cache.all(CLAIM) if claim["metadata"]["namespace"] == job.namespace
        ),
        config_maps=looked_up,
        source=source,
        source_chain=chain,
        progress=progress.get(master.uid) if master is not None else None,
        training_operator=PYTORCH_JOB.kind not in cache.missing_kinds,
    )


def _source(cache: Cache, key: Key) -> tuple[SourceView | None, tuple[str, ...]]:
    """The resource that the model comes from, and the chain of sources up to its end or to where it meets itself."""
    body = cache.get(key)
    reference = model_reference(body) if body is not None else None
    if reference is None:
        return None, ()
    source = source_view(cache.get(reference))
    chain: list[Key] = []
    while reference is not None:
        repeated = reference == key or reference in chain
        chain.append(reference)
        following = cache.get(reference)
        reference = model_reference(following) if following is not None and not repeated else None
    return source, tuple(f"{item.kind}/{item.name}" for item in chain)


def config_map_names(spec: FineTuneJobSpec) -> Iterator[str]:
    """ConfigMaps that the spec's addresses name."""
    for _, uri in addresses(spec):
        try:
            location = parse_uri(uri)
        except UriError:
            continue  # acceptance refuses it with the field's name
        if location.scheme == "configmap":
            yield location.root


async def _config_maps(spec: FineTuneJobSpec, namespace: str, api: Api) -> dict[str, frozenset[str] | None]:
    found: dict[str, frozenset[str] | None] = {}
    for name in sorted(set(config_map_names(spec))):
        try:
            body = await api.get(CONFIG_MAP, namespace, name)
        except ApiError as error:
            if not error.not_found:
                raise
            found[name] = None
        else:
            found[name] = frozenset({**(body.get("data") or {}), **(body.get("binaryData") or {})})
    return found
