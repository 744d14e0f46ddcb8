"""Tells a tracker what is added to metrics.jsonl, in a thread of its own: a tracker that is away, refuses or is slow
costs its picture, never the training."""

import functools
import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue

from alidade_crds.contract import JobDocument, ResultDocument
from alidade_trainer.history import METRICS_FILE, Track, read_lines, values_of
from alidade_trainer.progress import Progress
from alidade_trainer.stopping import StopRequested
from alidade_trainer.trackers import Outcome, Tracker, read_run, tracker_of

PAUSE_S = 60.0
"""Between two attempts to tell what was not taken: a server that restarts is back soon."""
SILENCE_S = 60.0
"""After which a tracker that has been told something and does not come back is called away."""
MOST_WAITING = 100_000
"""Lines that are kept for a tracker that is away, some 50 MB."""
MARK_EVERY_S = 10.0
"""How often it is noted how far the tracker is: what was told later is told twice when the process is killed."""
PATIENCE_S: Mapping[Outcome, float] = {"succeeded": 30.0, "failed": 5.0, "terminated": 5.0}
"""For what is still to be told at the end. Short where a pod is to be gone: its time is for the checkpoint."""
LONGEST_REASON = 300
"""Characters of an error that are told."""
_SECRETS = ("WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")

_Telling = Callable[[], None]


def tracked(
    job: JobDocument,
    output: Path,
    *,
    progress: Progress,
    say: Callable[[str], None],
    work: Callable[[Track], ResultDocument],
) -> ResultDocument:
    """The result of work, which is given what tells the tracker that the job asks for; only in the first process.

    output: local folder of the job's output. A tracker that does not have everything in the end is one more warning.
    Raises what work does, and JobFailure (ConfigInvalid) when the image lacks the tracker's client.
    """
    run = read_run(job, output)
    tracker = tracker_of(job, output, run)

    def warn(sentence: str | None) -> None:
        progress.record_tracking(sentence)
        say(f"Warning: {sentence}" if sentence else f"{tracker.title} takes the metrics again.")

    follower = Follower(tracker, warn, mark=functools.partial(run.write, output))
    follower.start()
    for line in read_lines(output / METRICS_FILE):  # of earlier attempts
        if line["step"] >= run.told:
            follower.track(line["step"], values_of(line))
    try:
        result = work(follower.track)
    except BaseException as error:
        follower.close("terminated" if isinstance(error, StopRequested) else "failed")
        raise
    if result.outcome == "succeeded" and result.step is not None:
        follower.track(result.step, {f"final/{name}": value for name, value in result.metrics.items()})
    untold = follower.close(result.outcome)
    if untold is None:
        return result
    say(f"Warning: {untold}")
    return result.model_copy(update={"warnings": [*result.warnings, untold]})


class Follower:
    """Tells a tracker, in order, whatever `track` is given. What is not taken waits and is told again."""

    def __init__(self, tracker: Tracker, warn: Callable[[str | None], None], mark: Callable[[int], None]) -> None:
        """warn: is told in a sentence when the tracker stops taking metrics, and None when it takes them again.

        mark: is told now and then the newest step that the tracker has.
        """
        self._tracker = tracker
        self._warn = warn
        self._mark = mark
        self._marked_at = time.monotonic()
        self._newest = 0
        self._waiting: SimpleQueue[_Telling | None] = SimpleQueue()
        self._given, self._taken = 0, 0
        self._reason: str | None = None
        """Why the tracker takes nothing; None while it does."""
        self._asked_at: float | None = None
        self._outcome: Outcome = "failed"
        self._ending = threading.Event()
        self._ended = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._follow, name="tracker", daemon=True)

    def start(self) -> None:
        """Opens the tracker's run."""
        self._waiting.put(self._tracker.begin)
        self._thread.start()

    def track(self, step: int, metrics: Mapping[str, float]) -> None:
        """A `Track`; values that are no numbers are left out."""
        self._given += 1
        if self._waiting.qsize() < MOST_WAITING:
            self._waiting.put(functools.partial(self._log, step, metrics))
        asked_at = self._asked_at
        if asked_at is not None and time.monotonic() - asked_at > SILENCE_S:
            self._complain(f"no answer for {SILENCE_S:.0f} s")

    def close(self, outcome: Outcome) -> str | None:
        """Waits a while for what is left. A sentence about what the tracker does not have; None when it has all."""
        self._outcome = outcome
        self._ending.set()
        self._waiting.put(None)
        self._thread.join(PATIENCE_S[outcome])
        untold = self._given - self._taken
        if self._ended and not untold:
            return None
        what = f"{untold} of {self._given} lines of metrics" if untold else "the end of the run"
        why = self._reason or f"not done within {PATIENCE_S[outcome]:.0f} s"
        return f"{self._tracker.title} was not told {what} ({why}). The output's metrics.jsonl has all."

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._tracker.log(step, {name: value for name, value in metrics.items() if math.isfinite(value)})
        self._taken += 1
        self._newest = step
        if time.monotonic() - self._marked_at > MARK_EVERY_S:
            self._mark(step)
            self._marked_at = time.monotonic()

    def _end(self) -> None:
        self._tracker.end(self._outcome)
        self._mark(self._newest)

    def _follow(self) -> None:
        while (telling := self._waiting.get()) is not None:
            while not self._is_taken(telling):
                if self._ending.is_set():
                    return
                self._ending.wait(PAUSE_S)
        self._ended = self._is_taken(self._end)

    def _is_taken(self, telling: _Telling) -> bool:
        self._asked_at = time.monotonic()
        try:
            telling()
        except Exception as error:  # of whatever client, network or server
            self._complain(_in_words(error))
            return False
        finally:
            self._asked_at = None
        with self._lock:
            is_back, self._reason = self._reason is not None, None
        if is_back:
            self._warn(None)
        return True

    def _complain(self, reason: str) -> None:
        with self._lock:
            is_news, self._reason = self._reason is None, reason
        if is_news:
            self._warn(
                f"{self._tracker.title} does not take the metrics ({reason}). Training goes on; what was not taken is "
                f"told again every {PAUSE_S:.0f} s."
            )


def _in_words(error: Exception) -> str:
    """The first line of an error, without what the environment has of secrets."""
    text = (str(error).strip().splitlines() or [""])[0]
    for secret in filter(None, map(os.environ.get, _SECRETS)):
        text = text.replace(secret, "***")
    text = text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 1] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
