"""LoRA adapters of a ModelServe: what stands against serving them, and where they lie."""

from collections.abc import Iterator

from alidade_crds.blocks import ModelSource
from alidade_crds.modelserve import ModelServeSpec, ServedAdapter
from alidade_crds.reasons import Reason
from alidade_operator.config import OperatorConfig
from alidade_operator.reconcile import acceptance
from alidade_operator.reconcile.acceptance import Refusal
from alidade_operator.reconcile.serve import ModelServe, ServeObserved, model_address
from alidade_operator.resources.adapters import AdapterView
from alidade_operator.resources.engines.server import EMBEDDED, VLLM, AdapterPlace, adapters_name
from alidade_operator.resources.engines.vllm import LORA_RANKS
from alidade_operator.resources.observation import Observed


def adapter_places(spec: ModelServeSpec, seen: ServeObserved) -> tuple[AdapterPlace, ...]:
    """Where every adapter lies; asked once nothing stands against serving them."""
    return tuple(_place(one, seen.adapters.get(one.name)) for one in spec.adapters)


def _place(adapter: ServedAdapter, view: AdapterView | None) -> AdapterPlace:
    if adapter.model.uri is not None:
        return AdapterPlace(adapter.name, adapter.model.uri)
    assert view is not None, "a named source is always observed"
    assert view.uri is not None, "checked by acceptance"
    model = view.source.model
    return AdapterPlace(adapter.name, view.uri, view.rank, model.digest if model is not None else None)


def adapters_refusal(
    serve: ModelServe, spec: ModelServeSpec, seen: ServeObserved, config: OperatorConfig, engine: str
) -> Refusal | None:
    """The objection to the first adapter that cannot be served, or not yet; None without one."""
    if not spec.adapters:
        return None
    if engine == EMBEDDED and spec.quantization.gguf_type is not None:
        return Refusal(
            Reason.INVALID_SPEC,
            f"spec.adapters is set and spec.quantization.method is {spec.quantization.method}; the embedded server "
            "adds adapters to the folder that they were trained on, not to a GGUF file. Set the method to none, or "
            "leave the adapters out.",
        )
    if seen.adapter_list is not None and not seen.adapter_list.owned:
        name = adapters_name(serve.name)
        return Refusal(
            Reason.NAME_TAKEN, f"ConfigMap {name} belongs to something else. Delete it, or choose another name."
        )
    names = [one.name for one in spec.adapters]
    for index, adapter in enumerate(spec.adapters):
        field = f"spec.adapters[{index}]"
        if adapter.name == serve.name or adapter.name in names[:index]:
            taken = "the ModelServe has itself" if adapter.name == serve.name else "another adapter has"
            return Refusal(
                Reason.INVALID_SPEC, f"{field}.name is {adapter.name}, a name that {taken}. Choose another one."
            )
        found = next(_objections(adapter, field, serve, seen, config), None) or _rank(adapter, field, seen, engine)
        if found is not None:
            return found
    return None


def _objections(
    adapter: ServedAdapter, field: str, serve: ModelServe, seen: ServeObserved, config: OperatorConfig
) -> Iterator[Refusal]:
    if adapter.model.init is not None:
        yield Refusal(
            Reason.INVALID_SPEC, f"{field}.model.init has learned nothing: name an adapter by model.uri or model.from."
        )
    view = seen.adapters.get(adapter.name)
    if adapter.model.from_ is not None:
        assert view is not None, "a named source is always observed"
        yield from _source(adapter, field, serve, seen, view)
    uri = adapter.model.uri if adapter.model.uri is not None else view.uri if view is not None else None
    if uri is not None:
        yield from _address(f"{field}.model.uri" if view is None else f"{field}.model", uri, serve, seen, config)


def _source(
    adapter: ServedAdapter, field: str, serve: ModelServe, seen: ServeObserved, view: AdapterView
) -> Iterator[Refusal]:
    source = adapter.model.from_
    assert source is not None, "asked for adapters of a resource"
    named = f"{source.kind} {source.name}"
    if source.kind is ModelSource.REWARD_MODEL:
        yield Refusal(
            Reason.INVALID_SPEC,
            f"{field}.model.from names {named}, which judges answers and gives none. Name a FineTuneJob or an "
            "AlignmentRun.",
        )
    pending = acceptance.source_refusal(f"{field}.model", named, view.source)
    if pending is not None:
        yield pending
        return
    if view.uri is None:
        yield Refusal(
            Reason.INVALID_SPEC,
            f"{field}.model.from names {named}, which trains all weights and has no adapter. Name one whose "
            "adapter.type is lora, or serve its model by itself.",
        )
    if view.beyond_low_rank:
        yield Refusal(
            Reason.INVALID_SPEC,
            f"{field}.model.from names {named}, whose {view.beyond_low_rank} is set: its adapter is more than low-rank "
            "additions to its base. Serve its model by itself.",
        )
    yield from _base(field, named, serve, seen, view)


def _base(field: str, named: str, serve: ModelServe, seen: ServeObserved, view: AdapterView) -> Iterator[Refusal]:
    assert serve.spec is not None, "asked for specs that could be parsed"
    base = view.source.model.base_model if view.source.model is not None else None
    served, _ = model_address(serve.spec, seen.source)
    if base is not None and served is not None and base.rstrip("/") != served.rstrip("/"):
        yield Refusal(
            Reason.INVALID_SPEC,
            f"{field}.model.from names {named}, whose adapter was trained on {base}; spec.model is {served}. Serve it "
            "beside the model that it was trained on.",
        )


def _address(field: str, uri: str, serve: ModelServe, seen: ServeObserved, config: OperatorConfig) -> Iterator[Refusal]:
    location = acceptance.location_of(field, uri, "adapter", config)
    if isinstance(location, Refusal):
        yield location
        return
    if location.scheme not in ("pvc", "file"):
        yield Refusal(
            Reason.INVALID_SPEC,
            f"{field} is {uri}; adapters are read from a volume. Put it on one and write pvc://CLAIM/PATH.",
        )
    found = acceptance.volume_refusal(field, location, serve.namespace, Observed(claims=seen.claims))
    if found is not None:
        yield found


def _rank(adapter: ServedAdapter, field: str, seen: ServeObserved, engine: str) -> Refusal | None:
    view = seen.adapters.get(adapter.name)
    if engine != VLLM or view is None or view.rank is None or view.rank <= LORA_RANKS[-1]:
        return None
    return Refusal(
        Reason.INVALID_SPEC,
        f"{field} has rank {view.rank}; vllm serves up to {LORA_RANKS[-1]}. Serve its model by itself.",
    )
