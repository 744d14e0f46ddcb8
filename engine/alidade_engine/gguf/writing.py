"""A Llama in Hugging Face format as one GGUF file, whole or not at all, the same bytes for the same model."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGML_QUANT_SIZES, GGUFWriter, RopeScalingType
from safetensors import safe_open
from transformers import PretrainedConfig

from alidade_crds.reasons import FailureReason
from alidade_engine.digests import file_digest
from alidade_engine.disk import sync
from alidade_engine.failures import JobFailure
from alidade_engine.gguf.quantization import Encoding, Place, choose_encoding, encode, file_type
from alidade_engine.gguf.vocabulary import Vocabulary, read_vocabulary
from alidade_engine.models import check_weights, load_config, load_tokenizer

_ARCHITECTURES = ("LlamaForCausalLM", "MistralForCausalLM")
OUTER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@dataclass(frozen=True)
class GgufFile:
    """A file that was written. sha256 is of its bytes, in hexadecimal."""

    path: Path
    quantization: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class _Tensor:
    """One weight: its name in the folder and in the file, its shape, and how it is encoded."""

    source: str
    name: str
    shape: tuple[int, ...]
    encoding: Encoding
    turned_heads: int = 0
    """Heads whose rotary halves change places; 0 where rows stay as they are."""

    @property
    def byte_shape(self) -> tuple[int, ...]:
        """Its shape with the last dimension in bytes."""
        block, block_bytes = GGML_QUANT_SIZES[self.encoding]
        return (*self.shape[:-1], self.shape[-1] // block * block_bytes)


def write_gguf(folder: Path, path: Path, quantization: str = "f16") -> GgufFile:
    """Writes the model in a folder to a file, one weight in memory at a time.

    Raises JobFailure: ConfigInvalid for an unknown type; as `load_config`, `check_weights` and `load_tokenizer`;
    ModelInvalid for an architecture, rotary scaling or tokenizer that this writer does not know.
    """
    number = file_type(quantization)
    config = load_config(folder)
    _refuse_unknown(folder, config)
    check_weights(folder)
    vocabulary = read_vocabulary(load_tokenizer(folder), config.vocab_size, stop_ids(folder))
    partial = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(partial, "llama")
    try:
        with _Weights(folder) as weights:
            _describe(writer, config, vocabulary, int(number))
            _write_tensors(writer, config, weights, quantization)
        writer.close()
        sync(partial)
        partial.rename(path)
    except BaseException:
        writer.close()
        partial.unlink(missing_ok=True)
        raise
    sync(path.parent)
    return GgufFile(path, quantization, path.stat().st_size, file_digest(path))


def stop_ids(folder: Path) -> list[int]:
    """The tokens that end an answer by generation_config.json; empty when it says nothing."""
    file = folder / "generation_config.json"
    named = json.loads(file.read_text("utf-8")).get("eos_token_id") if file.is_file() else None
    if named is None:
        return []
    return list(named) if isinstance(named, list) else [int(named)]


def _refuse_unknown(folder: Path, config: PretrainedConfig) -> None:
    architectures = config.architectures or ["nothing"]
    if architectures[0] not in _ARCHITECTURES:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"{folder} holds a {architectures[0]}; only {' and '.join(_ARCHITECTURES)} are written as GGUF. Serve it "
            "with vLLM or text-generation-inference.",
        )
    window = getattr(config, "sliding_window", None)
    if window is not None and window < config.max_position_embeddings:
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"config.json sets sliding_window to {window}, which GGUF's llama does not have; set it to null and "
            f"max_position_embeddings to {window}.",
        )


class _Weights:
    """The tensors of a folder's safetensors files by name, read when asked for."""

    def __init__(self, folder: Path) -> None:
        self._opened = ExitStack()
        self._files: dict[str, Any] = {}
        for file in sorted(folder.glob("*.safetensors")):
            handle = self._opened.enter_context(safe_open(str(file), framework="pt"))
            self._files.update(dict.fromkeys(handle.keys(), handle))

    def __enter__(self) -> "_Weights":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises JobFailure(ModelInvalid) when the folder has no such weight."""
        if name not in self._files:
            raise JobFailure(FailureReason.MODEL_INVALID, f"The model lacks the weight {name}; copy it again.")
        return tuple(self._files[name].get_slice(name).get_shape())

    def read(self, name: str) -> npt.NDArray[np.float32]:
        array: npt.NDArray[np.float32] = self._files[name].get_tensor(name).to(torch.float32).numpy()
        return array


def _describe(writer: GGUFWriter, config: PretrainedConfig, vocabulary: Vocabulary, number: int) -> None:
    """Sizes and vocabulary. No name, time or path: they would make equal models different files."""
    head = _head_size(config)
    writer.add_file_type(number)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(head)
    _describe_rotation(writer, config)
    _describe_vocabulary(writer, vocabulary)


def _head_size(config: PretrainedConfig) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _describe_rotation(writer: GGUFWriter, config: PretrainedConfig) -> None:
    rotation = dict(config.rope_parameters)
    kind = rotation.get("rope_type", "default")
    writer.add_rope_freq_base(float(rotation["rope_theta"]))
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(RopeScalingType.LINEAR if kind == "linear" else RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rotation["factor"]))
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(int(rotation["original_max_position_embeddings"]))
    elif kind not in ("default", "llama3"):
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"config.json scales positions by {kind!r}; GGUF has linear, yarn and llama3. Train with one of them, or "
            "serve the model with vLLM.",
        )


def _describe_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    writer.add_add_bos_token(vocabulary.add_bos)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(vocabulary.add_space_prefix)
    for name, token in vocabulary.special.items():
        getattr(writer, f"add_{name}_token_id")(token)
    writer.add_chat_template(vocabulary.chat_template)
    writer.add_string("tokenizer.huggingface.json", vocabulary.hugging_face)


def _write_tensors(writer: GGUFWriter, config: PretrainedConfig, weights: _Weights, quantization: str) -> None:
    factors = _frequency_factors(config)
    tensors = list(_tensors(config, weights, quantization))
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for tensor in tensors:
        stored = np.dtype({Encoding.F32: np.float32, Encoding.F16: np.float16}.get(tensor.encoding, np.uint8))
        shape = tensor.byte_shape if stored == np.uint8 else tensor.shape
        size = int(np.prod(tensor.byte_shape))
        writer.add_tensor_info(tensor.name, shape, stored, size, raw_dtype=tensor.encoding)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for tensor in tensors:
        writer.write_tensor_data(_encoded(tensor, weights.read(tensor.source)))


def _encoded(tensor: _Tensor, values: npt.NDArray[np.float32]) -> npt.NDArray[np.generic]:
    if tensor.turned_heads:
        values = halves_interleaved(values, tensor.turned_heads)
    if not np.isfinite(values).all():
        raise JobFailure(
            FailureReason.MODEL_INVALID,
            f"The weight {tensor.source} holds numbers that are not finite; the model would answer nothing sensible. "
            "Use an earlier checkpoint.",
        )
    if values.ndim == 1:
        return values
    return encode(values, tensor.encoding)


def halves_interleaved(values: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """Rows of each head reordered: Hugging Face turns row i with row i + half, GGUF's llama neighbours."""
    shape = values.shape
    swapped = values.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(swapped.reshape(shape))


def _tensors(config: PretrainedConfig, weights: _Weights, quantization: str) -> Iterator[_Tensor]:
    """Every weight, in the order in which it is used."""
    layers = config.num_hidden_layers
    tied = bool(config.tie_word_embeddings)
    # With tied embeddings the one matrix is also the output head, and is encoded as one.
    yield _tensor(
        weights, "model.embed_tokens.weight", Place("output" if tied else "token_embd", 0, layers), quantization
    )
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    group = config.num_attention_heads // config.num_key_value_heads
    for layer in range(layers):
        for module, role in LAYER_NAMES.items():
            for part in ("weight", "bias"):
                source = f"model.layers.{layer}.{module}.{part}"
                if part == "bias" and source not in weights:
                    continue
                place = Place(role, layer, layers, group)
                yield _tensor(weights, source, place, quantization, heads.get(role, 0))
    yield _tensor(weights, "model.norm.weight", Place("output_norm", 0, layers), quantization)
    if not tied:
        yield _tensor(weights, "lm_head.weight", Place("output", 0, layers), quantization)


def _tensor(weights: _Weights, source: str, place: Place, quantization: str, turned_heads: int = 0) -> _Tensor:
    shape = weights.shape(source)
    module, _, part = source.rpartition(".")
    name = OUTER_NAMES.get(module) or f"blk.{place.layer}.{place.role}"
    encoding = choose_encoding(quantization, place, shape[-1]) if len(shape) > 1 else Encoding.F32
    return _Tensor(source, f"{name}.{part}", shape, encoding, turned_heads)


def _frequency_factors(config: PretrainedConfig) -> npt.NDArray[np.float32] | None:
    """(half a head,) by how much each rotary frequency is divided under Llama 3.1's scaling; none under others."""
    rotation = config.rope_parameters
    if rotation.get("rope_type") != "llama3":
        return None
    half = _head_size(config) // 2
    wavelengths = 2 * np.pi * float(rotation["rope_theta"]) ** (np.arange(half) / half)
    factor, low, high = (float(rotation[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    turns = float(rotation["original_max_position_embeddings"]) / wavelengths
    blend = np.clip((turns - low) / (high - low), 0.0, 1.0)  # 1 keeps a frequency, 0 divides it by the factor
    return (1.0 / (blend + (1.0 - blend) / factor)).astype(np.float32)
