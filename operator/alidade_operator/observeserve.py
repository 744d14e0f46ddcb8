"""What a plan for a ModelServe needs to know, gathered from the cache and, for what is not in it, from the API."""

from dataclasses import replace

from alidade_operator.api import DEPLOYMENT, JOB, MODEL_SERVE, POD, SERVICE, Kind
from alidade_operator.cache import Key
from alidade_operator.observe import Sight, circle, observe
from alidade_operator.reconcile.serve import (
    ChildView,
    ModelServe,
    ServeObserved,
    child_view,
    model_address,
    quantization_job,
)
from alidade_operator.resources.observation import Observed, batch_job_view, pod_view, source_view
from alidade_operator.resources.serving import selector_labels


async def observe_serve(serve: ModelServe, sight: Sight) -> ServeObserved:
    """All that a plan for the ModelServe depends on."""
    if serve.terminating:
        return ServeObserved()
    key = Key(MODEL_SERVE.kind, serve.namespace, serve.name)
    seen = ServeObserved(
        deployment=await _child(serve, sight, DEPLOYMENT),
        service=await _child(serve, sight, SERVICE),
        pods=tuple(pod_view(body) for body in sight.cache.children(key) if _is_replica(body, serve.name)),
    )
    if serve.spec is None:
        return seen
    named = serve.spec.model.from_
    source = None
    if named is not None:
        source = source_view(sight.cache.get(Key(named.kind, serve.namespace, named.name)))
    seen = replace(seen, source=source, circle=circle(sight.cache, key) if named is not None else ())
    uri, _ = model_address(serve.spec, source)
    job = quantization_job(serve, source, sight.config)
    observed = Observed()
    if job is not None:
        observed = await observe(job, sight)
        own = {item.name for item in observed.jobs}
        # Replicas carry the labels of the same resource, and are no pods of its jobs.
        observed = replace(observed, pods=tuple(pod for pod in observed.pods if pod.job_name in own))
    jobs = [batch_job_view(body, owner_uid=serve.uid) for body in sight.cache.children(key) if body["kind"] == JOB.kind]
    return replace(
        seen,
        claims=await sight.claims([uri] if uri is not None else [], serve.namespace),
        quantization=observed,
        other_jobs=tuple(view for view in jobs if view is not None and (job is None or view.base != job.base)),
    )


def _is_replica(body: dict[str, object], name: str) -> bool:
    metadata = body["metadata"]
    assert isinstance(metadata, dict), "every object has metadata"
    labels = metadata.get("labels") or {}
    return body["kind"] == POD.kind and selector_labels(name).items() <= labels.items()


async def _child(serve: ModelServe, sight: Sight, kind: Kind) -> ChildView | None:
    """The Deployment or Service of the ModelServe's name.

    One that the cache does not know is asked for: without our labels it is in no watch, and it must not be taken over.
    """
    body = sight.cache.get(Key(kind.kind, serve.namespace, serve.name))
    if body is None:
        body = await sight.get(kind, serve.namespace, serve.name)
    return child_view(body, serve.uid) if body is not None else None
