"""LoRA adapters as they are observed: what a resource of this namespace has trained, and where that lies."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from alidade_crds.blocks import Adapter, AdapterType
from alidade_operator.resources.observation import SourceView, source_view

# A job writes them side by side: the model with the adapter merged in, and the adapter alone.
_MODEL, _ADAPTER = "/model", "/adapter"


@dataclass(frozen=True)
class AdapterView:
    """The resource that spec.adapters[].model.from names. rank: of its LoRA; None when it trains all weights."""

    source: SourceView
    rank: int | None = None
    beyond_low_rank: str = ""
    """The field of its spec for which its adapter is more than low-rank additions to the base; empty without one."""

    @property
    def uri(self) -> str | None:
        """The adapter's folder; None while there is none."""
        model = self.source.model
        if model is None or self.rank is None or not model.uri.endswith(_MODEL):
            return None
        return model.uri.removesuffix(_MODEL) + _ADAPTER


@dataclass(frozen=True)
class LoadedAdapters:
    """What a replica has: folders by adapter. refused: its words about the first that it would not take or give up."""

    folders: Mapping[str, str] = field(default_factory=dict)
    refused: str = ""


def adapter_view(body: Mapping[str, Any] | None) -> AdapterView:
    """What a FineTuneJob or an AlignmentRun has trained; it need not exist."""
    source = source_view(body)
    if body is None:
        return AdapterView(source)
    try:
        trained = Adapter.model_validate((body.get("spec") or {}).get("adapter") or {})
    except ValidationError:
        return AdapterView(source)
    if trained.type is AdapterType.NONE:
        return AdapterView(source)
    return AdapterView(source, trained.rank, _beyond_low_rank(body["spec"], trained))


def _beyond_low_rank(spec: Mapping[str, Any], trained: Adapter) -> str:
    fields = {
        "vocabulary": bool(spec.get("vocabulary")),
        "context": bool(spec.get("context")),
        "adapter.trainEmbeddings": trained.train_embeddings,
        "adapter.dora": trained.dora,
    }
    return next((name for name, is_set in fields.items() if is_set), "")
