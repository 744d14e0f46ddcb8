"""How far a job is, kept by rank 0 and read by its HTTP endpoint while training goes on."""

import resource
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Literal

from alidade_crds.contract import ProgressDocument

State = Literal["starting", "loading", "tokenizing", "training", "evaluating", "saving", "finished"]


@dataclass(frozen=True)
class StepMetrics:
    """One optimizer step, summed over all processes; also one line of metrics.jsonl."""

    step: int
    """Optimizer steps done, this one included."""
    epoch: float
    """Passes over the dataset done."""
    loss: float
    """Mean over the step's learned tokens, in nats per token."""
    learning_rate: float
    grad_norm: float
    """Norm of the gradient before clipping."""
    tokens: int
    """Tokens read in this step, prompts included and padding left out."""
    seconds: float
    gradient_variance: float | None = None
    """Estimate of tr(Σ), the variance of one sequence's gradient; None where a step is one pass."""
    gradient_signal: float | None = None
    """Estimate of |G|², the squared norm of the true gradient."""
    losses: dict[str, float] = field(default_factory=dict)
    """The loss of each dataset, by its name, where several are mixed; without those that the step has no tokens of."""

    @property
    def tokens_per_second(self) -> float:
        """Speed of this step."""
        return self.tokens / self.seconds if self.seconds > 0 else 0.0


def flops_per_token(*, weights: int, layers: int, width: int, length: float, with_adapter: bool) -> float:
    """Floating point operations of forward and backward pass for one token: 6N + 12·L·H·Q·T (PaLM, appendix B).

    width: of the attention heads together, H·Q. length: tokens that attend to one another. with_adapter: whether the
    weights are frozen and need no gradient of their own, which leaves 4N; attention has no weights and costs the same.
    """
    return (4 if with_adapter else 6) * weights + 12 * layers * width * length


@dataclass(frozen=True)
class GpuMeter:
    """What the share of a GPU's peak is computed from."""

    flops_per_token: float
    """Floating point operations of forward and backward pass, for one token."""
    peak_tflops: float
    """Peak of one GPU."""
    gpus: int

    def share_of_peak(self, tokens_per_second: float) -> float:
        """Model FLOPs utilisation (PaLM, appendix B): achieved over possible, from 0 to 1."""
        return tokens_per_second * self.flops_per_token / (self.peak_tflops * 1e12 * self.gpus)


@dataclass
class Progress:
    """The state of a job. One thread writes it, others read it; each method takes the lock."""

    state: State = "starting"
    total_steps: int = 0
    resumed_from_step: int | None = None
    eval_loss: float | None = None
    eval_losses: dict[str, float] = field(default_factory=dict)
    """The same of each dataset, where several are told apart."""
    last: StepMetrics | None = None
    checkpoint_step: int | None = None
    """Steps done in the newest complete checkpoint."""
    checkpoint_at: float | None = None
    """Unix time at which it became complete."""
    gpu_meter: GpuMeter | None = None
    tokens_total: int = 0
    """Tokens read by this attempt."""
    activity: str | None = None
    align_step: str | None = None
    iteration: int | None = None
    """Iterations of the present alignment step done."""
    total_iterations: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    """Newest of an alignment step."""
    rewinds: int = 0
    last_rewind: str | None = None
    tracking_warning: str | None = None
    noise_scale: float | None = None
    """The gradient's, in sequences."""
    _recent: list[StepMetrics] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    RECENT_STEPS = 10
    """Steps over which speed and loss are averaged: enough to smooth, few enough to notice a slow-down."""

    def enter(self, state: State) -> None:
        """Says what the job is busy with from now on."""
        with self._lock:
            self.state = state

    def plan(self, *, total_steps: int, resumed_from_step: int | None, gpu_meter: GpuMeter | None = None) -> None:
        """Says how much there is to do."""
        with self._lock:
            self.total_steps = total_steps
            self.resumed_from_step = resumed_from_step
            self.gpu_meter = gpu_meter

    def record_step(self, metrics: StepMetrics, noise_scale: float | None = None) -> None:
        """Takes up one more step, and the gradient noise scale by then."""
        with self._lock:
            self.last = metrics
            self.noise_scale = noise_scale
            self.tokens_total += metrics.tokens
            self._recent = [*self._recent, metrics][-self.RECENT_STEPS :]

    def record_rewind(self, number: int, sentence: str) -> None:
        """Says that training has gone back, the number of times it has by now, and why."""
        with self._lock:
            self.rewinds, self.last_rewind = number, sentence
            self._recent = []

    def record_tracking(self, warning: str | None) -> None:
        """Says why the tracker takes no metrics; None: it takes them again."""
        with self._lock:
            self.tracking_warning = warning

    def record_evaluation(self, loss: float, losses: Mapping[str, float]) -> None:
        """Takes up a loss on held-out data, and that of each dataset where several are told apart."""
        with self._lock:
            self.eval_loss, self.eval_losses = loss, dict(losses)

    def record_activity(self, align_step: str, iteration: int, total_iterations: int, activity: str) -> None:
        """Says what an alignment step does from now on, and how many iterations are done."""
        with self._lock:
            if align_step != self.align_step:
                self.metrics = {}
            self.align_step, self.iteration, self.total_iterations = align_step, iteration, total_iterations
            self.activity = activity

    def record_iteration(
        self, align_step: str, iteration: int, total_iterations: int, metrics: dict[str, float]
    ) -> None:
        """Takes up one more iteration of an alignment step; a step's earlier metrics stay until there are newer."""
        with self._lock:
            self.align_step, self.iteration, self.total_iterations = align_step, iteration, total_iterations
            self.metrics = {**self.metrics, **metrics}

    def record_checkpoint(self, step: int) -> None:
        """Says that a checkpoint has just become complete."""
        with self._lock:
            self.checkpoint_step = step
            self.checkpoint_at = time.time()

    def alignment(self) -> tuple[str | None, int | None, dict[str, float]]:
        """The present alignment step, its iterations done, and its newest metrics."""
        with self._lock:
            return self.align_step, self.iteration, dict(self.metrics)

    @property
    def tokens_per_second(self) -> float | None:
        """Speed over the last steps; None before the first."""
        seconds = sum(metrics.seconds for metrics in self._recent)
        return sum(metrics.tokens for metrics in self._recent) / seconds if seconds else None

    @property
    def recent_loss(self) -> float | None:
        """Mean loss over the last steps; None before the first."""
        return sum(metrics.loss for metrics in self._recent) / len(self._recent) if self._recent else None

    def dataset_losses(self) -> dict[str, float]:
        """Mean loss of each dataset over the last steps."""
        with self._lock:
            return mean_losses([metrics.losses for metrics in self._recent])

    @property
    def share_of_peak(self) -> float | None:
        """Model FLOPs utilisation, when a GPU's peak is known."""
        speed = self.tokens_per_second
        return self.gpu_meter.share_of_peak(speed) if self.gpu_meter and speed else None

    def to_document(self) -> ProgressDocument:
        """The answer of GET /progress."""
        with self._lock:
            last = self.last
            speed = self.tokens_per_second
            return ProgressDocument(
                state=self.state,
                step=last.step if last else self.resumed_from_step or 0,
                total_steps=self.total_steps,
                epoch=last.epoch if last else 0.0,
                loss=self.recent_loss,
                eval_loss=self.eval_loss,
                learning_rate=last.learning_rate if last else None,
                tokens_per_second=speed,
                eta_s=self._seconds_left(),
                activity=self.activity,
                align_step=self.align_step,
                iteration=self.iteration,
                total_iterations=self.total_iterations,
                metrics=dict(self.metrics),
                resumed_from_step=self.resumed_from_step,
                rewinds=self.rewinds,
                last_rewind=self.last_rewind,
                tracking_warning=self.tracking_warning,
                updated_at=datetime.now(UTC),
            )

    def _seconds_left(self) -> float | None:
        if not self._recent:
            return None
        seconds_per_step = sum(metrics.seconds for metrics in self._recent) / len(self._recent)
        return max(0, self.total_steps - self._recent[-1].step) * seconds_per_step


def mean_losses(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each dataset's losses over the steps that have tokens of it."""
    names = sorted({name for losses in steps for name in losses})
    return {name: fmean(losses[name] for losses in steps if name in losses) for name in names}


def resident_bytes(statm: Path = Path("/proc/self/statm")) -> int:
    """Memory that this process holds in RAM."""
    return int(statm.read_text().split()[1]) * resource.getpagesize()


def peak_memory_bytes() -> int:
    """Most memory that this process has held in RAM so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
