"""Progress as the status shows it, from what the trainer answers."""

import math
from collections.abc import Mapping
from datetime import datetime

from alidade_crds.base import MOST_COUNTED
from alidade_crds.contract import ProgressDocument, ResultDocument
from alidade_crds.status import Progress


def of_document(document: ProgressDocument, known: Progress | None, now: datetime) -> Progress:
    """The document for the status; the one known when nothing has moved since."""
    progress = Progress(
        step=document.step,
        total_steps=document.total_steps,
        epoch=round(document.epoch, 4) if math.isfinite(document.epoch) else 0.0,
        loss=number(document.loss),
        eval_loss=number(document.eval_loss),
        learning_rate=number(document.learning_rate),
        tokens_per_second=number(document.tokens_per_second),
        eta=duration(document.eta_s),
        activity=document.activity,
        align_step=document.align_step,
        iteration=document.iteration,
        total_iterations=document.total_iterations,
        rewinds=document.rewinds or None,
        tracking_warning=document.tracking_warning,
        updated_at=now,
    )
    if known is not None and progress.model_copy(update={"updated_at": known.updated_at}) == known:
        return known
    return progress


def at_the_end(
    known: Progress | None, document: ProgressDocument | None, result: ResultDocument, now: datetime
) -> Progress | None:
    """Progress of a job that has succeeded: its last step, and no time left."""
    last = of_document(document, known, now) if document is not None else known
    if last is None:
        # The job was over before its progress could be asked for.
        if result.step is None:
            return None
        last = Progress(
            step=result.step,
            total_steps=result.step,
            epoch=0.0,
            loss=number(result.metrics.get("train_loss")),
            eval_loss=number(result.metrics.get("eval_loss")),
            updated_at=now,
        )
    step = last.step if result.step is None else result.step
    epoch = result.metrics.get("epochs", last.epoch)
    return last.model_copy(
        update={
            "step": step,
            "total_steps": max(step, last.total_steps),
            "epoch": round(epoch, 4) if 0 <= epoch < math.inf else last.epoch,
            "eta": None,
            "activity": None,
            **_iterations_at_the_end(last, result),
            "updated_at": now,
        }
    )


def _iterations_at_the_end(last: Progress, result: ResultDocument) -> dict[str, object]:
    """Where an alignment ended: in its last step, or where a guard rail stopped it."""
    if result.align_step is None:
        return {}
    told = result.metrics.get("iterations", 0)
    done = int(told) if 0 <= told <= MOST_COUNTED else 0
    is_same = last.align_step == result.align_step and last.total_iterations is not None
    total = last.total_iterations if is_same and result.stopped is not None else done
    return {"align_step": result.align_step, "iteration": done, "total_iterations": total}


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics without what is no number: JSON has no word for those, and the API server refuses them."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def readable(metrics: Mapping[str, float]) -> dict[str, float]:
    """Final metrics as tables show them: to four significant digits, and counts whole; result.json has all."""
    whole = {name: round(value, 1) for name, value in finite(metrics).items() if abs(value) >= 1000}
    return rounded(metrics) | whole


def rounded(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics to four significant digits, without what is no number."""
    shown = {name: number(value) for name, value in metrics.items()}
    return {name: value for name, value in shown.items() if value is not None}


def number(value: float | None) -> float | None:
    """A number to four significant digits, as many as a table shows; None for what is no number."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.4g}")


def duration(seconds: float | None) -> str | None:
    """A time such as `45s`, `12m` or `1h3m`; None when it is not known."""
    if seconds is None or not math.isfinite(seconds):
        return None
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m" if hours < 48 else f"{hours // 24}d{hours % 24}h"
