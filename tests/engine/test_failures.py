"""The exception that users see."""

import pickle

from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure


def test_a_failure_crosses_processes_whole() -> None:
    failure = JobFailure(FailureReason.DATA_EMPTY, "train.json holds no records.", retryable=True)
    copy = pickle.loads(pickle.dumps(failure))
    assert (copy.reason, copy.message, copy.retryable) == (failure.reason, failure.message, True)
    assert str(copy) == "train.json holds no records."
