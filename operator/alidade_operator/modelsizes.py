"""Shapes of models for the memory estimate: from what is known of a model, or a table of published ones."""

import math
import re
from dataclasses import dataclass

from alidade_crds.blocks import ModelInit
from alidade_crds.status import ModelInfo


@dataclass(frozen=True)
class ModelShape:
    """What memory depends on: weights, width of the residual stream and feed-forward layer, blocks, vocabulary."""

    parameters: int
    hidden_size: int
    layers: int
    vocab_size: int
    intermediate_size: int
    kv_share: float = 1.0
    """Key-value heads over heads."""


# Published configurations, by size; an unknown model takes the shape of the nearest. GPT-2 small and medium (Radford
# et al. 2019), Qwen2-0.5B, TinyLlama-1.1B, OPT-2.7B (Zhang et al. 2022), Llama-3.2-3B, Llama-2-7B, Llama-3-8B,
# Llama-2-13B, CodeLlama-34B, Llama-3-70B, Llama-3.1-405B (their config.json files).
STANDARD_SHAPES = (
    ModelShape(124_000_000, 768, 12, 50257, 3072),
    ModelShape(355_000_000, 1024, 24, 50257, 4096),
    ModelShape(494_000_000, 896, 24, 151936, 4864, kv_share=1 / 7),
    ModelShape(1_100_000_000, 2048, 22, 32000, 5632, kv_share=1 / 8),
    ModelShape(2_700_000_000, 2560, 32, 50272, 10240),
    ModelShape(3_210_000_000, 3072, 28, 128256, 8192, kv_share=1 / 3),
    ModelShape(6_740_000_000, 4096, 32, 32000, 11008),
    ModelShape(8_030_000_000, 4096, 32, 128256, 14336, kv_share=1 / 4),
    ModelShape(13_000_000_000, 5120, 40, 32000, 13824),
    ModelShape(34_000_000_000, 8192, 48, 32000, 22016, kv_share=1 / 8),
    ModelShape(70_600_000_000, 8192, 80, 128256, 28672, kv_share=1 / 8),
    ModelShape(405_000_000_000, 16384, 126, 128256, 53248, kv_share=1 / 16),
)

_UNITS = {"m": 10**6, "b": 10**9, "t": 10**12}
# A size stands alone between other characters: llama-2-7b-hf, not v2b3 or 7bit. T counts tokens in names, not weights.
_SIZE_TOKEN = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])")
# Mixture-of-experts names such as 8x7b: the size is neither 7 nor 56 billion, so none is taken.
_EXPERTS = re.compile(r"\d+x\d+(\.\d+)?b")


def parse_parameters(text: str) -> int:
    """The number that `7B`, `1.3B` or `350M` stands for."""
    return round(float(text[:-1]) * _UNITS[text[-1].lower()])


def parameters_in_name(uri: str) -> int | None:
    """The size that a model's address tells (`7b`, `1.3B`), the last one where there are several; None without."""
    name = uri.lower()
    if _EXPERTS.search(name):
        return None
    tokens = _SIZE_TOKEN.findall(name)
    if not tokens:
        return None
    number, unit = tokens[-1]
    return round(float(number) * _UNITS[unit])


def standard_shape(parameters: int) -> ModelShape:
    """The shape of the published model that is nearest in size (as a ratio), with the number of weights asked for."""
    nearest = min(STANDARD_SHAPES, key=lambda shape: abs(math.log(shape.parameters / parameters)))
    return ModelShape(
        parameters=parameters,
        hidden_size=nearest.hidden_size,
        layers=nearest.layers,
        vocab_size=nearest.vocab_size,
        intermediate_size=nearest.intermediate_size,
        kv_share=nearest.kv_share,
    )


def shape_of_init(init: ModelInit) -> ModelShape:
    """The shape of a Llama from scratch (Touvron et al. 2023): gated feed-forward, RMS norms, no biases."""
    hidden = init.hidden_size
    intermediate = init.intermediate_size or default_intermediate_size(hidden)
    kv_share = (init.kv_heads or init.heads) / init.heads
    attention = round(hidden * hidden * (2 + 2 * kv_share))
    block = attention + 3 * hidden * intermediate + 2 * hidden
    embeddings = init.vocab_size * hidden * (1 if init.tie_embeddings else 2)
    return ModelShape(
        parameters=init.layers * block + embeddings + hidden,
        hidden_size=hidden,
        layers=init.layers,
        vocab_size=init.vocab_size,
        intermediate_size=intermediate,
        kv_share=kv_share,
    )


def default_intermediate_size(hidden_size: int) -> int:
    """8/3 of the width, up to a multiple of 8."""
    return -(-hidden_size * 8 // 3 // 8) * 8


def shape_of_model(model: ModelInfo) -> ModelShape:
    """The shape of a model that another resource made; what it does not report is taken from the table."""
    standard = standard_shape(max(1, model.parameters))
    hidden = model.hidden_size or standard.hidden_size
    return ModelShape(
        parameters=model.parameters,
        hidden_size=hidden,
        layers=model.layers or standard.layers,
        vocab_size=model.vocab_size or standard.vocab_size,
        intermediate_size=default_intermediate_size(hidden) if model.hidden_size else standard.intermediate_size,
    )
