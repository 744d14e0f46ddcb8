"""Rewards that a trained reward model gives."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from alidade_crds.reasons import FailureReason
from alidade_engine.data.formats import Messages
from alidade_engine.digests import model_digest
from alidade_engine.failures import JobFailure
from alidade_engine.models import ensure_pad_token, load_tokenizer
from alidade_engine.padding import padded
from alidade_engine.reward.functions import Reference
from alidade_engine.reward.network import RewardNetwork, load_classifier
from alidade_engine.templates import render_batch, resolve_template

ROWS = 32
"""Answers of one forward pass: enough for a GPU's units at usual lengths."""


class LearnedReward:
    """A reward model. It reads text with its own tokenizer and template, so it may have another than the policy."""

    def __init__(self, network: RewardNetwork, tokenizer: PreTrainedTokenizerBase, *, rows: int = ROWS) -> None:
        """network: on its device, in eval mode."""
        self._network = network.eval()
        self._tokenizer = tokenizer
        self._template = resolve_template(tokenizer, "auto")
        self._rows = rows
        self._longest = int(getattr(network.config, "max_position_embeddings", None) or 2**31)

    @classmethod
    def load(
        cls, folder: Path, *, dtype: torch.dtype, device: torch.device, digest: str | None, field: str
    ) -> "LearnedReward":
        """The reward model of a folder. Raises JobFailure when it cannot be used, or is not the one of that digest."""
        network = RewardNetwork(load_classifier(folder, dtype=dtype)).requires_grad_(False)
        tokenizer = load_tokenizer(folder)
        ensure_pad_token(tokenizer)
        if digest is not None and (found := model_digest(folder)) != digest:
            raise JobFailure(
                FailureReason.DIGEST_MISMATCH,
                f"{field} has the digest {found}; the job was made for {digest}. Train that reward model again.",
            )
        return cls(network.to(device), tokenizer)

    @torch.inference_mode()
    def score(self, prompts: Sequence[Messages], answers: Sequence[str], references: Sequence[Reference]) -> Tensor:  # noqa: ARG002
        """As `alidade_engine.reward.functions.Reward`; of a text beyond the model's context the end is read."""
        chats = [
            [*prompt, {"role": "assistant", "content": answer}] for prompt, answer in zip(prompts, answers, strict=True)
        ]
        # Short answers are often drawn several times over: each different text is rendered and scored once.
        texts = [json.dumps(chat) for chat in chats]
        different = {text: chat for text, chat in zip(texts, chats, strict=True)}
        scored = dict(zip(different, self._score(list(different.values())), strict=True))
        return torch.tensor([scored[text] for text in texts])

    def _score(self, chats: Sequence[Messages]) -> list[float]:
        rows = [one.input_ids[-self._longest :] for one in render_batch(self._tokenizer, chats, self._template)]
        scores = torch.empty(len(rows))
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        device = next(self._network.parameters()).device
        for first in range(0, len(order), self._rows):
            places = order[first : first + self._rows]
            batch = padded([rows[place] for place in places], self._tokenizer.pad_token_id)
            found = self._network(batch["input_ids"].to(device), batch["attention_mask"].to(device))
            scores[torch.tensor(places)] = found.cpu()
        values: list[float] = scores.tolist()
        return values
