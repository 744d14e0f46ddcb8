"""Quantization types of llama.cpp: which tensor gets which encoding, and the encoding itself.

A type such as q4_k_m names a mixture: most weights at its bits, and at more bits those that cost the most quality when
they are rounded (output head, values, the feed-forward's second matrix). The mixtures follow llama.cpp's own, so that
files compare with those made by its tools.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, LlamaFileType

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure

Encoding = GGMLQuantizationType

# A row is encoded in blocks of 256 weights by the K types; rows that do not divide take the type with blocks of 32 that
# is next in quality, as llama.cpp does.
_NARROW = {
    Encoding.Q2_K: Encoding.IQ4_NL,
    Encoding.Q3_K: Encoding.IQ4_NL,
    Encoding.IQ4_XS: Encoding.IQ4_NL,
    Encoding.Q4_K: Encoding.Q5_0,
    Encoding.Q5_K: Encoding.Q5_1,
    Encoding.Q6_K: Encoding.Q8_0,
}


@dataclass(frozen=True)
class Place:
    """Where a matrix stands: its role as GGUF names it (`attn_v`, `output`, …) and the layer of how many."""

    role: str
    layer: int
    layers: int
    group: int = 1
    """Query heads per key-value head: with many, the value matrix is small and its bits are cheap."""

    @property
    def sensitive(self) -> bool:
        """The first and the last eighth of the layers, and every third between: llama.cpp's choice for more bits."""
        eighth = self.layers // 8
        return self.layer < eighth or self.layer >= 7 * self.layers // 8 or (self.layer - eighth) % 3 == 2


def _always(encoding: Encoding) -> Callable[[Place], Encoding]:
    return lambda place: Encoding.Q6_K if place.role == "output" and _is_k(encoding) else encoding


def _is_k(encoding: Encoding) -> bool:
    return encoding in _NARROW


def _medium(few: Encoding, many: Encoding) -> Callable[[Place], Encoding]:
    """More bits for values and the feed-forward's second matrix of the sensitive layers."""

    def choose(place: Place) -> Encoding:
        if place.role == "output":
            return Encoding.Q6_K
        return many if place.role in ("attn_v", "ffn_down") and place.sensitive else few

    return choose


def _q3_k_m(place: Place) -> Encoding:
    if place.role == "output":
        return Encoding.Q6_K
    if place.role == "attn_v":
        return Encoding.Q5_K if place.layer < 2 else Encoding.Q4_K
    if place.role == "ffn_down":
        if place.layer < place.layers // 16:
            return Encoding.Q5_K
        return Encoding.Q4_K if place.sensitive else Encoding.Q3_K
    return Encoding.Q4_K if place.role == "attn_output" else Encoding.Q3_K


def _q2_k(place: Place) -> Encoding:
    if place.role == "output":
        return Encoding.Q6_K
    if place.role == "attn_v":
        return Encoding.Q4_K if place.group >= 4 else Encoding.Q3_K
    return Encoding.Q3_K if place.role in ("ffn_down", "attn_output") else Encoding.Q2_K


_TYPES: dict[str, tuple[LlamaFileType, Callable[[Place], Encoding]]] = {
    "f32": (LlamaFileType.ALL_F32, _always(Encoding.F32)),
    "f16": (LlamaFileType.MOSTLY_F16, _always(Encoding.F16)),
    "q8_0": (LlamaFileType.MOSTLY_Q8_0, _always(Encoding.Q8_0)),
    "q6_k": (LlamaFileType.MOSTLY_Q6_K, _always(Encoding.Q6_K)),
    "q5_k_m": (LlamaFileType.MOSTLY_Q5_K_M, _medium(Encoding.Q5_K, Encoding.Q6_K)),
    "q5_k_s": (LlamaFileType.MOSTLY_Q5_K_S, _always(Encoding.Q5_K)),
    "q5_1": (LlamaFileType.MOSTLY_Q5_1, _always(Encoding.Q5_1)),
    "q5_0": (LlamaFileType.MOSTLY_Q5_0, _always(Encoding.Q5_0)),
    "q4_k_m": (LlamaFileType.MOSTLY_Q4_K_M, _medium(Encoding.Q4_K, Encoding.Q6_K)),
    "q4_k_s": (LlamaFileType.MOSTLY_Q4_K_S, _always(Encoding.Q4_K)),
    "iq4_nl": (LlamaFileType.MOSTLY_IQ4_NL, _always(Encoding.IQ4_NL)),
    "iq4_xs": (LlamaFileType.MOSTLY_IQ4_XS, _always(Encoding.IQ4_XS)),
    "q4_1": (LlamaFileType.MOSTLY_Q4_1, _always(Encoding.Q4_1)),
    "q4_0": (LlamaFileType.MOSTLY_Q4_0, _always(Encoding.Q4_0)),
    "q3_k_m": (LlamaFileType.MOSTLY_Q3_K_M, _q3_k_m),
    "q3_k_s": (LlamaFileType.MOSTLY_Q3_K_S, _always(Encoding.Q3_K)),
    "q2_k": (LlamaFileType.MOSTLY_Q2_K, _q2_k),
}

QUANTIZATION_TYPES = tuple(_TYPES)
"""Every type that can be written, from the most bits to the fewest."""


def file_type(quantization: str) -> LlamaFileType:
    """The number that a GGUF file carries for a type. Raises JobFailure(ConfigInvalid) for an unknown one."""
    if quantization not in _TYPES:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"quantization.type is {quantization!r}; write one of {', '.join(QUANTIZATION_TYPES)}.",
        )
    return _TYPES[quantization][0]


def choose_encoding(quantization: str, place: Place, row_length: int) -> Encoding:
    """The encoding of a matrix whose rows hold row_length weights; one that their blocks divide."""
    encoding = _TYPES[quantization][1](place)
    if row_length % GGML_QUANT_SIZES[encoding][0] and encoding in _NARROW:
        encoding = _NARROW[encoding]
    return Encoding.F16 if row_length % GGML_QUANT_SIZES[encoding][0] else encoding


def encode(weights: npt.NDArray[np.float32], encoding: Encoding) -> npt.NDArray[np.generic]:
    """A matrix (rows, row length) in an encoding: float arrays for f32 and f16, else (rows, bytes of a row) uint8.

    The same weights always give the same bytes.
    """
    if encoding == Encoding.F32:
        return weights
    if encoding == Encoding.F16:
        return weights.astype(np.float16)
    block, block_bytes = GGML_QUANT_SIZES[encoding]
    rows, length = weights.shape
    source = np.ascontiguousarray(weights, dtype=np.float32)
    encoded = np.zeros((rows, length // block * block_bytes), dtype=np.uint8)
    written = _quantize_chunk()(int(encoding), source.ctypes.data, encoded.ctypes.data, 0, rows, length, None)
    assert written == encoded.nbytes, f"{encoding.name} wrote {written} bytes instead of {encoded.nbytes}"
    return encoded


@functools.cache
def _quantize_chunk() -> Callable[..., int]:
    """llama.cpp's encoder, from the library inside xllamacpp.

    `gguf` itself encodes nothing below q8_0 of what is needed here. The symbol is part of ggml's public header, but not
    of xllamacpp's promise: constraints.txt pins the version and tests/engine/gguf holds the encoding to what `gguf`
    decodes.
    """
    # Threads of OpenMP that spin while they wait would take the cores from everyone else; read once, at loading.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    import xllamacpp.xllamacpp as native

    function = ctypes.CDLL(native.__file__).ggml_quantize_chunk
    function.restype = ctypes.c_size_t
    function.argtypes = [
        ctypes.c_int,  # encoding
        ctypes.c_void_p,  # float32 weights
        ctypes.c_void_p,  # where to write
        ctypes.c_int64,  # first weight
        ctypes.c_int64,  # rows
        ctypes.c_int64,  # weights of a row
        ctypes.c_void_p,  # importance of each column, or nothing
    ]
    called: Callable[..., int] = function
    return called
