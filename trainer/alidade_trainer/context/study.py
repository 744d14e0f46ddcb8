"""Perplexity by length of context, before a training with stretched positions and after it."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import PreTrainedModel

from alidade_crds.contract import JobDocument
from alidade_engine.models import load_config
from alidade_trainer.context.lengths import Windows, perplexities, plan_windows, rotating_as
from alidade_trainer.peers import Peers
from alidade_trainer.starting import StartingPoint

NOTHING_HELD_OUT = (
    "Perplexity by length is not measured: no held-out text has {} tokens. Set dataset.validation to long texts."
)


@dataclass(frozen=True)
class LengthStudy:
    """The windows, and what was measured in them."""

    windows: Windows
    before: list[float]
    """Perplexity of the base model at each length, its positions as they were."""
    after: list[float] | None = None

    def ended(self, model: PreTrainedModel, peers: Peers) -> "LengthStudy":
        """The study with the trained model measured, too. Every process calls it."""
        return replace(self, after=perplexities(model, self.windows, peers))

    def metrics(self) -> dict[str, float]:
        """`perplexityAt512` and `perplexityAt512AtStart`, and so on."""
        assert self.after is not None, "a study is told after it has ended"
        measured = zip(self.windows.lengths, self.before, self.after, strict=True)
        return {
            name: value
            for length, before, after in measured
            for name, value in ((f"perplexityAt{length}AtStart", before), (f"perplexityAt{length}", after))
        }

    def piece(self) -> dict[str, Any]:
        """What the report shows."""
        windows = asdict(self.windows) | {"tokens": len(self.windows.tokens)}
        return windows | {"before": self.before, "after": self.after}


def begin_study(job: JobDocument, start: StartingPoint, model: PreTrainedModel, peers: Peers) -> LengthStudy | None:
    """Measures the model as it is loaded, with the positions of its base; None for a job that keeps the context.

    Every process calls it. Where there is no held-out text for it, the data's report is told.
    """
    if job.context is None:
        return None
    assert start.model_folder is not None, "a context is stretched of a model"
    config = load_config(start.model_folder, trust_remote_code=job.model.trust_remote_code)
    original = int(config.max_position_embeddings)
    windows = plan_windows(start.data.validation, original=original, target=job.context.length)
    if windows is None:
        start.data.report["warnings"].append(NOTHING_HELD_OUT.format(min(512, original)))
        return None
    with rotating_as(model, config):
        before = perplexities(model, windows, peers)
    return LengthStudy(windows, before)
