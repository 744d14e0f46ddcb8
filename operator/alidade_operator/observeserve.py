"""What a plan for a ModelServe needs to know, gathered from the cache and, for what is not in it, from the API."""

from collections.abc import Iterable
from dataclasses import replace

from alidade_crds.contract import GatewayDocument
from alidade_crds.modelserve import ModelServeSpec
from alidade_operator.api import CONFIG_MAP, DEPLOYMENT, JOB, MODEL_SERVE, POD, POLICY_KINDS, SERVICE, JsonObject, Kind
from alidade_operator.cache import Key
from alidade_operator.observe import Sight, circle, observe
from alidade_operator.reconcile.serve import (
    ChildView,
    GatewayPod,
    ModelServe,
    ServeObserved,
    child_view,
    model_address,
    quantization_job,
)
from alidade_operator.resources.adapterlist import AdapterListView, adapter_list_view
from alidade_operator.resources.adapters import AdapterView, adapter_view
from alidade_operator.resources.batchjob import batch_job_view
from alidade_operator.resources.engines.server import adapters_name
from alidade_operator.resources.gateway import TRIAL, needs_gateway
from alidade_operator.resources.observation import Observed, ReplicaLoad, pod_view, source_view
from alidade_operator.resources.serving import (
    CANARY,
    COMPONENT,
    GATEWAY,
    Component,
    name_of,
    selector_labels,
    side_name,
)
from alidade_operator.resources.servingpolicies import policy_names


async def observe_serve(serve: ModelServe, sight: Sight) -> ServeObserved:
    """All that a plan for the ModelServe depends on."""
    if serve.terminating:
        return ServeObserved()
    key = Key(MODEL_SERVE.kind, serve.namespace, serve.name)
    seen = await _children(serve, sight, list(sight.cache.children(key)))
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
    adapters = _adapters(serve, serve.spec, sight)
    places = [uri, *(one.model.uri for one in serve.spec.adapters), *(view.uri for view in adapters.values())]
    return replace(
        seen,
        adapters=adapters,
        adapter_list=await _adapter_list(serve, serve.spec, sight),
        loaded={pod.uid: sight.adapters[pod.uid] for pod in seen.pods if pod.uid in sight.adapters},
        claims=await sight.claims([place for place in places if place is not None], serve.namespace),
        quantization=observed,
        other_jobs=tuple(view for view in jobs if view is not None and (job is None or view.base != job.base)),
        against=_against(serve, sight),
    )


def _adapters(serve: ModelServe, spec: ModelServeSpec, sight: Sight) -> dict[str, AdapterView]:
    """What the adapters that name a resource are."""
    named = {one.name: one.model.from_ for one in spec.adapters}
    return {
        name: adapter_view(sight.cache.get(Key(source.kind, serve.namespace, source.name)))
        for name, source in named.items()
        if source is not None
    }


async def _adapter_list(serve: ModelServe, spec: ModelServeSpec, sight: Sight) -> AdapterListView | None:
    """The list that replicas read who load adapters while they run. ConfigMaps are not watched, so it is asked for."""
    if not spec.adapters or not sight.config.runtime_adapters:
        return None
    body = await sight.get(CONFIG_MAP, serve.namespace, adapters_name(serve.name))
    return adapter_list_view(body, serve.uid) if body is not None else None


async def _children(serve: ModelServe, sight: Sight, children: list[JsonObject]) -> ServeObserved:
    """Deployments, Services, policies and pods, with what the pods have told."""
    pods = {component: _pods(serve, children, component) for component in (COMPONENT, CANARY, GATEWAY)}
    replicas = tuple(pod_view(body) for body in pods[COMPONENT])
    loads = {pod.uid: sight.serving.get(pod.uid) for pod in replicas}
    own = {(body["kind"], body["metadata"]["name"]): child_view(body, serve.uid) for body in children}
    others = {place: view for place, view in own.items() if place[0] in _OTHERS and place != (SERVICE.kind, serve.name)}
    for kind, name in _wanted(serve, sight):
        if (kind.kind, name) not in others and kind.kind not in sight.cache.missing_kinds:
            view = await _child(serve, sight, kind, name)
            others |= {(kind.kind, name): view} if view is not None else {}
    beside = {one: own.get((DEPLOYMENT.kind, name_of(serve.name, one))) for one in (CANARY, GATEWAY)}
    if serve.spec is not None and needs_gateway(serve.spec):
        # Most of the time there is no canary: whether somebody else's is in its place is asked once for a spec.
        is_new = serve.status.observed_generation != serve.generation or serve.status.phase == "Waiting"
        for one in (CANARY, GATEWAY) if is_new else (GATEWAY,):
            beside[one] = await _child(serve, sight, DEPLOYMENT, name_of(serve.name, one))
    return ServeObserved(
        deployment=await _child(serve, sight, DEPLOYMENT, serve.name),
        service=await _child(serve, sight, SERVICE, serve.name),
        canary=beside[CANARY],
        gateway=beside[GATEWAY],
        others=others,
        missing_kinds=frozenset(sight.cache.missing_kinds),
        pods=replicas,
        loads={uid: load for uid, load in loads.items() if isinstance(load, ReplicaLoad)},
        canary_pods=tuple(pod_view(body) for body in pods[CANARY]),
        gateway_pods=tuple(_gateway_pod(body, sight) for body in pods[GATEWAY]),
    )


_OTHERS = frozenset({SERVICE.kind, *(kind.kind for kind in POLICY_KINDS)})


def _wanted(serve: ModelServe, sight: Sight) -> Iterable[tuple[Kind, str]]:
    """Kinds and names of what the spec asks for beside the front door and the Deployments."""
    if serve.spec is None:
        return []
    sides = [(SERVICE, side_name(serve.name, one)) for one in (COMPONENT, CANARY)] if needs_gateway(serve.spec) else []
    return [*sides, *policy_names(serve.name, serve.spec, sight.config)]


def _pods(serve: ModelServe, children: list[JsonObject], component: Component) -> list[JsonObject]:
    labels = selector_labels(serve.name, component).items()
    return [
        body
        for body in children
        if body["kind"] == POD.kind and labels <= (body["metadata"].get("labels") or {}).items()
    ]


def _gateway_pod(body: JsonObject, sight: Sight) -> GatewayPod:
    view, trial = pod_view(body), (body["metadata"].get("annotations") or {}).get(TRIAL, "")
    told = sight.serving.get(view.uid)
    return GatewayPod(view, trial, told if isinstance(told, GatewayDocument) else None)


def _against(serve: ModelServe, sight: Sight) -> str | None:
    """Address of the model that the other ModelServe of an arena serves."""
    asked = serve.spec.gateway.arena if serve.spec is not None and serve.spec.gateway is not None else None
    if asked is None or asked.against is None:
        return None
    body = sight.cache.get(Key(MODEL_SERVE.kind, serve.namespace, asked.against))
    model = (body.get("status") or {}).get("model") if body is not None else None
    return str(model) if model else None


async def _child(serve: ModelServe, sight: Sight, kind: Kind, name: str) -> ChildView | None:
    """A Deployment, Service or policy of a name.

    One that the cache does not know is asked for: without our labels it is in no watch, and it must not be taken over.
    """
    body = sight.cache.get(Key(kind.kind, serve.namespace, name))
    if body is None:
        body = await sight.get(kind, serve.namespace, name)
    return child_view(body, serve.uid) if body is not None else None
