"""The encoder inside xllamacpp is held to what the gguf package decodes, and mixtures to llama.cpp's."""

import numpy as np
import pytest
from gguf import dequantize, quantize

from alidade_engine.gguf.quantization import Encoding, Place, choose_encoding, encode

# Root mean square error over that of the weights, normally distributed; measured with this encoder, and rounded up by a
# tenth. Halving the bits about quadruples it.
ERRORS = {
    Encoding.Q8_0: 0.007,
    Encoding.Q6_K: 0.020,
    Encoding.Q5_K: 0.040,
    Encoding.Q5_1: 0.040,
    Encoding.Q5_0: 0.045,
    Encoding.Q4_K: 0.080,
    Encoding.Q4_1: 0.080,
    Encoding.Q4_0: 0.095,
    Encoding.IQ4_NL: 0.080,
    Encoding.IQ4_XS: 0.080,
    Encoding.Q3_K: 0.155,
    Encoding.Q2_K: 0.330,
}


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((16, 512)).astype(np.float32)


@pytest.mark.parametrize("encoding", ERRORS, ids=lambda encoding: encoding.name)
def test_what_is_encoded_decodes_to_nearly_the_same(encoding: Encoding, weights: np.ndarray) -> None:
    decoded = dequantize(encode(weights, encoding), encoding)
    error = np.sqrt(np.mean((decoded - weights) ** 2) / np.mean(weights**2))
    assert ERRORS[encoding] / 2 < error < ERRORS[encoding]


def test_q8_0_is_what_the_gguf_package_writes(weights: np.ndarray) -> None:
    assert np.array_equal(encode(weights, Encoding.Q8_0), quantize(weights, Encoding.Q8_0))


@pytest.mark.parametrize("encoding", [Encoding.F16, Encoding.F32])
def test_floats_stay_floats(encoding: Encoding, weights: np.ndarray) -> None:
    kind = {Encoding.F16: np.float16, Encoding.F32: np.float32}[encoding]
    assert np.array_equal(encode(weights, encoding), weights.astype(kind))


def choices(quantization: str, role: str, layers: int, group: int = 1) -> str:
    """The encodings of a role, layer by layer, as one word."""
    return " ".join(
        choose_encoding(quantization, Place(role, layer, layers, group), 256).name for layer in range(layers)
    )


@pytest.mark.parametrize(
    ("quantization", "role", "expected"),
    [
        ("q4_k_m", "attn_q", "Q4_K " * 8),
        # First and last eighth, and every third between: layers 0, 3, 6, 7 of 8.
        ("q4_k_m", "attn_v", "Q6_K Q4_K Q4_K Q6_K Q4_K Q4_K Q6_K Q6_K"),
        ("q4_k_m", "ffn_down", "Q6_K Q4_K Q4_K Q6_K Q4_K Q4_K Q6_K Q6_K"),
        ("q4_k_m", "output", "Q6_K " * 8),
        ("q5_k_m", "attn_v", "Q6_K Q5_K Q5_K Q6_K Q5_K Q5_K Q6_K Q6_K"),
        ("q3_k_m", "attn_v", "Q5_K Q5_K " + "Q4_K " * 6),
        ("q2_k", "ffn_down", "Q3_K " * 8),
        ("q2_k", "ffn_up", "Q2_K " * 8),
        ("q8_0", "output", "Q8_0 " * 8),
        ("f16", "output", "F16 " * 8),
    ],
)
def test_mixtures_spend_bits_where_llama_cpp_does(quantization: str, role: str, expected: str) -> None:
    assert choices(quantization, role, 8) == expected.strip()


@pytest.mark.parametrize(
    ("quantization", "row_length", "expected"),
    [
        ("q4_k_s", 256, "Q4_K"),
        ("q4_k_s", 96, "Q5_0"),
        ("q2_k", 96, "IQ4_NL"),
        ("q6_k", 96, "Q8_0"),
        ("q4_0", 48, "F16"),
    ],
)
def test_rows_that_no_block_divides_take_the_next_better_type(
    quantization: str, row_length: int, expected: str
) -> None:
    assert choose_encoding(quantization, Place("attn_q", 0, 4), row_length).name == expected
