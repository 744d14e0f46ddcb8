"""LoRA (Hu et al. 2021), rsLoRA (Kalajdzievski 2023) and DoRA (Liu et al. 2024) on a base model, by peft."""

from pathlib import Path
from typing import Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from alidade_crds.blocks import Adapter
from alidade_crds.reasons import FailureReason
from alidade_trainer.failures import JobFailure
from alidade_trainer.quantized_bases import write_quantization

Task = Literal["CAUSAL_LM", "SEQ_CLS"]
"""peft's names of what a model is for."""


def add_adapter(model: PreTrainedModel, adapter: Adapter, task: Task) -> PeftModel:
    """The model with low-rank additions, of which alone the weights are trained; for SEQ_CLS the head is, too.

    Raises JobFailure (ConfigInvalid) when no module is named as adapter.targetModules says.
    """
    modules = "all-linear" if adapter.target_modules == ["auto"] else adapter.target_modules
    whole = _embedding_names(model) if adapter.train_embeddings else []
    if task == "SEQ_CLS":
        whole.append("score")
    config = LoraConfig(
        task_type=task,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=modules,
        modules_to_save=whole or None,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        ensure_weight_tying=adapter.train_embeddings,
    )
    try:
        # DeepSpeed gives all weights one format; an adapter in fp32 beside a base in bf16 would be undone by it.
        return get_peft_model(model, config, autocast_adapter_dtype=False)
    except ValueError as error:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"adapter.targetModules is {', '.join(adapter.target_modules)}, but the model has no such modules to add "
            f"to; use auto, or endings of these: {', '.join(_linear_names(model))}.",
        ) from error


def _embedding_names(model: PreTrainedModel) -> list[str]:
    """Last parts of the names of embeddings and output head; of tied ones the embeddings, which the head follows."""
    wanted = [model.get_input_embeddings()]
    if not model.config.tie_word_embeddings:
        wanted.append(model.get_output_embeddings())
    return sorted(
        {name.rpartition(".")[2] for name, module in model.named_modules() if any(module is one for one in wanted)}
    )


def _linear_names(model: PreTrainedModel) -> list[str]:
    return sorted(
        {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    )


def save_adapter(model: PeftModel, state: dict[str, Tensor], folder: Path, *, base: str) -> None:
    """Writes the adapter in peft's format.

    state: the trained weights by their names in the model. base: address of the model it belongs to.
    """
    config = model.peft_config["default"]
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(folder)
    write_quantization(model, folder)
    file = folder / "adapter_model.safetensors"
    tensors = get_peft_model_state_dict(model, state_dict=state, save_embedding_layers=False)
    # Tied weights have two names in peft's format; safetensors refuses one memory under two.
    save_file({name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}, file)
