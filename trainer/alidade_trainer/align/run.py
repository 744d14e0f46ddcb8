"""Stage `align`: steps in order, each from the model of the one before, resumed wherever they were cut off."""

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from alidade_crds.alignmentrun import AlignStep
from alidade_crds.contract import Failure, JobDocument, ResultDocument
from alidade_engine.disk import write_file
from alidade_engine.models import check_sizes, ensure_pad_token, load_config, load_tokenizer
from alidade_engine.sources import Locations
from alidade_trainer.align.course import course_of, measures_of
from alidade_trainer.align.evaluation import SHOWN, Evaluation
from alidade_trainer.align.guardrails import Trip
from alidade_trainer.align.iterations import Iteration, IterationResult
from alidade_trainer.align.judging import Judge, check_rewards
from alidade_trainer.align.prompts import PromptData, prepare_prompts
from alidade_trainer.align.sampling import Interrupted
from alidade_trainer.align.state import StepState
from alidade_trainer.align.steps import StepParts, build_step, step_name
from alidade_trainer.checkpoints import Checkpoint, CheckpointStore, TrainingState
from alidade_trainer.export import Export, Parent, export_model, parents_of
from alidade_trainer.failures import JobFailure
from alidade_trainer.history import METRICS_FILE, History
from alidade_trainer.jobs import fingerprint
from alidade_trainer.peers import Peers
from alidade_trainer.plan import TrainingPlan, learning_rate_at
from alidade_trainer.progress import StepMetrics, peak_memory_bytes
from alidade_trainer.report import ReportPieces, save_pieces, write_report
from alidade_trainer.results import write_result
from alidade_trainer.resuming import ENGINE_TAG, checkpoint_to_resume, load_engine
from alidade_trainer.samples import SampleAnswer
from alidade_trainer.starting import StartingPoint, check_digest
from alidade_trainer.surroundings import Surroundings
from alidade_trainer.training import LAST_STEPS, digest_of_data
from alidade_trainer.zero import gathered_state

STATE_FILE = "alignment.json"
DONE_FILE = "done.json"
SOUND_FILE = "sound.safetensors"
EVALUATIONS = 20
"""At most about so many evaluations of a step: a PPO of 200 iterations is looked at every tenth."""


def align(job: JobDocument, around: Surroundings, peers: Peers) -> ResultDocument:
    """Runs all steps and exports the last one's model. Every process calls it; the first one's answer has the model.

    Raises JobFailure for what a user can mend.
    """
    store = CheckpointStore(around.output / "checkpoints", peers, keep=job.checkpoint.keep, log=around.say)
    around.progress.enter("tokenizing")
    around.stop.check()
    start = peers.agree(lambda: prepare_alignment(job, around.locations))
    for warning in start.data.warnings:
        around.say(f"Warning: {warning}")
    data_digest = digest_of_data(start)
    checkpoint = checkpoint_to_resume(store, job, data_digest)
    around.progress.enter("loading")
    around.stop.check()
    judge = peers.agree(lambda: Judge.load(job, around.locations, peers.device))
    # Now, and not when the model is written: what is named is what was read.
    parents = parents_of(job, start.model_folder, judge.folders) if peers.is_first else []
    return AlignmentRun(job, around, peers, store, start, judge, data_digest, checkpoint, parents).execute()


def prepare_alignment(job: JobDocument, locations: Locations) -> StartingPoint:
    """Tokenizer, prompts and the folder of the start model. Raises JobFailure."""
    assert job.model.uri is not None, "an alignment starts from a model"
    folder = locations.resolve_model(job.model.uri)
    config = load_config(folder, trust_remote_code=job.model.trust_remote_code)
    check_digest(job, folder)
    tokenizer = load_tokenizer(folder, trust_remote_code=job.model.trust_remote_code)
    check_sizes(tokenizer, config, folder)
    ensure_pad_token(tokenizer)
    context_length = getattr(config, "max_position_embeddings", None)
    data = prepare_prompts(job, tokenizer, locations, context_length=context_length)
    check_rewards(job, data.prompts, data.held_out)
    return StartingPoint(tokenizer, data, folder)


@dataclass
class AlignmentRun:
    """An alignment that is ready to go on."""

    job: JobDocument
    around: Surroundings
    peers: Peers
    store: CheckpointStore
    start: StartingPoint
    judge: Judge
    data_digest: str
    checkpoint: Checkpoint | None
    parents: Sequence[Parent]
    """Of the model that comes out; only the first process has them."""

    def __post_init__(self) -> None:
        assert self.job.alignment is not None
        self._alignment = self.job.alignment
        done = self.checkpoint.state.step if self.checkpoint else 0
        self._history: History | None = None
        if self.peers.is_first:
            self._history = History(self.around.output / METRICS_FILE, up_to_step=done, track=self.around.track)
        self._saved_at = done
        self._preferences: dict[int, dict[str, str]] = {}
        """Address and digest of the preferences of each step that learns from some."""

    def execute(self) -> ResultDocument:
        """All steps, then model, report and result; or an early end because it was asked for."""
        state = StepState(0, 0)
        start = self.start
        trip: Trip | None = None
        for index, step in enumerate(self._alignment.steps):
            finished = self._finished_step(index)
            if finished is not None:
                state = StepState(index + 1, finished["optimizer_steps"], before=finished["before"])
                self._note_preferences(index, finished["preferences"])
                start = StartingPoint(start.tokenizer, start.data, self._step_folder(index) / "model")
                continue
            end = self._run_step(index, step, start, state)
            if end is None:
                return ResultDocument(outcome="terminated", step=self._saved_at)
            trip = end.trip
            if trip is not None or index + 1 == len(self._alignment.steps):
                return self._finish(end, start)
            start = self._hand_on(end, start)
            state = StepState(index + 1, end.state.optimizer_steps, before=end.state.before)
        raise AssertionError("the last step is never marked as done: its model is the job's")

    def _step_folder(self, index: int) -> Path:
        return self.around.output / "steps" / step_name(index, self._alignment.steps[index])

    def _finished_step(self, index: int) -> dict[str, Any] | None:
        path = self._step_folder(index) / DONE_FILE
        document = json.loads(path.read_text()) if self.peers.is_first and path.is_file() else None
        if document is not None and document["fingerprint"] != fingerprint(self.job):
            document = None
        found: dict[str, Any] | None = self.peers.from_first(document)
        return found

    def _hand_on(self, end: "StepEnd", start: StartingPoint) -> StartingPoint:
        """Writes a step's model, from which the next one starts."""
        folder = self._step_folder(end.state.step_index)
        self._note_preferences(end.state.step_index, end.state.algorithm.get("data"))
        export = self._export(end.state, start, folder, self._final_metrics(end.state))
        export_model(end.parts.policy.engine.module.policy, export, self.peers)
        if self.peers.is_first:
            done = {
                "fingerprint": fingerprint(self.job),
                "optimizer_steps": end.state.optimizer_steps,
                "before": end.state.before,
                "preferences": end.state.algorithm.get("data"),
            }
            write_file(folder / DONE_FILE, json.dumps(done))
        self.peers.wait()
        end.parts.close()
        return StartingPoint(start.tokenizer, start.data, folder / "model")

    def _note_preferences(self, index: int, digest: str | None) -> None:
        step = self._alignment.steps[index].dpo
        if step is not None and digest is not None:
            self._preferences[index] = {"uri": step.dataset.address, "digest": digest}

    def _export(self, state: StepState, start: StartingPoint, folder: Path, metrics: dict[str, float]) -> Export:
        return Export(
            self.job,
            start,
            folder,
            metrics,
            state.optimizer_steps,
            self.data_digest,
            parents=self.parents,
            alignment=self._course(state),
        )

    def _run_step(self, index: int, step: AlignStep, start: StartingPoint, state: StepState) -> "StepEnd | None":
        """One step to its end; None when it was asked to stop before."""
        name = step_name(index, step)
        parts = build_step(self.job, step, start, self.judge, self.around, self.peers)
        resumed = self._resumed_state(index)
        if resumed is not None:
            assert self.checkpoint is not None
            state = resumed
            load_engine(parts.policy.engine, self.checkpoint, self.job, self.peers)
            parts.algorithm.restore(state.algorithm)
            self.around.say(f"Going on with {name} after iteration {state.iterations}.")
        total = parts.algorithm.iterations
        self.around.progress.plan(
            total_steps=state.optimizer_steps + parts.algorithm.steps_per_iteration * (total - state.iterations),
            resumed_from_step=state.optimizer_steps if resumed else None,
        )
        self.around.say(f"Step {name}: {total} iterations.")
        self._show(name, state.iterations, total, "evaluating")
        if resumed is None:
            first = parts.evaluator.measure()
            state.watch.look(self._alignment.guardrails, first.measures, 0)
            state.before = state.before or first.answers
            state.after = first.answers
            self._record_iteration(name, 0, total, state.optimizer_steps, first.metrics)
        return self._iterate(name, parts, state)

    def _resumed_state(self, index: int) -> StepState | None:
        if self.checkpoint is None:
            return None
        state = StepState.load(json.loads((self.checkpoint.folder / STATE_FILE).read_text()))
        return state if state.step_index == index else None

    def _iterate(self, name: str, parts: StepParts, state: StepState) -> "StepEnd | None":
        if state.has_ended:
            return StepEnd(parts, state, state.trip)
        total = parts.algorithm.iterations
        every = max(1, math.ceil(total / EVALUATIONS))
        rates = TrainingPlan(total, 1, 1, 1, total, math.ceil(self.job.training.warmup_ratio * total), every)
        for number in range(state.iterations, total):
            if any(self.peers.gather(self.around.stop())):
                self._save(parts, state)
                return None
            iteration = self._iteration(name, number, total, state, learning_rate_at(number, self.job.training, rates))
            try:
                result = parts.algorithm.run(iteration)
            except Interrupted:
                self._save(parts, state, forget_draws=False)
                return None
            state.optimizer_steps, state.iterations = iteration.optimizer_steps, number + 1
            state.algorithm = parts.algorithm.state()
            trip = self._after_iteration(name, parts, state, result, evaluates=(number + 1) % every == 0)
            ends = trip is not None or result.stop is not None or number + 1 == total
            state.has_ended, state.trip = ends, trip
            if ends or state.optimizer_steps - self._saved_at >= self.job.checkpoint.every_steps:
                self._save(parts, state)
            if result.stop is not None:
                self.around.say(f"Step {name} ends after iteration {number + 1}: {result.stop}")
            if ends:
                return StepEnd(parts, state, trip)
        return StepEnd(parts, state, None)

    def _iteration(self, name: str, number: int, total: int, state: StepState, learning_rate: float) -> Iteration:
        return Iteration(
            step_index=state.step_index,
            step_name=name,
            number=number,
            optimizer_steps=state.optimizer_steps,
            learning_rate=learning_rate,
            job_seed=self.job.training.seed,
            enter=lambda activity: self._show(name, number, total, activity),
            observe=self._record_step,
        )

    def _after_iteration(
        self, name: str, parts: StepParts, state: StepState, result: IterationResult, *, evaluates: bool
    ) -> Trip | None:
        metrics, trip = dict(result.metrics), None
        total = parts.algorithm.iterations
        if evaluates or state.iterations == total or result.stop is not None:
            self._show(name, state.iterations, total, "evaluating")
            evaluation = parts.evaluator.measure()
            metrics |= evaluation.metrics
            state.after = evaluation.answers
            trip = state.watch.look(self._alignment.guardrails, evaluation.measures, state.iterations)
            self._keep_if_sound(parts, state, evaluation)
        self._record_iteration(name, state.iterations, total, state.optimizer_steps, metrics)
        return trip

    def _keep_if_sound(self, parts: StepParts, state: StepState, evaluation: Evaluation) -> None:
        """Puts the weights by while nothing is wrong with them, since what is wrong shows only later."""
        if state.watch.sound_iteration != state.iterations:
            return
        state.sound = evaluation.answers
        folder = self._step_folder(state.step_index)
        weights = gathered_state(
            parts.policy.engine.module.policy, trainable_only=parts.policy.uses_adapter, keep=self.peers.is_first
        )
        if self.peers.is_first:
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{SOUND_FILE}.part"
            # Tied weights share memory, which safetensors refuses to store.
            save_file({name: weight.clone().contiguous() for name, weight in weights.items()}, partial)
            partial.rename(folder / SOUND_FILE)

    def _record_step(self, metrics: StepMetrics) -> None:
        if self._history is None:
            return
        self._history.add_step(metrics)
        self.around.progress.record_step(metrics)
        self.around.observe_step(metrics)

    def _record_iteration(
        self, name: str, number: int, total: int, optimizer_steps: int, metrics: dict[str, float]
    ) -> None:
        if self._history is not None:
            self._history.add_iteration(optimizer_steps, name, number, metrics)
            self.around.progress.record_iteration(name, number, total, metrics)
        shown = "  ".join(f"{key} {value:.4g}" for key, value in metrics.items())
        self.around.say(f"{name}  iteration {number}/{total}  {shown}")

    def _show(self, name: str, number: int, total: int, activity: str) -> None:
        self.around.progress.enter("evaluating" if activity == "evaluating" else "training")
        self.around.progress.record_activity(name, number, total, activity)

    def _save(self, parts: StepParts, state: StepState, *, forget_draws: bool = True) -> None:
        """Writes a checkpoint, unless the newest one is of this very moment."""
        if state.optimizer_steps == self._saved_at:
            return
        self.around.progress.enter("saving")
        if self._history is not None:
            self._history.sync()
        described = TrainingState(
            step=state.optimizer_steps,
            fingerprint=fingerprint(self.job),
            data_digest=self.data_digest,
            job=self.job.to_dict(),
            processes=self.peers.count,
            micro_batch_size=parts.policy.micro_batch_size,
        )

        def write(folder: Path) -> None:
            parts.policy.engine.save_checkpoint(
                str(folder), tag=ENGINE_TAG, save_latest=False, exclude_frozen_parameters=parts.policy.uses_adapter
            )
            if self.peers.is_first:
                write_file(folder / STATE_FILE, json.dumps(asdict(state)))

        self.store.save(described, write)
        self._saved_at = state.optimizer_steps
        if forget_draws:
            parts.policy.sampler.forget()
        self.around.progress.record_checkpoint(state.optimizer_steps)

    def _finish(self, end: "StepEnd", start: StartingPoint) -> ResultDocument:
        state, trip = end.state, end.trip
        if trip is not None and state.watch.sound_iteration == 0:
            raise JobFailure(trip.reason, f"{trip.message} No iteration was sound, so there is no model to keep.")
        self.around.progress.enter("saving")
        weights = None
        name = step_name(state.step_index, self._alignment.steps[state.step_index])
        warnings = self.start.data.warnings
        if trip is not None:
            kept = (
                f"{trip.message} {name} was stopped after iteration {state.iterations}; the model is that of iteration "
            )
            trip = Trip(trip.reason, f"{kept}{state.watch.sound_iteration}, the newest sound one.")
            warnings = [*warnings, trip.message]
            self.around.say(trip.message)
            if self.peers.is_first:
                weights = load_file(self._step_folder(state.step_index) / SOUND_FILE)
            state.iterations, state.after = state.watch.sound_iteration, state.sound
        self._note_preferences(state.step_index, state.algorithm.get("data"))
        metrics = self._final_metrics(state)
        export = self._export(state, start, self.around.output, metrics)
        model = export_model(end.parts.policy.engine.module.policy, export, self.peers, weights=weights)
        if model is None:
            return ResultDocument(outcome="succeeded", step=state.optimizer_steps)
        assert self._history is not None
        self._history.close()
        result = ResultDocument(
            outcome="succeeded",
            model=model,
            metrics=metrics,
            step=state.optimizer_steps,
            align_step=name,
            report_uri=f"{self.job.output.rstrip('/')}/report.html",
            warnings=warnings,
            stopped=Failure(reason=trip.reason, message=trip.message, retryable=False) if trip else None,
        )
        save_pieces(self.around.output, ReportPieces(data=self.start.data.report, samples=self._samples(state)))
        write_report(self.around.output)
        write_result(self.around.output, result)
        shutil.rmtree(self._step_folder(state.step_index), ignore_errors=True)
        self.around.locations.publish(self.around.output, self.job.output)
        self.around.progress.enter("finished")
        return result

    def _course(self, state: StepState) -> list[dict[str, Any]]:
        """What each step so far came to; only the first process has the history it comes from."""
        if self._history is None:
            return []
        names = [step_name(index, step) for index, step in enumerate(self._alignment.steps[: state.step_index + 1])]
        return course_of(self._history.iterations, names, iterations=state.iterations, preferences=self._preferences)

    def _final_metrics(self, state: StepState) -> dict[str, float]:
        if self._history is None:
            return {}
        steps = self._history.steps
        last = steps[-LAST_STEPS:]
        seconds = sum(line["seconds"] for line in steps)
        return measures_of(self._course(state)) | {
            "train_loss": sum(line["loss"] for line in last) / len(last),
            "tokens": float(sum(line["tokens"] for line in steps)),
            "training_seconds": round(seconds, 3),
            "tokens_per_second": round(sum(line["tokens"] for line in steps) / max(seconds, 1e-9), 1),
            "iterations": float(state.iterations),
            "peak_memory_bytes": float(peak_memory_bytes()),
        }

    def _samples(self, state: StepState) -> list[SampleAnswer]:
        assert isinstance(self.start.data, PromptData)
        prompts = (self.start.data.held_out or self.start.data.prompts)[:SHOWN]
        return [
            SampleAnswer(
                prompt=prompt.messages[-1]["content"],
                reference=prompt.reference or "",
                answer=after,
                held_out=bool(self.start.data.held_out),
                before=before,
            )
            for prompt, before, after in zip(prompts, state.before, state.after, strict=True)
        ]


@dataclass
class StepEnd:
    """A step that has come to its end; trip: the guard rail that ended it."""

    parts: StepParts
    state: StepState
    trip: Trip | None


__all__ = ["AlignmentRun", "StepEnd", "align"]
