"""The finished model: whole, in Hugging Face format, with tokenizer, digest, lineage and model card."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from alidade_crds.blocks import AdapterType
from alidade_crds.contract import JobDocument
from alidade_crds.status import ModelInfo
from alidade_engine.digests import model_digest
from alidade_engine.disk import new_folder
from alidade_engine.models import CHANGED_CONFIG
from alidade_trainer.jobs import fingerprint
from alidade_trainer.merge import write_merged
from alidade_trainer.model_card import write_model_card
from alidade_trainer.peers import Peers
from alidade_trainer.precision import training_format
from alidade_trainer.starting import StartingPoint
from alidade_trainer.zero import gathered_state, weight_size

PACKAGES = ("alidade-trainer", "torch", "transformers", "deepspeed", "peft", "tokenizers")
DIGEST_FILE = "digest"
LINEAGE_FILE = "lineage.json"


@dataclass(frozen=True)
class Parent:
    """A model that another one comes from. name: of a reward model in its alignment."""

    role: Literal["base", "reward"]
    name: str
    uri: str | None
    digest: str


@dataclass(frozen=True)
class Export:
    """What is needed to write a finished model beside the model itself."""

    job: JobDocument
    start: StartingPoint
    output: Path
    """Local folder of the job's output."""
    metrics: dict[str, float]
    step: int
    data_digest: str
    parents: Sequence[Parent] | None = None
    """The models it comes from; None: the base model alone."""
    alignment: Sequence[dict[str, Any]] = ()
    """What each step of an alignment came to, in order."""


def parents_of(job: JobDocument, base: Path | None, rewards: Mapping[str, Path]) -> list[Parent]:
    """The base model and every reward model, each with the digest of the files that were read.

    base: folder of the base model. rewards: folders of the reward models, by name. A digest that the job names has been
    checked before; others are computed.
    """
    parents = []
    if base is not None:
        parents.append(Parent("base", "", job.model.uri, job.model.digest or model_digest(base)))
    for reward in job.alignment.rewards if job.alignment else []:
        if reward.name in rewards:
            digest = reward.digest or model_digest(rewards[reward.name])
            parents.append(Parent("reward", reward.name, reward.uri, digest))
    return parents


def export_model(
    module: nn.Module, export: Export, peers: Peers, *, weights: dict[str, torch.Tensor] | None = None
) -> ModelInfo | None:
    """Writes `model/`, for LoRA also `adapter/`, whole or not at all. Every process calls it; the first gets the "
    "answer."""
    uses_adapter = export.job.adapter.type != AdapterType.NONE
    state = gathered_state(module, trainable_only=uses_adapter, keep=peers.is_first)
    if not peers.is_first:
        return None
    if weights is not None:
        state = _replaced(state, weights)
    if uses_adapter:
        _write_adapter(module, state, export)
    with new_folder(export.output / "model") as folder:
        if uses_adapter:
            _write_merged(export, folder)
        else:
            module.save_pretrained(folder, state_dict=state)  # type: ignore[operator]  # a PreTrainedModel
            export.start.tokenizer.save_pretrained(folder)
        info = _describe(module, export, digest=model_digest(folder))
        lineage = _lineage(export, info)
        (folder / DIGEST_FILE).write_text(info.digest + "\n")
        (folder / LINEAGE_FILE).write_text(json.dumps(lineage, indent=2, ensure_ascii=False) + "\n")
        write_model_card(folder / "README.md", lineage, export.start.data.report)
    return info


def _replaced(state: dict[str, torch.Tensor], weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with other weights; names that share one tensor, tied weights, share the other one, too."""
    shared: dict[int, torch.Tensor] = {}
    return {name: shared.setdefault(tensor.data_ptr(), weights.get(name, tensor)) for name, tensor in state.items()}


def _write_adapter(module: nn.Module, state: dict[str, torch.Tensor], export: Export) -> None:
    from alidade_trainer.adapters import save_adapter

    assert export.job.model.uri is not None, "an adapter has a base model"
    with new_folder(export.output / "adapter") as folder:
        save_adapter(module, state, folder, base=export.job.model.uri)  # a PeftModel
        if export.job.vocabulary is not None or export.job.context is not None:
            config: Any = copy.deepcopy(module.config)
            vars(config).pop("quantization_config", None)  # the base's in training; what is merged is whole
            config.to_json_file(folder / CHANGED_CONFIG)
        export.start.tokenizer.save_pretrained(folder)


def _write_merged(export: Export, folder: Path) -> None:
    assert export.start.model_folder is not None
    dtype = training_format(export.job.training)
    write_merged(
        export.start.model_folder,
        export.output / "adapter",
        folder,
        dtype=dtype,
        trust_remote_code=export.job.model.trust_remote_code,
    )


def _describe(module: nn.Module, export: Export, *, digest: str) -> ModelInfo:
    """The model in numbers; parameters are those of the model/ folder, without the additions that were merged."""
    named = list(module.named_parameters())
    added = ("lora_", ".original_module.")  # the latter are those of which an adapter trains a copy whole
    config: Any = module.config
    return ModelInfo(
        uri=f"{export.job.output.rstrip('/')}/model",
        digest=digest,
        base_model=export.job.model.uri,
        parameters=sum(weight_size(weight) for name, weight in named if not any(part in name for part in added)),
        trainable_parameters=sum(weight_size(weight) for _, weight in named if weight.requires_grad),
        hidden_size=getattr(config, "hidden_size", None),
        layers=getattr(config, "num_hidden_layers", None),
        vocab_size=len(export.start.tokenizer),
    )


def _lineage(export: Export, info: ModelInfo) -> dict[str, Any]:
    """Where the model comes from, for programs; README.md says the same to people."""
    report = export.start.data.report
    parents = export.parents
    if parents is None:
        parents = parents_of(export.job, export.start.model_folder, {})
    base = next((parent for parent in parents if parent.role == "base"), None)
    return {
        "model": info.to_dict(),
        "owner": export.job.owner.to_dict(),
        "stage": str(export.job.stage),
        "base": {"uri": export.job.model.uri, "digest": base.digest if base else None},
        "parents": [{name: value for name, value in asdict(parent).items() if value} for parent in parents],
        "data": [{"uri": source["uri"], "digest": source["digest"]} for source in report["sources"]],
        "dataDigest": export.data_digest,
        "job": export.job.to_dict(),
        "jobFingerprint": fingerprint(export.job),
        "seed": export.job.training.seed,
        "steps": export.step,
        **({"alignment": list(export.alignment)} if export.alignment else {}),
        "metrics": export.metrics,
        "versions": package_versions(),
        "createdAt": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def package_versions() -> dict[str, str]:
    """Versions of what the training was done with."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            found[name] = "unknown"
    return found
