"""The policy, and for PPO its critic, as one module, so that one DeepSpeed engine trains both."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from alidade_engine.reward.network import HEAD, classifier
from alidade_engine.scoring import token_logprobs
from alidade_trainer.align.losses import entropy
from alidade_trainer.loss import can_select_positions
from alidade_trainer.reward.heads import zero_head

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class _Rows:
    """input_ids, attention_mask, position_ids: (rows, time). places: (width,) of the tokens that are asked about."""

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    places: Tensor

    @property
    def answer_ids(self) -> Tensor:
        """(rows, width)."""
        return self.input_ids[:, self.places]

    @property
    def before(self) -> Tensor:
        """(width,) where the places' tokens are predicted."""
        return self.places - 1


class PolicyNetwork(nn.Module):
    """A language model that is aligned, with a critic of its own, a value head on its states, or neither."""

    def __init__(
        self, policy: "PreTrainedModel | PeftModel", *, critic: PreTrainedModel | None = None, value_head: bool = False
    ) -> None:
        """critic: a sequence classifier, whose head gives the value of every state. value_head: a linear head on the
        policy's own states, which costs next to nothing beside LoRA."""
        super().__init__()
        self.policy = policy
        self.critic = critic
        self.value_head: nn.Linear | None = None
        if value_head:
            self.value_head = nn.Linear(policy.config.hidden_size, 1, bias=False, dtype=policy.dtype)
            zero_head(self.value_head)

    @property
    def uses_adapter(self) -> bool:
        """Whether an adapter alone is trained, without which the policy is the model that training started from."""
        return not isinstance(self.policy, PreTrainedModel)

    @property
    def config(self) -> Any:
        """The language model's."""
        return self.policy.config

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        places: Tensor,
        *,
        temperature: float = 1.0,
        with_logprobs: bool = True,
        with_entropy: bool = False,
        with_values: bool = False,
        as_reference: bool = False,
    ) -> dict[str, Tensor]:
        """Of the tokens at some places, (rows, width) float32 each: `logprobs`, `entropy` of the distribution a token
        was drawn from, and `values`, what the critic expects before it.

        with_logprobs: False leaves the policy out, where a critic of its own gives the values. temperature divides the
        logits as it did when the tokens were drawn. as_reference: with the adapter off, which is the model that
        training started from.
        """
        rows = _Rows(input_ids, attention_mask, position_ids, places)
        if as_reference:
            assert not isinstance(self.policy, PreTrainedModel), "only an adapter leaves the start model as it was"
            with self.policy.disable_adapter():
                _, logits = answer_logits(self.policy, rows)
            return {"logprobs": token_logprobs(_tempered(logits, temperature), rows.answer_ids)}
        if not with_logprobs:
            return {"values": self._critic_values(rows)}
        on_states = with_values and self.value_head is not None
        states, logits = answer_logits(self.policy, rows, with_states=on_states)
        logits = _tempered(logits, temperature)
        found = {"logprobs": token_logprobs(logits, rows.answer_ids)}
        if with_entropy:
            found["entropy"] = entropy(logits)
        if on_states:
            assert self.value_head is not None
            assert states is not None
            found["values"] = self.value_head(states).squeeze(-1).float()
        elif with_values:
            found["values"] = self._critic_values(rows)
        return found

    def _critic_values(self, rows: _Rows) -> Tensor:
        assert self.critic is not None
        inner = classifier(self.critic)
        hidden = getattr(inner, inner.base_model_prefix)(
            input_ids=rows.input_ids,
            attention_mask=rows.attention_mask,
            position_ids=rows.position_ids,
            use_cache=False,
        ).last_hidden_state
        values: Tensor = getattr(inner, HEAD)(hidden[:, rows.before])  # (rows, width, 1)
        return values.squeeze(-1).float()


def answer_logits(
    model: "PreTrainedModel | PeftModel", rows: _Rows, *, with_states: bool = False
) -> tuple[Tensor | None, Tensor]:
    """(rows, width, hidden) states, when asked for, and (rows, width, vocabulary) logits that predict the tokens at the
    rows' places."""
    inner = model if isinstance(model, PreTrainedModel) else model.get_base_model()
    selects = can_select_positions(inner)
    output = model(
        input_ids=rows.input_ids,
        attention_mask=rows.attention_mask,
        position_ids=rows.position_ids,
        use_cache=False,
        output_hidden_states=with_states,
        **({"logits_to_keep": rows.before} if selects else {}),
    )
    states = output.hidden_states[-1][:, rows.before] if with_states else None
    return states, output.logits if selects else output.logits[:, rows.before]


def _tempered(logits: Tensor, temperature: float) -> Tensor:
    """The logits in float32, divided by the temperature; they are the largest tensor there is, so 1 makes no copy."""
    return logits.float() if temperature == 1.0 else logits.float() / temperature


def without_dropout(module: nn.Module) -> None:
    """Turns every dropout off for good: it would make noise of the ratio of new to old probabilities."""
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        config = getattr(part, "config", None)
        for owner in (part, config):
            if isinstance(getattr(owner, "attention_dropout", None), float):
                setattr(owner, "attention_dropout", 0.0)  # noqa: B010  # of whatever class it is


class FrozenReference(nn.Module):
    """The model that training started from, as a copy that is not trained."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        places: Tensor,
        *,
        temperature: float = 1.0,
    ) -> Tensor:
        """(rows, width) float32 log-probabilities of the tokens at some places."""
        rows = _Rows(input_ids, attention_mask, position_ids, places)
        _, logits = answer_logits(self.model, rows)
        return token_logprobs(_tempered(logits, temperature), rows.answer_ids)
