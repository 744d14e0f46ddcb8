"""What a plan for a FineTuneJob needs to know, gathered from the cache and, for what is not in it, from the API."""

import contextlib
from collections.abc import Iterable, Mapping

from alidade_crds.contract import ProgressDocument
from alidade_crds.jobs import FineTuneJobSpec
from alidade_crds.uris import UriError, parse_uri
from alidade_operator.api import CLAIM, CONFIG_MAP, POD, PYTORCH_JOB, Api, ApiError, JsonObject, Kind
from alidade_operator.cache import Cache, Key, model_reference
from alidade_operator.config import OperatorConfig
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


async def observe(
    job: FineTuneJob, *, cache: Cache, api: Api, config: OperatorConfig, progress: Mapping[str, ProgressDocument]
) -> Observed:
    """All that a plan for the job depends on. progress: the newest document of each pod, by the pod's uid."""
    key = Key("FineTuneJob", job.namespace, job.name)
    jobs: list[TrainingJobView] = []
    pods: list[PodView] = []
    for child in cache.children(key):
        if child["kind"] == PYTORCH_JOB.kind:
            view = training_job_view(child, owner_uid=job.uid)
            jobs += [view] if view is not None else []
        elif child["kind"] == POD.kind:
            pods.append(pod_view(child))
    jobs += _of_others(job, {view.name for view in jobs}, cache)
    master = next((pod for pod in pods if pod.is_master and not pod.ended), None)
    source, chain = _source(cache, key)
    may_launch = not any(
        item.status == "True" and item.type in ("Succeeded", "Failed") for item in job.status.conditions
    )
    may_launch &= not any(item.owned and not item.terminating and item.state != "failed" for item in jobs)
    claims: set[str] = set()
    config_maps: dict[str, frozenset[str] | None] = {}
    document: JsonObject | None = None
    if job.spec is not None and may_launch:
        claims = await _claims(job.spec, job.namespace, source, cache=cache, api=api, config=config)
        config_maps = await _config_maps(job.spec, job.namespace, api)
        document = await _get(api, CONFIG_MAP, job.namespace, document_name(job.name))
    return Observed(
        jobs=tuple(jobs),
        pods=tuple(pods),
        document_exists=document is not None and is_owned_by(document["metadata"], job.uid),
        document_foreign=document is not None and not is_owned_by(document["metadata"], job.uid),
        claims=frozenset(claims),
        config_maps=config_maps,
        source=source,
        source_chain=chain,
        progress=progress.get(master.uid) if master is not None else None,
        training_operator=PYTORCH_JOB.kind not in cache.missing_kinds,
    )


def _of_others(job: FineTuneJob, known: set[str], cache: Cache) -> list[TrainingJobView]:
    """PyTorchJobs without our labels under the name of a next launch, known from a creation that was refused."""
    views = []
    for number in (max(1, job.status.attempts), job.status.attempts + 1):
        name = f"{job.name}-{number}"
        body = cache.get(Key(PYTORCH_JOB.kind, job.namespace, name))
        view = training_job_view(body, owner_uid=job.uid) if body is not None and name not in known else None
        if view is not None:
            known.add(name)
            views.append(view)
    return views


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


def _roots(uris: Iterable[str], scheme: str) -> set[str]:
    """Claims or ConfigMaps that addresses name; what is no address, acceptance refuses with the field's name."""
    roots = set()
    for uri in uris:
        with contextlib.suppress(UriError):
            location = parse_uri(uri)
            if location.scheme == scheme:
                roots.add(location.root)
    return roots


async def _claims(
    spec: FineTuneJobSpec,
    namespace: str,
    source: SourceView | None,
    *,
    cache: Cache,
    api: Api,
    config: OperatorConfig,
) -> set[str]:
    """Those of the claims that the job needs which exist.

    One that the cache does not know is asked for: a claim applied together with the job may reach the watch after it.
    """
    uris = [uri for _, uri in addresses(spec)]
    if source is not None and source.model is not None:
        uris.append(source.model.uri)
    needed = _roots(uris, "pvc") | ({config.workspace_claim} if spec.output is None else set())
    found = set()
    for name in sorted(needed):
        if cache.get(Key(CLAIM.kind, namespace, name)) is not None:
            found.add(name)
            continue
        body = await _get(api, CLAIM, namespace, name)
        if body is not None:
            cache.put(CLAIM, body)
            found.add(name)
    return found


async def _config_maps(spec: FineTuneJobSpec, namespace: str, api: Api) -> dict[str, frozenset[str] | None]:
    """Keys of the ConfigMaps that the job reads. Users' ConfigMaps are not watched, so each is asked for."""
    found: dict[str, frozenset[str] | None] = {}
    for name in sorted(_roots((uri for _, uri in addresses(spec)), "configmap")):
        body = await _get(api, CONFIG_MAP, namespace, name)
        keys = {**(body.get("data") or {}), **(body.get("binaryData") or {})} if body is not None else None
        found[name] = frozenset(keys) if keys is not None else None
    return found


async def _get(api: Api, kind: Kind, namespace: str, name: str) -> JsonObject | None:
    """An object, or None when it does not exist."""
    try:
        return await api.get(kind, namespace, name)
    except ApiError as error:
        if error.not_found:
            return None
        raise
