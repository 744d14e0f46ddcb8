"""The harness suite: tasks of lm-evaluation-harness, asked and resumed like everything else, scored by its own code."""

import difflib
import math
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import datasets
import huggingface_hub.constants
import numpy as np
from datasets.exceptions import DatasetsError
from lm_eval.api import metrics as library
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from numpy.typing import NDArray

from alidade_crds.contract import JobSuite
from alidade_crds.reasons import FailureReason
from alidade_engine.failures import JobFailure
from alidade_engine.perplexity import MOST_NATS
from alidade_engine.sources import Locations
from alidade_eval.asked import CHUNK, Collection, Keep, Rows, key_of, local
from alidade_eval.measures import AnyMeasure, Direction, Measure, SetMeasure, Statistics, mean
from alidade_eval.samples import INDEX, Row
from alidade_eval.subjects import Subject
from alidade_eval.suites.base import Findings, Sample, Suite, check_metrics
from alidade_eval.suites.harness_model import EngineLM

_REACH_S = 3.0
_LONGEST_QUESTION = 2000
NO_FILTER = "none"


@dataclass(frozen=True)
class Requests:
    """Every request of all tasks. Rows: index, response (a number, a number and whether it is greedy, or a text)."""

    key: str
    instances: Sequence[Instance] = field(repr=False)
    """Each as often as its task wants it repeated."""
    seed: int = 0

    @property
    def size(self) -> int:
        """Rows of each model."""
        return len(self.instances)

    def collect(self, subject: Subject, indices: Sequence[int], keep: Keep) -> None:
        """As `Collection.collect`."""
        model = EngineLM(local(subject))
        by_type: dict[str, list[int]] = {}
        for index in indices:
            by_type.setdefault(self.instances[index].request_type, []).append(index)
        asked = by_type.pop("generate_until", [])
        for kind, places in by_type.items():
            # Requests of one document are neighbours: a chunk holds all candidates of its questions.
            for start in range(0, len(places), CHUNK * 4):
                chunk = places[start : start + CHUNK * 4]
                found = getattr(model, kind)([self.instances[index] for index in chunk], disable_tqdm=True)
                for index, response in zip(chunk, found, strict=True):
                    keep(row_of_response(index, response))

        def answered(place: int, answer: str) -> None:
            keep(row_of_response(asked[place], answer))

        model.answer([self.instances[index] for index in asked], keys=asked, seed=self.seed, keep=answered)


def row_of_response(index: int, response: Any) -> Row:
    """The row of what a request got."""
    return {INDEX: index, "response": response}


class HarnessSuite(Suite):
    """Metrics of the tasks, and of the groups that are averages over all their questions."""

    def __init__(self, spec: JobSuite, locations: Locations, *, seed: int, field: str) -> None:
        """Raises JobFailure (TaskInvalid) for a task that is unknown, or whose data cannot be had here."""
        super().__init__(spec)
        self._field = field
        folder = None
        if spec.task_folder is not None:
            folder = locations.resolve_data(spec.task_folder, field=f"{field}.taskFolder")
        loaded = load_tasks(spec.tasks, str(folder) if folder is not None else None, field=field)
        self._tasks: dict[str, Any] = dict(loaded["tasks"])
        self._groups: dict[str, Any] = dict(loaded["groups"])
        for name, task in self._tasks.items():
            with _naming(name, field):
                _prepare(task, spec, seed)
        self._places: dict[str, list[tuple[Instance, list[int]]]] = {}
        instances: list[Instance] = []
        for name, task in self._tasks.items():
            self._places[name] = []
            for instance in task.instances:
                first = len(instances)
                instances += [instance] * instance.repeats
                self._places[name].append((instance, list(range(first, len(instances)))))
        versions = {name: task.VERSION for name, task in self._tasks.items()}
        asked = [(instance.request_type, instance.args) for instance in instances]
        self._requests = Requests(key_of("harness", asked, seed), instances, seed)
        self._versions = versions

    def collections(self) -> Sequence[Collection]:
        """The tasks' requests."""
        return [self._requests]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`."""
        scored = {model: self._scored(rows[self._requests.key][model]) for model in models}
        measures: list[AnyMeasure] = []
        means: dict[str, Measure] = {}
        for name, task in self._tasks.items():
            for metric, key in _metrics(scored[models[0]][name]):
                values = {model: scored[model][name][key] for model in models}
                measure = measure_of(f"{name}.{metric}", task, key[0], values)
                if measure is None:
                    continue
                measures.append(measure)
                if isinstance(measure, Measure) and measure.value is mean:
                    means[measure.metric] = measure
        measures += self._group_measures(means)
        check_metrics(self.spec, [measure.metric for measure in measures], self._field)
        wanted = [one for one in measures if not self.spec.metrics or one.metric in self.spec.metrics]
        return Findings(
            measures=wanted,
            samples=self._samples(rows, models, means),
            details={"versions": self._versions, "fewShot": self.spec.few_shot, "tasks": sorted(self._tasks)},
        )

    def _scored(self, rows: Sequence[Row]) -> dict[str, dict[tuple[str, str], list[Any]]]:
        """For each task, by metric and filter, what the library makes of each document's responses."""
        responses = {row[INDEX]: row["response"] for row in rows}
        found: dict[str, dict[tuple[str, str], list[Any]]] = {}
        for name in self._tasks:
            with _naming(name, self._field):
                found[name] = self._scored_task(name, responses)
        return found

    def _scored_task(self, name: str, responses: Mapping[int, Any]) -> dict[tuple[str, str], list[Any]]:
        task = self._tasks[name]
        by_document: dict[int, list[Instance]] = defaultdict(list)
        for instance, places in self._places[name]:
            instance.resps = [_as_library(responses[place]) for place in places]
            instance.filtered_resps = {}
            by_document[instance.doc_id].append(instance)
        task.apply_filters()
        values: dict[tuple[str, str], list[Any]] = defaultdict(list)
        for name_of_filter in task.instances[0].filtered_resps:
            for number, document in task.doc_iterator(rank=0, limit=self.spec.limit, world_size=1):
                requests = sorted(by_document[number], key=lambda one: one.idx)
                answers = [one.filtered_resps[name_of_filter] for one in requests]
                for metric, value in task.process_results(document, answers).items():
                    values[metric, name_of_filter].append(value)
        return dict(values)

    def _group_measures(self, means: Mapping[str, Measure]) -> Iterator[Measure]:
        """Averages over a group's tasks, of the metrics that it wants averaged and that all of them have."""
        for name, group in self._groups.items():
            tasks = [task.task_name for task in group.get_all_tasks()]
            for wanted in group.aggregate_metric_list or []:
                of_first = [one.removeprefix(f"{tasks[0]}.") for one in means if one.startswith(f"{tasks[0]}.")]
                for metric in (one for one in of_first if one.partition(",")[0] == wanted.metric):
                    parts = [means[one] for task in tasks if (one := f"{task}.{metric}") in means]
                    if len(parts) == len(tasks):
                        yield pooled(f"{name}.{metric}", parts, is_by_size=wanted.weight_by_size)

    def _samples(self, rows: Rows, models: Sequence[str], means: Mapping[str, Measure]) -> list[Sample]:
        """Documents with what the models answered, where they answered in words."""
        responses = {
            model: {row[INDEX]: row["response"] for row in rows[self._requests.key][model]} for model in models
        }
        found: list[Sample] = []
        for name, task in self._tasks.items():
            documents = list(task.doc_iterator(rank=0, limit=self.spec.limit, world_size=1))
            own = {
                metric: one.statistics
                for metric, one in means.items()
                # A task may leave documents out of a metric, and does not say which.
                if metric.startswith(f"{name}.") and len(one.statistics[models[0]]) == len(documents)
            }
            first: dict[int, tuple[Instance, int]] = {}
            for instance, places in self._places[name]:
                first.setdefault(instance.doc_id, (instance, places[0]))
            for place, (number, document) in enumerate(documents):
                instance, index = first[number]
                said = {model: responses[model][index] for model in models}
                found.append(
                    Sample(
                        len(found),
                        f"{name}: {str(instance.args[0])[-_LONGEST_QUESTION:]}",
                        [str(task.doc_to_target(document))],
                        {model: text for model, text in said.items() if isinstance(text, str)},
                        {metric: {model: float(by[model][place, 0]) for model in models} for metric, by in own.items()},
                    )
                )
        return found


def _as_library(response: Any) -> Any:
    """A response as the library made it: JSON has no tuples."""
    return tuple(response) if isinstance(response, list) else response


def _metrics(values: Mapping[tuple[str, str], Sequence[Any]]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Names that results have: the metric's, with its filter's where that is not the plain one."""
    for metric, filter_name in values:
        yield (metric if filter_name == NO_FILTER else f"{metric},{filter_name}"), (metric, filter_name)


def measure_of(name: str, task: Any, metric: str, values: Mapping[str, Sequence[Any]]) -> AnyMeasure | None:
    """A task's metric: a mean where the library takes one, else its own function of all documents; None without one."""
    aggregate = task.aggregation().get(metric)
    higher = task.higher_is_better().get(metric, True)
    direction: Direction = "higher" if higher else "lower"
    if aggregate is None:
        return None
    if aggregate is library.mean:
        return _mean_measure(
            name, {model: np.asarray(own, dtype=np.float64) for model, own in values.items()}, direction
        )

    if aggregate in _OF_SUMS:
        sums = {model: np.asarray(own, dtype=np.float64).reshape(len(own), -1) for model, own in values.items()}
        value, least = _OF_SUMS[aggregate]
        return Measure(name, direction, sums, value, least=least)

    def of(own: Sequence[Any]) -> Callable[[NDArray[np.intp]], float]:
        return lambda kept: float(aggregate([own[place] for place in kept]))

    count = len(next(iter(values.values())))
    return SetMeasure(name, direction, count, {model: of(own) for model, own in values.items()})


def pooled(name: str, parts: Sequence[Measure], *, is_by_size: bool) -> Measure:
    """The mean over the samples of all parts, or, not by size, the mean of the parts' means."""
    values = {}
    for model in parts[0].statistics:
        own = [part.statistics[model][:, 0] for part in parts]
        samples = sum(map(len, own))
        shares = [1.0 if is_by_size else samples / len(own) / len(one) for one in own]
        values[model] = np.concatenate([one * share for one, share in zip(own, shares, strict=True)])
    return _mean_measure(name, values, parts[0].direction)


def _perplexity(sums: Statistics, samples: int) -> Statistics:
    """e to the mean surprise, of log-likelihoods."""
    return np.asarray(np.exp(np.minimum(-sums[..., 0] / samples, MOST_NATS)))


def _weighted_perplexity(sums: Statistics, _samples: int) -> Statistics:
    """e to the surprise per unit, of log-likelihoods and units, such as words or bytes."""
    return np.asarray(np.exp(np.minimum(-sums[..., 0] / sums[..., 1], MOST_NATS)))


def _bits(sums: Statistics, _samples: int) -> Statistics:
    """Bits of surprise per byte, of log-likelihoods and bytes."""
    return np.asarray(-sums[..., 0] / (sums[..., 1] * math.log(2)))


# The library's aggregations that are functions of sums over documents, whose intervals a bootstrap gives, and the least
# that each can be.
_OF_SUMS = {
    library.perplexity: (_perplexity, 1.0),
    library.weighted_perplexity: (_weighted_perplexity, 1.0),
    library.bits_per_byte: (_bits, 0.0),
}


def _mean_measure(name: str, values: Mapping[str, NDArray[np.float64]], direction: Direction) -> Measure:
    binary = all(np.isin(own, (0.0, 1.0)).all() for own in values.values())
    return Measure(name, direction, {model: own[:, None] for model, own in values.items()}, binary=binary)


def _prepare(task: Any, spec: JobSuite, seed: int) -> None:
    """Few-shot examples and requests of a task; one that is made for none, such as a chain of thought, gets none."""
    own = task.get_config("num_fewshot")
    if own is None or (spec.few_shot is not None and own != 0):
        task.set_config(key="num_fewshot", value=spec.few_shot or 0)
    task.set_fewshot_seed(seed=seed)
    task.build_all_requests(limit=spec.limit, rank=0, world_size=1)


def load_tasks(names: Sequence[str], folder: str | None, *, field: str) -> dict[str, Any]:
    """The tasks and groups of these names, the user's own folder first.

    Raises JobFailure (TaskInvalid) for a name that there is not, and for data that cannot be had here.
    """
    manager = _manager(folder, with_own=False) if folder is not None else None
    if manager is None or any(name not in manager.all_tasks for name in names):
        manager = _manager(folder, with_own=True)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        near = difflib.get_close_matches(unknown[0], manager.all_tasks, n=3)
        hint = f" Did you mean {' or '.join(near)}?" if near else " Give own tasks as a folder of YAML in taskFolder."
        raise JobFailure(
            FailureReason.TASK_INVALID,
            f"{field}.tasks names {unknown[0]}, which lm-evaluation-harness does not have.{hint}",
        )
    found: dict[str, dict[str, Any]] = {"tasks": {}, "groups": {}}
    with _offline_where_unreachable():
        for name in names:
            with _naming(name, field):
                loaded = manager.load([name])
            for kind, own in found.items():
                own.update(loaded[kind])
    return found


@cache
def _manager(folder: str | None, *, with_own: bool) -> TaskManager:
    """The tasks of a folder; with_own: and the library's, which takes seconds: it reads 14,000 files."""
    return TaskManager(include_path=folder, include_defaults=with_own)


@contextmanager
def _naming(task: str, field: str) -> Iterator[None]:
    """Says which task it was when its files, its data or its code raise whatever they raise. field: of the suite."""
    try:
        yield
    except JobFailure:
        raise
    except (OSError, DatasetsError) as error:
        raise JobFailure(
            FailureReason.TASK_INVALID,
            f"{field}.tasks: the data of {task} cannot be had here ({_first_line(error)}). Let pods reach the Hugging "
            "Face hub, set HF_HOME in the node pool's env to a cache on a volume, or name tasks in taskFolder whose "
            "dataset_path reads files of a volume.",
        ) from error
    except Exception as error:
        raise JobFailure(
            FailureReason.TASK_INVALID,
            f"{field}.tasks: {task} does not work ({type(error).__name__}: {_first_line(error)}). Correct its YAML, "
            "its functions, or the data that they read.",
        ) from error


@contextmanager
def _offline_where_unreachable() -> Iterator[None]:
    """Lets the libraries look into their caches alone where there is no hub: they would try again for minutes."""
    if _hub_answers():
        yield
        return
    was = huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        huggingface_hub.constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = was


def _hub_answers() -> bool:
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    hub = urlsplit(huggingface_hub.constants.ENDPOINT)
    if (proxy := getproxies().get(hub.scheme)) and not proxy_bypass(hub.hostname or ""):
        hub = urlsplit(proxy)
    try:
        port = hub.port or (80 if hub.scheme == "http" else 443)
        with socket.create_connection((hub.hostname or "", port), timeout=_REACH_S):
            return True
    except OSError:
        return False


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
