"""Models that are benchmarked: shapes of published ones with random weights, made here with their data."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.sft import records, write_rows

MEAN_ANSWER = 40
"""Tokens after which an answer ends in the mean."""
TOKENS_FILE = "tokens.json"
"""Written last, beside a model: how many weights it has, and how many tokens of a row attend to one another."""


@dataclass(frozen=True)
class Shape:
    """init: as the job contract's model.init has it, whose vocabSize the tokenizer learns. rows: of the embedding."""

    name: str
    init: dict[str, Any]
    rows: int
    max_length: int
    batch: int
    """Rows of max_length tokens in an optimizer step."""
    micro_batch: int
    samples: int
    longest: int = 40
    answer: int = 60

    @property
    def records(self) -> list[dict[str, str]]:
        """What is trained on and asked."""
        return records(self.samples, longest=self.longest, answer=self.answer)


def _init(width: int, layers: int, heads: int, kv_heads: int, inner: int, *, tied: bool) -> dict[str, Any]:
    return {
        "hiddenSize": width,
        "layers": layers,
        "heads": heads,
        "kvHeads": kv_heads,
        "intermediateSize": inner,
        "vocabSize": 8192,
        "contextLength": 4096,
        "tieEmbeddings": tied,
    }


# Qwen2.5-0.5B, Qwen2.5-1.5B and Llama-2-7B by their config.json, each as a Llama.
SHAPES = {
    "0.5b": Shape("0.5b", _init(896, 24, 14, 2, 4864, tied=True), 151936, 4096, 16, 4, 4096),
    "1.5b": Shape("1.5b", _init(1536, 28, 12, 2, 8960, tied=True), 151936, 4096, 8, 2, 4096),
    "7b": Shape("7b", _init(4096, 32, 32, 32, 11008, tied=False), 32000, 4096, 4, 1, 4096),
}
_TINY = {**_init(32, 2, 2, 1, 64, tied=True), "vocabSize": 300, "contextLength": 256}
TINY = {name: Shape(name, _TINY, 320, 128, 4, 2, 64, longest=6, answer=4) for name in SHAPES}
"""What stands for each shape where only the benchmark itself is tried."""


def make_model(shape: Shape, folder: Path, *, on_gpu: bool) -> None:
    """Writes start/model, records.jsonl, prompts.jsonl, rows.json and TOKENS_FILE to the folder, once."""
    if (folder / TOKENS_FILE).is_file():
        return
    import torch

    from alidade_crds.blocks import ModelInit
    from alidade_engine.models import init_model
    from alidade_engine.tokenization import train_tokenizer

    folder.mkdir(parents=True, exist_ok=True)
    found = shape.records
    for name in ("records", "prompts"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    init = ModelInit.model_validate(shape.init)
    texts = (text for row in found for text in row.values())
    tokenizer = train_tokenizer(texts, init.vocab_size, model_max_length=init.context_length)
    torch.manual_seed(0)
    # On the GPU, which draws the weights of 7B in a second; a processor takes a minute.
    with torch.device("cuda" if on_gpu else "cpu"), torch.no_grad():
        model: Any = init_model(init, tokenizer, dtype=torch.bfloat16 if on_gpu else torch.float32)
        model.resize_token_embeddings(shape.rows, mean_resizing=False)
        end_by_chance(model, tokenizer.eos_token_id)
    model.save_pretrained(folder / "start/model")
    tokenizer.save_pretrained(folder / "start/model")
    lengths = [len(row["input_ids"]) for row in write_rows(folder, shape.max_length)["unpacked"]]
    # A token attends within its sample: the mean is over tokens.
    attended = sum(length**2 for length in lengths) / sum(lengths)
    weights = sum(weight.numel() for weight in model.parameters())
    (folder / TOKENS_FILE).write_text(json.dumps({"attended": attended, "weights": weights}))


def end_by_chance(model: Any, eos: int) -> None:
    """Makes EOS about as likely as 1 / MEAN_ANSWER after any token; random weights would hardly ever end an answer.

    One unit of every embedding is a constant, which the residual stream carries to the head; there EOS alone reads more
    of it than the other entries do.
    """
    import torch

    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    constant = 15 * model.config.initializer_range
    embedding[:, 0] = constant
    head[:, 0] = constant
    ids = torch.randint(5, len(embedding), (1, 64), device=embedding.device)
    hidden = model.model(input_ids=ids).last_hidden_state[0].float()  # (time, width)
    logits = hidden @ head.float().T  # (time, vocabulary)
    wanted = torch.logsumexp(logits, -1) - math.log(MEAN_ANSWER - 1)  # (time,)
    head[eos, 0] += ((wanted - logits[:, eos]) / hidden[:, 0]).mean().to(head.dtype)
