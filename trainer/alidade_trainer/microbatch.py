"""How many sequences a pass takes where the job leaves it open: by estimate, and by trial where one tells anything."""

from typing import Any

import numpy as np
from torch import nn

from alidade_crds.blocks import Precision
from alidade_crds.contract import JobDocument
from alidade_trainer.data.dataset import Collator, PreparedData
from alidade_trainer.kernels import recomputed_layers
from alidade_trainer.loss import can_select_positions
from alidade_trainer.memory import ModelShape, enough_sequences, fitting_sequences, free_bytes, state_bytes
from alidade_trainer.peers import Peers
from alidade_trainer.plan import largest_power_of_two, share_of_process
from alidade_trainer.probing import BUFFERS_BYTES, can_probe, largest_fitting, pass_fits
from alidade_trainer.starting import StartingPoint, model_itself
from alidade_trainer.zero import weight_size


def found_micro_batch(job: JobDocument, start: StartingPoint, model: nn.Module, peers: Peers) -> int:
    """The largest micro batch that fits: by trial where one tells anything, else by estimate."""
    guess = fitting_micro_batch(job, start, model, peers)
    if not isinstance(start.data, PreparedData) or not can_probe(peers.device, zero_stage=job.deepspeed.zero_stage):
        return guess
    collate = Collator(start.tokenizer.pad_token_id, packed=start.data.packed)
    selects = can_select_positions(model_itself(model))
    reserved = _state_bytes(job, model, peers) + BUFFERS_BYTES
    # As long as the longest, and all of it learned: no batch can take more.
    places = np.arange(start.data.train.longest, dtype=np.int64)
    row = {"input_ids": np.zeros_like(places), "labels": np.zeros_like(places), "position_ids": places}

    def fits(size: int) -> bool:
        return pass_fits(model, collate([row] * size), peers.device, selects_positions=selects, reserved=reserved)

    enough = enough_sequences(start.data.train.longest, on_gpu=True)
    return largest_fitting(guess, largest_power_of_two(share_of_process(job.training, peers.count), enough), fits)


def fitting_micro_batch(job: JobDocument, start: StartingPoint, model: nn.Module, peers: Peers) -> int:
    """The largest micro batch that fits by estimate."""
    on_gpu = peers.device.type == "cuda"
    config: Any = model_itself(model).config
    shape = ModelShape(
        config.hidden_size,
        config.num_hidden_layers,
        config.vocab_size,
        _bytes_per_number(job),
        recomputed_layers(job.training, config.num_hidden_layers),
        keeps_inputs=not job.training.offload_activations,
    )
    # On a GPU the weights themselves have still to be moved there, but for those that were quantized on it.
    waiting = [weight for weight in model.parameters() if on_gpu and weight.device.type == "cpu"]
    weights = sum(weight.numel() for weight in waiting) * _bytes_per_number(job)
    free = free_bytes(peers.device, local_processes=peers.local_count) - _state_bytes(job, model, peers) - weights
    fitting = fitting_sequences(shape, start.data.train.longest, free_bytes=free, on_gpu=on_gpu)
    return largest_power_of_two(share_of_process(job.training, peers.count), fitting)


def _state_bytes(job: JobDocument, model: nn.Module, peers: Peers) -> float:
    return state_bytes(
        trainable=sum(weight_size(weight) for weight in model.parameters() if weight.requires_grad),
        bytes_per_number=_bytes_per_number(job),
        stage=job.deepspeed.zero_stage,
        processes=peers.count,
    )


def _bytes_per_number(job: JobDocument) -> int:
    return 2 if job.training.precision == Precision.BF16 else 4
