"""What an attempt has used: time, GPUs, money."""

from collections.abc import Sequence
from datetime import datetime

from alidade_operator.config import NodePool
from alidade_operator.resources.observation import PodView, TrainingJobView

# While pods run their time is counted in whole minutes, so that the status is not written for every second of it.
_RUNNING_STEP_S = 60.0


def gpu_hours(job: TrainingJobView, pods: Sequence[PodView], *, gpus_per_worker: int, now: datetime) -> float:
    """GPUs times hours that the pods of this and the earlier attempts have held."""
    seconds = sum(_held_seconds(pod, job.ended_at, now) for pod in pods)
    return round(job.gpu_hours_before + gpus_per_worker * seconds / 3600, 4)


def _held_seconds(pod: PodView, job_ended_at: datetime | None, now: datetime) -> float:
    if pod.started_at is None:
        return 0.0
    # A pod that was lost says nothing of its end; the job's is the nearest that is known.
    ended = (pod.termination.finished_at if pod.termination is not None else None) or job_ended_at
    if ended is not None:
        return max(0.0, (ended - pod.started_at).total_seconds())
    held = max(0.0, (now - pod.started_at).total_seconds())
    return held // _RUNNING_STEP_S * _RUNNING_STEP_S


def active_seconds(job: TrainingJobView, *, now: datetime) -> float:
    """Seconds that this and the earlier attempts were launched; time that a queue held them back is not counted."""
    if job.active_since is None:
        return job.active_seconds_before
    return job.active_seconds_before + max(0.0, ((job.ended_at or now) - job.active_since).total_seconds())


def total_cost(costs: Sequence[str]) -> str | None:
    """Costs such as `12.50 USD` together, by currency; None for none."""
    sums: dict[str, float] = {}
    for text in costs:
        amount, _, currency = text.partition(" ")
        sums[currency] = sums.get(currency, 0.0) + float(amount)
    return " + ".join(f"{amount:.2f} {currency}" for currency, amount in sums.items()) or None


def cost(hours: float | None, pool: NodePool | None) -> str | None:
    """What GPU hours cost in the pool, such as `12.50 USD`; None when that is not known."""
    if hours is None or pool is None or pool.price_per_gpu_hour is None:
        return None
    return f"{hours * pool.price_per_gpu_hour:.2f} {pool.currency}"
