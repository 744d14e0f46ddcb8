"""The tokenizer that a job starts with; no weights are loaded for it, and no library that trains."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from alidade_crds.contract import JobDocument
from alidade_engine.models import check_sizes, ensure_pad_token, load_config, load_tokenizer, train_tokenizer
from alidade_engine.sources import Locations
from alidade_trainer.context.scaling import scaled_config
from alidade_trainer.data.dataset import training_texts
from alidade_trainer.vocabulary.extension import extend_tokenizer


@dataclass(frozen=True)
class ReadyTokenizer:
    """The tokenizer that a job trains with, and what its model says of sequences.

    context_length: in tokens; None where the model does not say. model_type: transformers' name of its family; None for
    a new model. extension: the report on a longer vocabulary; None without one.
    """

    tokenizer: PreTrainedTokenizerBase
    context_length: int | None
    model_type: str | None
    extension: dict[str, Any] | None


def start_tokenizer(job: JobDocument, folder: Path | None, locations: Locations) -> ReadyTokenizer:
    """The job's tokenizer: the base model's, longer where the job asks for that, or one trained on the dataset.

    folder: of the base model, of which no weights are read; None for a new one.
    """
    context_length: int | None
    model_type = None
    if job.model.init is not None:
        context_length = job.model.init.context_length
        tokenizer: PreTrainedTokenizerBase = train_tokenizer(
            training_texts(job, locations), job.model.init.vocab_size, model_max_length=context_length
        )
    else:
        assert folder is not None
        config = start_config(job, folder)
        context_length = getattr(config, "max_position_embeddings", None)
        model_type = config.model_type
        tokenizer = load_tokenizer(folder, trust_remote_code=job.model.trust_remote_code)
        check_sizes(tokenizer, config, folder)
    ensure_pad_token(tokenizer)
    extension = None
    if job.vocabulary is not None:
        source = job.vocabulary.extend_with
        tokenizer, extension = extend_tokenizer(tokenizer, source, lambda: training_texts(job, locations), locations)
    if job.context is not None:
        tokenizer.model_max_length = job.context.length
    return ReadyTokenizer(tokenizer, context_length, model_type, extension)


def start_config(job: JobDocument, folder: Path) -> PretrainedConfig:
    """The configuration of the model that is trained: the folder's, with a longer context where the job asks for it."""
    config = load_config(folder, trust_remote_code=job.model.trust_remote_code)
    return config if job.context is None else scaled_config(config, job.context)
