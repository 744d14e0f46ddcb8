"""Samples put together into sequences of full length, none of them cut."""

from array import array

import numpy as np
from numpy.typing import NDArray

# fmt: off
PACKABLE = frozenset((
    "arcee", "bitnet", "cohere", "cohere2", "ernie4_5", "exaone4", "gemma", "gemma2", "gemma3_text", "glm",
    "glm4", "gpt2", "gpt_neo", "gpt_neox", "gptj", "granite", "granitemoe", "helium", "hunyuan_v1_dense", "internlm3",
    "llama", "ministral", "ministral3", "mistral", "mixtral", "nemotron", "olmo", "olmo2", "olmo3", "olmoe",
    "persimmon", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2",
))
# fmt: on
"""Types of models whose attention stays within a sample when positions begin anew with each, as transformers has them.
Others, such as OPT, Falcon and BLOOM, look past that: their samples would see one another."""


def best_fit(lengths: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bins of lengths, each bin's summing to at most capacity.

    Returns (lengths,) the indices, bin after bin, and (bins + 1,) where each bin begins and the last one ends.
    Best-fit decreasing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling", section 3): the longest first,
    each into the fullest bin that has room. Ties keep the order of the indices, so the result is a function of the
    lengths. Raises ValueError for a length above the capacity.
    """
    if lengths.size and int(lengths.max()) > capacity:
        raise ValueError(f"a length of {int(lengths.max())} does not fit into {capacity}")
    order = np.argsort(-lengths, kind="stable")
    bin_of = array("q")  # of each in that order; arrays, since lists take five times the memory
    with_room = [array("q") for _ in range(capacity + 1)]  # by room left: numbers of bins
    rooms = 0  # bit r is set while a bin with room r is known, so that the smallest room >= length is two operations
    bins = 0
    for length in map(int, lengths[order]):
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            number = with_room[room].pop()
            if not with_room[room]:
                rooms &= ~(1 << room)
        else:
            room, number = capacity, bins
            bins += 1
        bin_of.append(number)
        left = room - length
        if left:
            with_room[left].append(number)
            rooms |= 1 << left
    numbers = np.frombuffer(bin_of, dtype=np.int64) if bin_of else np.empty(0, dtype=np.int64)
    counts = np.bincount(numbers, minlength=bins)
    return order[np.argsort(numbers, kind="stable")], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
