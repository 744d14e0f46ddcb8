"""Rows of embeddings and output head for new entries, and who is trained beside them."""

from collections.abc import Iterator
from contextlib import contextmanager

import deepspeed
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alidade_crds.blocks import Adapter, VocabularyTraining
from alidade_crds.contract import JobDocument
from alidade_trainer.vocabulary.extension import backend_of


def extend_embeddings(
    model: PreTrainedModel,
    old: PreTrainedTokenizerBase,
    new: PreTrainedTokenizerBase,
    *,
    multiple: int | None = None,
) -> None:
    """Gives the model a row for each entry of `new`, the tokenizer that extends its own.

    A new row of the embeddings, of the output head, and of the head's bias starts at the mean of the rows of the old
    pieces that it replaces. multiple: the number of rows is rounded up to it; rows without an entry start at the mean
    of all. Every process calls it, also when ZeRO-3 has spread the weights.
    """
    known = old.get_vocab()
    backend = backend_of(old)
    parts = {
        number: [token.id for token in backend.model.tokenize(entry)]
        for entry, number in new.get_vocab().items()
        if entry not in known
    }
    before = model.config.get_text_config().vocab_size
    wanted = max(before, len(new))
    rows = -(-wanted // multiple) * multiple if multiple else wanted
    model.resize_token_embeddings(rows, mean_resizing=False)
    with _writable(_tables(model)) as tables, torch.no_grad():
        for table in tables:
            matrix = table if table.dim() == 2 else table.unsqueeze(1)  # a bias has rows of one number
            matrix[wanted:] = matrix[:before].mean(0, dtype=torch.float32).to(table.dtype)
            _fill(matrix, {number: ids for number, ids in parts.items() if ids})


def _tables(model: PreTrainedModel) -> list[nn.Parameter]:
    """Everything with a row for each entry, tied weights once."""
    head = model.get_output_embeddings()
    found = [model.get_input_embeddings().weight, head.weight, getattr(head, "bias", None)]
    return list({id(table): table for table in found if table is not None}.values())


@contextmanager
def _writable(tables: list[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    spread = [table for table in tables if hasattr(table, "ds_id")]
    with deepspeed.zero.GatheredParameters(spread, modifier_rank=0, enabled=bool(spread)):
        yield tables


def _fill(matrix: Tensor, parts: dict[int, list[int]]) -> None:
    """Writes into rows of a (rows, width) matrix the means of others. parts: numbers of old rows by new row."""
    rows = torch.tensor(list(parts), device=matrix.device)
    counts = torch.tensor([len(ids) for ids in parts.values()], device=matrix.device)
    flat = torch.tensor([one for ids in parts.values() for one in ids], device=matrix.device)
    owners = torch.arange(len(parts), device=matrix.device).repeat_interleave(counts)
    # In float32: sums of rows in bfloat16 would be rounded at each step.
    sums = torch.zeros(len(parts), matrix.size(1), device=matrix.device)  # (new rows, width)
    sums.index_add_(0, owners, matrix[flat].float())
    matrix[rows] = (sums / counts.unsqueeze(1)).to(matrix.dtype)


def train_only_embeddings(model: PreTrainedModel) -> None:
    """Freezes all but embeddings and output head."""
    model.requires_grad_(False)
    for table in _tables(model):
        table.requires_grad_(True)


def adapter_of(job: JobDocument) -> Adapter:
    """The job's adapter; with a longer vocabulary it leaves embeddings and head to be trained whole."""
    if job.vocabulary is None:
        return job.adapter
    return job.adapter.model_copy(update={"train_embeddings": True})


def trains_only_embeddings(job: JobDocument) -> bool:
    """Whether the job is the first of two stages."""
    return job.vocabulary is not None and job.vocabulary.train == VocabularyTraining.EMBEDDINGS
