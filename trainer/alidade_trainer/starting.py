"""What a training starts from: tokenizer, data and model, as the job document says."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alidade_crds.blocks import AdapterType
from alidade_crds.contract import JobDocument, Stage
from alidade_crds.reasons import FailureReason
from alidade_engine.digests import model_digest
from alidade_engine.models import (
    check_weights,
    ensure_pad_token,
    init_model,
    load_model,
    load_tokenizer,
)
from alidade_engine.sources import Locations
from alidade_trainer.data.dataset import PreparedData, TokenisedData, tokenise_data
from alidade_trainer.data.sequences import Samples
from alidade_trainer.data.tokenising import SampledAnswer
from alidade_trainer.failures import JobFailure
from alidade_trainer.freezing import freeze
from alidade_trainer.ghost_sampling import sample_last_answers
from alidade_trainer.kernels import attention_option, fuse, keep_few_activations
from alidade_trainer.loss import add_embedding_noise
from alidade_trainer.peers import Peers
from alidade_trainer.perplexity_scoring import score_samples
from alidade_trainer.precision import asking_format, training_format
from alidade_trainer.quantized_bases import keep_as_loaded, loading_options, nf4, refuse_quantized
from alidade_trainer.start_tokenizer import ReadyTokenizer, start_config, start_tokenizer
from alidade_trainer.surroundings import Surroundings
from alidade_trainer.vocabulary.embeddings import (
    adapter_of,
    extend_embeddings,
    train_only_embeddings,
    trains_only_embeddings,
)

if TYPE_CHECKING:
    from peft import PeftModel

    from alidade_trainer.adapters import Task

_LANGUAGE = (Stage.PRETRAIN, Stage.SFT)


@dataclass(frozen=True)
class StartingPoint:
    """What all processes have before the model is loaded."""

    tokenizer: PreTrainedTokenizerBase
    data: PreparedData
    model_folder: Path | None
    """Folder of the base model; None for a new one."""


def prepare_start(job: JobDocument, around: Surroundings, peers: Peers) -> StartingPoint:
    """Tokenizer and tokenised data. One process of each pod makes them, the others read what it wrote.

    Raises JobFailure on every process when one of them fails, StopRequested when asked to stop.
    """
    shared = around.run_folder / "start"
    folders = peers.gather(peers.agree(lambda: _base_folder(job, around.locations) if peers.local_rank == 0 else None))
    folder: Path | None = folders[peers.rank - peers.local_rank]
    sampled: dict[int, SampledAnswer | None] | None = None
    if job.ghost_attention is not None:
        assert folder is not None, "ghost attention samples from a model"
        sampled = sample_last_answers(job, folder, around, peers)
    tokenised = peers.agree(
        lambda: _tokenise(job, folder, around.locations, shared, sampled) if peers.local_rank == 0 else None
    )
    losses = None
    if job.dataset.perplexity is not None:
        assert folder is not None, "a model that has learned tells perplexity"
        losses = _losses(job, folder, tokenised and tokenised[1], shared, around, peers)
    made = peers.agree(lambda: _make_start(*tokenised, losses, folder, shared, peers) if tokenised else None)
    return made or _load_start(shared)


def _base_folder(job: JobDocument, locations: Locations) -> Path | None:
    """The folder of the model to start from, looked over; None for a new one."""
    if job.model.init is not None:
        return None
    assert job.model.uri is not None, "a job document's model has uri or init"
    folder = locations.resolve_model(job.model.uri)
    config = start_config(job, folder)
    check_weights(folder)
    refuse_quantized(config, job.adapter.type)
    check_digest(job, folder)
    return folder


def _tokenise(
    job: JobDocument,
    folder: Path | None,
    locations: Locations,
    shared: Path,
    sampled: Mapping[int, SampledAnswer | None] | None,
) -> tuple[ReadyTokenizer, TokenisedData]:
    ready = start_tokenizer(job, folder, locations)
    tokenised = tokenise_data(
        job,
        ready.tokenizer,
        locations,
        context_length=ready.context_length,
        model_type=ready.model_type,
        sampled=sampled,
        folder=shared,
    )
    return ready, tokenised


def _losses(
    job: JobDocument,
    folder: Path,
    tokenised: TokenisedData | None,
    shared: Path,
    around: Surroundings,
    peers: Peers,
) -> NDArray[np.float32]:
    """What the candidates cost the base as it is. tokenised: where this process is the one that has it."""
    dtype = asking_format(job.training, peers.device)

    def load() -> PreTrainedModel:
        options = base_options(job, folder, dtype)
        model = load_model(folder, dtype=dtype, trust_remote_code=job.model.trust_remote_code, **options)
        if job.adapter.type != AdapterType.QLORA:
            return model.to(peers.device)
        keep_as_loaded(model)
        return model  # on its device already

    if tokenised is not None and peers.local_count > 1:
        tokenised.samples.save(shared)
        np.save(shared / _CANDIDATES, tokenised.candidates)
    peers.wait()
    samples = tokenised.samples if tokenised is not None else Samples.load(shared)
    indices = tokenised.candidates if tokenised is not None else np.load(shared / _CANDIDATES)
    return score_samples(job, folder, samples, indices, load, around, peers)


_CANDIDATES = "candidates.npy"


def _make_start(
    ready: ReadyTokenizer,
    tokenised: TokenisedData,
    losses: NDArray[np.float32] | None,
    folder: Path | None,
    shared: Path,
    peers: Peers,
) -> StartingPoint:
    tokenizer, data = ready.tokenizer, tokenised.prepared(losses)
    extension = ready.extension
    if extension is not None:
        data.report["warnings"] += extension.pop("warnings")
        data.report["vocabulary"] = extension
    if peers.local_count > 1:
        tokenizer.save_pretrained(shared / "tokenizer")
        data.save(shared)
        (shared / "model.json").write_text(json.dumps(None if folder is None else str(folder)))
    return StartingPoint(tokenizer, data, folder)


def _load_start(shared: Path) -> StartingPoint:
    folder = json.loads((shared / "model.json").read_text())
    return StartingPoint(
        load_tokenizer(shared / "tokenizer"), PreparedData.load(shared), None if folder is None else Path(folder)
    )


def check_digest(job: JobDocument, folder: Path) -> None:
    if job.model.digest is None:
        return
    found = model_digest(folder)
    if found != job.model.digest:
        raise JobFailure(
            FailureReason.DIGEST_MISMATCH,
            f"model.uri is {job.model.uri}, whose digest is {found}; the job was made for {job.model.digest}. The "
            "files have "
            "changed since: train that model again, or name the folder as a model of your own.",
        )


def build_model(job: JobDocument, start: StartingPoint) -> nn.Module:
    """The model to train, on the CPU (or, under ZeRO-3, spread over the processes), equal on all processes.

    Raises JobFailure when it cannot be loaded, or the adapter does not fit it.
    """
    dtype = training_format(job.training)
    torch.manual_seed(job.training.seed)
    if job.model.init is not None:
        model: PreTrainedModel = init_model(
            job.model.init, start.tokenizer, dtype=dtype, **attention_option(job.training)
        )
    else:
        assert start.model_folder is not None
        trust = job.model.trust_remote_code
        options = base_options(job, start.model_folder, dtype) | {"config": start_config(job, start.model_folder)}
        model = load_model(start.model_folder, dtype=dtype, trust_remote_code=trust, **options)
        if job.vocabulary is not None:
            base = load_tokenizer(start.model_folder, trust_remote_code=trust)
            extend_embeddings(model, base, start.tokenizer, multiple=job.vocabulary.pad_to_multiple_of)
    ensure_pad_token(start.tokenizer, model)
    if trains_only_embeddings(job):
        train_only_embeddings(model)
    fuse(model, job.training)
    keep_few_activations(model, job.training)
    if job.training.neftune_alpha is not None:
        add_embedding_noise(model.get_input_embeddings(), job.training.neftune_alpha)
    trained: nn.Module = ready_to_train(model, job)
    return trained


def base_options(job: JobDocument, folder: Path, dtype: torch.dtype) -> dict[str, Any]:
    """Options of `from_pretrained` for the base that the job trains on."""
    quantized = loading_options(folder, nf4(dtype)) if job.adapter.type == AdapterType.QLORA else {}
    return quantized | attention_option(job.training)


def ready_to_train(
    model: PreTrainedModel, job: JobDocument, task: "Task" = "CAUSAL_LM"
) -> "PreTrainedModel | PeftModel":
    """The model with the job's adapter on it, or with the weights frozen that it names. Raises JobFailure."""
    if job.adapter.type == AdapterType.QLORA:
        keep_as_loaded(model)
    if job.adapter.type != AdapterType.NONE:
        from alidade_trainer.adapters import add_adapter  # a second: peft

        return add_adapter(model, adapter_of(job), task)
    freeze(model, job.training.freeze)
    return model


def model_itself(module: nn.Module) -> nn.Module:
    """The model of transformers in a module that may be wrapped by peft."""
    base = getattr(module, "get_base_model", None)
    return base() if base is not None else module


def refuse_unknown(job: JobDocument) -> None:
    """Raises JobFailure (ConfigInvalid) for what a job document can ask and this trainer does not do."""
    refusals = [
        (
            job.stage == Stage.REWARD and job.model.init is not None,
            "model.init",
            "set",
            "a reward model starts from a language model; name it in model.uri",
        ),
        (
            job.adapter.type == AdapterType.QLORA and job.stage == Stage.ALIGN,
            "adapter.type",
            job.adapter.type,
            "an alignment draws its answers from whole weights; use lora",
        ),
        (
            job.adapter.type == AdapterType.QLORA and job.deepspeed.zero_stage == 3,
            "adapter.type",
            job.adapter.type,
            "a base in 4 bits is whole on every process; use deepspeed.zeroStage 0 to 2",
        ),
        (
            job.model.init is not None and job.adapter.type != AdapterType.NONE,
            "adapter.type",
            job.adapter.type,
            "model.init starts from random weights, which need training as a whole; use none",
        ),
        (
            job.vocabulary is not None and (job.stage not in _LANGUAGE or job.model.init is not None),
            "vocabulary",
            "set",
            "it adds to the tokenizer of a model: use it with method pretrain or sft and model.uri",
        ),
        (
            trains_only_embeddings(job) and job.adapter.type != AdapterType.NONE,
            "adapter.type",
            job.adapter.type,
            "vocabulary.train embeddings trains nothing else; use none",
        ),
        (
            job.vocabulary is not None and job.ghost_attention is not None,
            "ghostAttention",
            "set",
            "it samples with the base's tokenizer; extend the vocabulary in a job before",
        ),
        (
            job.context is not None and (job.stage not in _LANGUAGE or job.model.init is not None),
            "context",
            "set",
            "it stretches the context of a model: use it with method pretrain or sft and model.uri",
        ),
        (
            job.context is not None and job.vocabulary is not None,
            "context",
            "set",
            "with vocabulary, perplexity before and after would not be of the same tokens; use one job after the other",
        ),
        (
            job.ghost_attention is not None and (job.stage != Stage.SFT or job.model.init is not None),
            "ghostAttention",
            "set",
            "it samples answers from the start model: use it with method sft and model.uri",
        ),
        (
            job.ghost_attention is not None
            and bool(job.ghost_attention.instructions) == (job.ghost_attention.field is not None),
            "ghostAttention",
            "set",
            "exactly one of its instructions and field must be",
        ),
        (
            job.dataset.perplexity is not None
            and (job.stage not in _LANGUAGE or job.model.init is not None or bool(job.vocabulary or job.context)),
            "dataset.filters.perplexity",
            "set",
            "it asks a model that has learned, as it is: use it with method pretrain or sft and model.uri, and without "
            "vocabulary and context",
        ),
        (
            job.training.early_stopping is not None and job.dataset.validation is None,
            "training.earlyStopping",
            "set",
            "it needs dataset.validation",
        ),
    ]
    for refused, field, found, advice in refusals:
        if refused:
            raise JobFailure(FailureReason.CONFIG_INVALID, f"{field} is {found}; {advice}.")
