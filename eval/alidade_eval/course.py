"""The course of an evaluation: each model in turn is asked everything, then rewards and judges, then the numbers."""

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch

from alidade_crds.contract import EvaluationDocument
from alidade_crds.evaluation import EVERY_MODEL, FAILED, LEAKED, EvaluationResult
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.sources import Locations
from alidade_eval.asked import Collection, Rows, distinct
from alidade_eval.endpoint import HttpEndpoint
from alidade_eval.inference.comparisons import results_of
from alidade_eval.inference.intervals import proportion_interval
from alidade_eval.items import Item
from alidade_eval.leaks import Leak, find_leaks
from alidade_eval.making import make_suites
from alidade_eval.places import SAMPLES_FOLDER
from alidade_eval.progress import Progress
from alidade_eval.results import Outcome, write_samples
from alidade_eval.samples import FAILURE, INDEX, Row, SampleStore, ordered
from alidade_eval.sharing import Share, wait_for
from alidade_eval.subjects import LocalModel, Subject
from alidade_eval.suites.base import Findings, SecondCollection, Suite
from alidade_eval.training_data import training_texts


class StopRequested(Exception):  # noqa: N818  # it is no error
    """The evaluation was asked to stop; what is measured stays."""


@dataclass(frozen=True)
class Surroundings:
    """What an evaluation works with beside its document."""

    locations: Locations
    output: Path
    share: Share
    progress: Progress
    say: Callable[[str], None]
    stop: Callable[[], bool]

    def check(self) -> None:
        """Raises StopRequested when someone asked for it."""
        if self.stop():
            raise StopRequested


class _Asked(Protocol):
    @property
    def key(self) -> str: ...

    @property
    def size(self) -> int: ...


@dataclass
class Course:
    """One process's way through an evaluation."""

    document: EvaluationDocument
    around: Surroundings
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.suites: list[Suite] = make_suites(self.document, self.around.locations)
        self.names = self.document.model_names()
        self.collections = distinct([one for suite in self.suites for one in suite.collections()])
        self.second = distinct([one for suite in self.suites for one in suite.second()])
        self.store = SampleStore(self.around.output / SAMPLES_FOLDER, self.around.share.number)
        self._work: list[tuple[_Asked, str]] = [(one, name) for name in self.names for one in self.collections]
        self._work += [(one, subject) for one in self.second for subject in one.subjects(self.names)]

    def run(self) -> Outcome | None:
        """Measures everything that is not yet measured; the first process answers what came out, others None.

        Raises JobFailure for what cannot be measured, StopRequested when asked to stop.
        """
        total = sum(one.size for one, _ in self._work)
        done = sum(len(self._done(one, subject)) for one, subject in self._work)
        self.around.progress.begin(total, done)
        self.around.say(f"{total} samples of {len(self.names)} models, {done} of them measured before.")
        for place, name in enumerate(self.names):
            self._ask(name, place)
        for one in self.second:
            self._make_second(one)
        if not self.around.share.is_first:
            return None
        self._await(self._work, is_last=True)
        self.around.progress.enter("saving", "comparing")
        return self._conclude()

    # Asking

    def _done(self, one: _Asked, subject: str) -> set[int]:
        """Places that need no more work.

        What failed is asked again by another attempt, unless processes share the work: another one may have taken the
        failure as the answer by then.
        """
        is_shared = self.around.share.count > 1
        rows = self.store.rows(one.key, subject)
        return {index for index, row in rows.items() if is_shared or FAILURE not in row}

    def _missing(self, one: _Asked, subject: str) -> list[int]:
        done = self._done(one, subject)
        return [index for index in self.around.share.part(range(one.size)) if index not in done]

    def _ask(self, name: str, place: int) -> None:
        """Everything that any suite asks of one model, which is in memory only for that."""
        work = [(one, missing) for one in self.collections if (missing := self._missing(one, name))]
        if not work:
            return
        self.around.check()
        begun = time.monotonic()
        self.around.progress.enter("loading", f"loading {name}")
        subject = self._load(place)
        self.around.say(f"Model {name} is loaded after {time.monotonic() - begun:.1f} s.")
        for one, missing in work:
            self._collect(one, subject, missing)
        del subject
        _free()
        self.seconds[name] = time.monotonic() - begun
        self.around.say(f"Model {name} is done after {self.seconds[name]:.1f} s.")

    def _load(self, place: int) -> Subject:
        if self.document.endpoint is not None:
            return HttpEndpoint.connect(self.document.endpoint, say=self.around.say)
        one = self.document.models[place]
        at = f"spec.models[{place}].model"
        assert one.model.uri is not None, "a model that is measured has an address"
        folder = self.around.locations.resolve_model(one.model.uri, field=at)
        return LocalModel.load(one.name, folder, one.model, precision=self.document.precision, field=at)

    def _collect(self, one: Collection, subject: Subject, missing: Sequence[int]) -> None:
        readers = ", ".join(suite.title for suite in self.suites if one.key in {c.key for c in suite.collections()})
        self.around.progress.enter("evaluating", f"{readers} of {subject.name}")
        begun = time.monotonic()
        with self.store.appender(one.key, subject.name) as appender:
            one.collect(subject, missing, self._keeper(appender.add, subject.name))
        self.around.say(f"{readers} of {subject.name}: {len(missing)} samples in {time.monotonic() - begun:.1f} s.")
        self._note_others()

    def _note_others(self) -> None:
        """Lets progress count what the other processes have done, too."""
        if self.around.share.count > 1:
            self.around.progress.note(sum(len(self.store.rows(one.key, subject)) for one, subject in self._work))

    def _keeper(self, add: Callable[[Row], None], model: str) -> Callable[[Row], None]:
        def keep(row: Row) -> None:
            add(row)
            self.around.progress.count(failure_of=model if FAILURE in row else None)
            self.around.check()

        return keep

    # What is made of answers

    def _make_second(self, one: SecondCollection) -> None:
        work = [(subject, missing) for subject in one.subjects(self.names) if (missing := self._missing(one, subject))]
        if not work:
            return
        needed = next(asked for asked in self.collections if asked.key == one.needs)
        self._await([(needed, name) for name in self.names])
        rows = self._rows([needed])
        self.around.progress.enter("evaluating", "judging")
        one.prepare()
        try:
            for subject, missing in work:
                with self.store.appender(one.key, subject) as appender:
                    one.collect(subject, missing, rows, self._keeper(appender.add, subject))
        finally:
            one.release()
            _free()

    def _await(self, work: Sequence[tuple[_Asked, str]], *, is_last: bool = False) -> None:
        """Waits until every process has written its part. is_last: whether nothing comes after it."""
        pending = list(work)

        def missing() -> int:
            counts = [(one, subject, one.size - len(self.store.rows(one.key, subject))) for one, subject in pending]
            pending[:] = [(one, subject) for one, subject, count in counts if count > 0]
            self._note_others()
            left = sum(count for *_, count in counts)
            if is_last:
                self.around.progress.note(self.around.progress.total - left)
            return left

        wait_for(missing, check=self.around.check, say=self.around.say)

    def _rows(self, asked: Sequence[_Asked]) -> Rows:
        keys = {one.key for one in asked}
        found: dict[str, dict[str, list[Row]]] = {}
        for one, subject in self._work:
            if one.key in keys:
                found.setdefault(one.key, {})[subject] = ordered(self.store.rows(one.key, subject))
        return found

    # Numbers

    def _conclude(self) -> Outcome:
        results: list[EvaluationResult] = []
        warnings: list[str] = []
        details, directions = {}, {}
        for suite in self.suites:
            found = suite.findings(self._rows([*suite.collections(), *suite.second()]), self.names)
            results += self._numbers(suite, found)
            warnings += [*found.warnings, *self._remarks(suite)]
            details[suite.title] = dict(found.details)
            directions[suite.title] = {measure.metric: measure.direction for measure in found.measures}
            write_samples(self.around.output, suite.title, found.samples)
        if all(one.metric == FAILED for one in results):
            raise JobFailure(FailureReason.DATA_TOO_LONG, " ".join(["No record could be measured.", *warnings]))
        leaks = self._leaks(results)
        return Outcome(results, details, directions, leaks, warnings, self.seconds)

    def _numbers(self, suite: Suite, found: Findings) -> list[EvaluationResult]:
        numbers = [
            result
            for measure in found.measures
            for result in results_of(
                measure, suite=suite.title, baseline=self.document.baseline, seed=self.document.seed
            )
        ]
        return [*numbers, *found.results]

    def _remarks(self, suite: Suite) -> list[str]:
        """What a person should know of the answers: those that failed, and those that say nothing."""
        said = []
        for one in suite.collections():
            for name in self.names:
                rows = self.store.rows(one.key, name).values()
                failed = [row for row in rows if FAILURE in row]
                if failed:
                    said.append(
                        f"{suite.title}: {name} has no answer to {len(failed)} of {one.size} records, which were left "
                        f"out for all models; the first because {failed[0][FAILURE]}."
                    )
                empty = sum(not row["text"].strip() for row in rows if "text" in row)
                if empty:
                    said.append(f"{suite.title}: {empty} of {one.size} answers of {name} are empty.")
        return said

    def _leaks(self, results: list[EvaluationResult]) -> dict[str, list[dict[str, object]]]:
        """Prompts of each suite that the training data has; a result of each suite is added."""
        check = self.document.leak_check
        asked = [(suite, item) for suite in self.suites for item in suite.items]
        if check is None or not check.training_data or not asked:
            return {}
        self.around.progress.enter("evaluating", "leak check")
        texts = training_texts(check.training_data, self.around.locations)
        questions = [item.question for _, item in asked]
        leaks = find_leaks(questions, texts, ngram=check.ngram, similarity=check.similarity)
        found: dict[str, list[dict[str, object]]] = {suite.title: [] for suite, _ in asked}
        for leak in leaks:
            suite, item = asked[leak.index]
            found[suite.title].append(_shown(leak, item))
        for title, shown in found.items():
            count = sum(suite.title == title for suite, _ in asked)
            results.append(_leaked(title, len(shown), count))
        return found


def _leaked(suite: str, leaks: int, count: int) -> EvaluationResult:
    low, high = proportion_interval(leaks, count)
    return EvaluationResult(
        suite=suite, metric=LEAKED, model=EVERY_MODEL, value=leaks / count, low=low, high=high, n=count
    )


def _shown(leak: Leak, item: Item) -> dict[str, object]:
    return {
        INDEX: item.index,
        "question": item.question,
        "kind": leak.kind,
        "similarity": round(leak.similarity, 4),
        "place": leak.place,
    }


def _free() -> None:
    """Gives the memory of what was in use back before the next model is loaded."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
