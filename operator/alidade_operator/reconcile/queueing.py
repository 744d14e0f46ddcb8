"""A job that Kueue holds back: what the status says of its wait."""

from alidade_crds.blocks import Compute
from alidade_crds.reasons import ConditionType, Reason
from alidade_operator.reconcile.draft import Draft
from alidade_operator.resources.observation import QueueView

# Admission is an event of the job. Why it waits is read from Kueue's Workload, which is not watched: soon at first,
# then every quarter of the time it has waited.
_FIRST_LOOK_S, _LAST_LOOK_S = 3.0, 60.0


def queued(draft: Draft, compute: Compute, workload: str, queue: QueueView | None) -> str:
    """States that Kueue has not admitted the workload, and why where it says so; answers the sentence."""
    message = f"Queue {compute.queue} has not admitted {workload}{_words(queue)}."
    draft.conditions.set(ConditionType.SUSPENDED, "True", Reason.SUSPENDED_BY_QUEUE, message)
    suspended = draft.conditions.get(ConditionType.SUSPENDED)
    waited_s = (draft.now - suspended.last_transition_time).total_seconds() if suspended is not None else 0.0
    draft.look_again_in(min(_LAST_LOOK_S, max(_FIRST_LOOK_S, waited_s / 4)))
    return message


def _words(queue: QueueView | None) -> str:
    if queue is None or not (queue.reason or queue.message):
        return ""
    said = queue.message.rstrip(". ")
    return f": {said} ({queue.reason})" if said and queue.reason else f": {said or queue.reason}"
