"""One training from job document to model: what happens in which order."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import deepspeed
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers.integrations.deepspeed import HfDeepSpeedConfig
from transformers.utils.logging import disable_progress_bar

from alidade_crds.blocks import AdapterType
from alidade_crds.contract import JobDocument, ResultDocument, Stage
from alidade_crds.status import ModelInfo
from alidade_engine.perplexity import perplexity_of
from alidade_trainer.batches import BatchStream, Collate, Sequences, evaluation_batches
from alidade_trainer.checkpoints import Checkpoint, CheckpointStore, TrainingState
from alidade_trainer.context.study import LengthStudy, begin_study
from alidade_trainer.data.dataset import Collator, epoch_order
from alidade_trainer.data.sequences import grouped_order
from alidade_trainer.export import Export, export_model
from alidade_trainer.history import METRICS_FILE, History, patience_is_over
from alidade_trainer.jobs import fingerprint
from alidade_trainer.kernels import compile_engine, refuse_unavailable
from alidade_trainer.loop import AfterStep, HeldOutLoss, LoopEnd, TrainingLoop, evaluation_loss
from alidade_trainer.loss import LossTally, can_select_positions
from alidade_trainer.microbatch import found_micro_batch
from alidade_trainer.noise import PassNorms, noise_scale
from alidade_trainer.peers import Peers
from alidade_trainer.plan import TrainingPlan, largest_divisor, plan_training, share_of_process
from alidade_trainer.progress import (
    GpuMeter,
    Progress,
    State,
    StepMetrics,
    flops_per_token,
    mean_losses,
    peak_memory_bytes,
)
from alidade_trainer.report import ReportPieces, save_pieces, write_report
from alidade_trainer.results import write_result
from alidade_trainer.resuming import ENGINE_TAG, checkpoint_to_resume, load_engine
from alidade_trainer.samples import sample_answers
from alidade_trainer.spikes import (
    LossSpikeError,
    Rewind,
    SpikeWatch,
    next_rewind,
    passed_over,
    read_rewinds,
    write_rewinds,
)
from alidade_trainer.starting import StartingPoint, build_model, model_itself, prepare_start, refuse_unknown
from alidade_trainer.surroundings import Surroundings
from alidade_trainer.vocabulary.report import vocabulary_metrics
from alidade_trainer.zero import (
    base_config,
    build_engine,
    checked_raw_config,
    deepspeed_config,
    start_deepspeed,
    weight_size,
)

LOG_LINES = 50
"""Lines about steps in the log of a whole training."""
LAST_STEPS = 10
"""Steps whose mean is the final training loss: a single one is noisy."""


def train(job: JobDocument, around: Surroundings) -> ResultDocument:
    """Trains, evaluates, exports. Every process calls it; the first process's answer has the model.

    Raises JobFailure for what a user can mend, StopRequested when asked to stop before the first step.
    """
    on_gpu = torch.cuda.is_available()
    peers = Peers.from_environment(on_gpu=on_gpu)
    if on_gpu:
        torch.cuda.set_device(peers.device)
    refuse_unknown(job)
    refuse_unavailable(job, on_gpu=on_gpu, processes=peers.count)
    if job.stage is Stage.ALIGN:
        from alidade_trainer.align.steps import check_steps

        check_steps(job, peers.count)
    share_of_process(job.training, peers.count)
    checked_raw_config(job)
    if job.training.deterministic:
        # cuBLAS reads it when it is loaded, which torch does at the first use.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    disable_progress_bar()  # of loading and saving; the log has a line for each
    start_deepspeed(on_gpu=on_gpu, processes=peers.count)
    try:
        if job.stage is Stage.ALIGN:
            from alidade_trainer.align.run import align  # which stands on this module

            return align(job, around, peers)
        return _train(job, around, peers, _stage_of(job))
    finally:
        torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class StageParts:
    """What is particular to a stage: its data, its model, its way of training."""

    prepare: Callable[[JobDocument, Surroundings, Peers], StartingPoint]
    build: Callable[[JobDocument, StartingPoint], nn.Module]
    run: "type[TrainingRun]"


def _stage_of(job: JobDocument) -> StageParts:
    if job.stage is Stage.REWARD:
        from alidade_trainer.reward.run import REWARD_PARTS  # which stands on this module

        return REWARD_PARTS
    return StageParts(prepare_start, build_model, TrainingRun)


def _train(job: JobDocument, around: Surroundings, peers: Peers, parts: StageParts) -> ResultDocument:
    store = CheckpointStore(around.output / "checkpoints", peers, keep=job.checkpoint.keep, log=around.say)
    _enter(around, "tokenizing")
    start = parts.prepare(job, around, peers)
    _say_data(start, around)
    data_digest = digest_of_data(start)
    checkpoint = checkpoint_to_resume(store, job, data_digest)
    _enter(around, "loading")
    loading = HfDeepSpeedConfig(base_config(job, on_gpu=peers.device.type == "cuda"))  # must live while a model loads
    model = parts.build(job, start)
    plan = _plan(job, start, model, peers, checkpoint)
    engine = build_engine(model, job, deepspeed_config(job, plan=plan, on_gpu=peers.device.type == "cuda"))
    del loading
    compile_engine(engine, job.training)
    study = begin_study(job, start, model_itself(engine.module), peers)
    done = 0
    if checkpoint is not None:
        load_engine(engine, checkpoint, job, peers)
        done = checkpoint.state.step
        around.say(f"Going on from checkpoint {checkpoint.folder.name}.")
    around.progress.plan(
        total_steps=plan.total_steps,
        resumed_from_step=done if checkpoint else None,
        gpu_meter=_gpu_meter(job, model, start, peers),
    )
    run = parts.run(job, around, peers, store, start, plan, engine, data_digest, done, study)
    return run.execute()


@dataclass
class TrainingRun:
    """A training that is ready to go on: engine, data and plan in place."""

    job: JobDocument
    around: Surroundings
    peers: Peers
    store: CheckpointStore
    start: StartingPoint
    plan: TrainingPlan
    engine: deepspeed.DeepSpeedEngine
    data_digest: str
    done: int
    """Optimizer steps done."""
    study: LengthStudy | None = None
    """Perplexity by length, where the context is made longer."""

    def __post_init__(self) -> None:
        self._history: History | None = None
        self._take_up_history()
        self._rewinds: list[Rewind] = self.peers.from_first(
            read_rewinds(self.around.output) if self.peers.is_first else None
        )
        self._selects = can_select_positions(model_itself(self.engine.module))
        passes = self.plan.accumulation * self.peers.count
        self._norms = PassNorms(self.engine.module) if passes > 1 else None  # of one pass they tell nothing of noise
        self._collate = Collator(self.start.tokenizer.pad_token_id, packed=self.start.data.packed)
        self._started = time.monotonic()

    def _take_up_history(self) -> None:
        """The metrics of the steps done, and none of those after."""
        if self._history is not None:
            self._history.close()
        if self.peers.is_first:
            self._history = History(self.around.output / METRICS_FILE, up_to_step=self.done, track=self.around.track)
        evaluations = self._history.evaluations if self._history else None
        self._eval_losses = [line["eval_loss"] for line in self.peers.from_first(evaluations)]

    def execute(self) -> ResultDocument:
        """Trains to the end, then writes model, report and result; or ends early because it was asked to."""
        self._say_plan()
        if self.job.training.spike_recovery is not None and self.done == 0:
            self._save(0)  # there has to be something to go back to
        end = None
        while end is None:
            _enter(self.around, "training")
            after = AfterStep(self._record, self._evaluate, self._save)
            try:
                end = self._loop().run(self.done, after, self.around.stop)
            except LossSpikeError as spike:
                self._rewind(spike)
        if end == LoopEnd.STOP_REQUESTED:
            return ResultDocument(outcome="terminated", step=self.done)
        if end == LoopEnd.PATIENCE_OVER:
            self.around.say(f"Training ends early: eval_loss has not improved in {self._patience} evaluations.")
        if self.study is not None:
            _enter(self.around, "evaluating")
            self.study = self.study.ended(model_itself(self.engine.module), self.peers)
        _enter(self.around, "saving")
        metrics = self._metrics()
        export = Export(self.job, self.start, self.around.output, metrics, self.done, self.data_digest)
        model = export_model(self._trained_model(), export, self.peers)
        if model is None:
            return ResultDocument(outcome="succeeded", step=self.done)
        return self._finish(model, metrics)

    def _trained_model(self) -> nn.Module:
        """What is exported."""
        module: nn.Module = self.engine.module
        return module

    def _rewind(self, spike: LossSpikeError) -> None:
        """Goes back to the newest checkpoint. Raises JobFailure when that was done too often."""
        recovery, checkpoint = self.job.training.spike_recovery, self.store.newest()
        assert recovery is not None, "spikes are watched for only then"
        assert checkpoint is not None, "one is written before the first step"
        rewind = next_rewind(spike, checkpoint.state.step, self._rewinds, recovery)
        self._rewinds.append(rewind)
        self.around.say(f"Warning: {rewind}")
        self.around.progress.record_rewind(len(self._rewinds), str(rewind))
        if self.peers.is_first:
            write_rewinds(self.around.output, self._rewinds)
        load_engine(self.engine, checkpoint, self.job, self.peers)
        self.done = checkpoint.state.step
        self._take_up_history()

    def _watch(self) -> SpikeWatch | None:
        recovery = self.job.training.spike_recovery
        if recovery is None:
            return None
        steps = self._history.steps[-recovery.window :] if self._history else []
        return SpikeWatch(recovery, self.peers.from_first([step["loss"] for step in steps]))

    def _stream(self, sequences: Sequences, collate: Collate) -> BatchStream:
        """This process's share of the sequences, in the order of the job's seed."""
        return BatchStream(
            sequences,
            collate,
            global_batch_size=self.plan.global_batch_size,
            micro_batch_size=self.plan.micro_batch_size,
            rank=self.peers.rank,
            processes=self.peers.count,
            passed_over=lambda step: passed_over(self._rewinds, step),
            order=self._order,
        )

    def _order(self, epoch: int, count: int) -> NDArray[np.int64]:
        """The order of an epoch's sequences: of the job's seed alone, whatever processes there are."""
        seed = self.job.training.seed
        if not self.job.dataset.length_grouping or self.start.data.packed:
            return epoch_order(seed, epoch, count)
        return grouped_order(seed, epoch, self.start.data.train.sequence_lengths, self.plan.global_batch_size)

    def _loop(self) -> TrainingLoop:
        return TrainingLoop(
            self.engine,
            self.job.training,
            self.plan,
            self._stream(self.start.data.train, self._collate),
            self.peers,
            self.job.checkpoint.every_steps,
            self._selects,
            self._norms,
            self._watch(),
            LossTally(names) if len(names := self._dataset_names()) > 1 else None,
        )

    def _dataset_names(self) -> list[str]:
        """Of the datasets that are told apart in the metrics, in the order of their numbers."""
        if self.start.data.train.datasets is None:
            return []
        return [source["name"] for source in self.start.data.report["sources"] if source["name"]]

    @property
    def _patience(self) -> int | None:
        stopping = self.job.training.early_stopping
        return stopping.patience if stopping else None

    def _record(self, metrics: StepMetrics) -> None:
        self.done = metrics.step
        if self._history is None:
            return
        self._history.add_step(metrics)
        self.around.progress.record_step(metrics, noise_scale(self._history.steps))
        self.around.observe_step(metrics)
        interval = max(1, self.plan.total_steps // LOG_LINES)
        if metrics.step % interval == 0 or metrics.step in (1, self.plan.total_steps):
            self.around.say(step_line(metrics, self.plan, self.around.progress))

    def _evaluate(self, step: int) -> bool:
        if self.start.data.validation is None:
            return False
        _enter(self.around, "evaluating")
        measured = self._held_out_loss()
        self._eval_losses.append(measured.loss)
        if self._history is not None:
            self._history.add_evaluation(step, measured.loss, measured.losses)
            self.around.progress.record_evaluation(measured.loss, measured.losses)
        parts = "".join(f"  {name} {loss:.4f}" for name, loss in measured.losses.items())
        self.around.say(f"step {step}/{self.plan.total_steps}  eval_loss {measured.loss:.4f}{parts}")
        _enter(self.around, "training")
        return self._patience is not None and patience_is_over(self._eval_losses, self._patience)

    def _held_out_loss(self) -> HeldOutLoss:
        held_out = self.start.data.validation
        assert held_out is not None, "it is measured only then"
        batches = evaluation_batches(
            held_out,
            self._collate,
            micro_batch_size=self.plan.micro_batch_size,
            rank=self.peers.rank,
            processes=self.peers.count,
        )
        tally = LossTally(self._dataset_names()) if held_out.datasets is not None else None
        return evaluation_loss(self.engine, batches, self.peers, selects_positions=self._selects, tally=tally)

    def _save(self, step: int) -> None:
        _enter(self.around, "saving")
        if self._history is not None:
            self._history.sync()
        state = TrainingState(
            step=step,
            fingerprint=fingerprint(self.job),
            data_digest=self.data_digest,
            job=self.job.to_dict(),
            processes=self.peers.count,
            micro_batch_size=self.plan.micro_batch_size,
        )
        trained_only = self.job.adapter.type != AdapterType.NONE
        self.store.save(
            state,
            lambda folder: self.engine.save_checkpoint(
                str(folder), tag=ENGINE_TAG, save_latest=False, exclude_frozen_parameters=trained_only
            ),
        )
        self.around.progress.record_checkpoint(step)
        _enter(self.around, "training")

    def _metrics(self) -> dict[str, float]:
        """Final metrics; only the first process has the history they come from."""
        if self._history is None:
            return {}
        steps = self._history.steps
        last = steps[-LAST_STEPS:]
        seconds = sum(step["seconds"] for step in steps)
        metrics = {
            "train_loss": sum(step["loss"] for step in last) / len(last),
            "epochs": self.plan.epoch_at(self.done),
            "tokens": float(sum(step["tokens"] for step in steps)),
            "training_seconds": round(seconds, 3),
            "tokens_per_second": round(sum(step["tokens"] for step in steps) / seconds, 1),
            "peak_memory_bytes": float(peak_memory_bytes()),
        }
        by_dataset = mean_losses([step.get("losses", {}) for step in last])
        metrics |= {f"train_loss.{name}": loss for name, loss in by_dataset.items()}
        noise = noise_scale(steps)
        metrics |= {"gradient_noise_scale": noise} if noise is not None else {}
        metrics |= self.study.metrics() if self.study is not None else {}
        metrics |= vocabulary_metrics(self.start.data.report.get("vocabulary"))
        if self._eval_losses:
            metrics["eval_loss"] = self._eval_losses[-1]
            by_dataset = self._history.evaluations[-1].get("eval_losses", {})
            metrics |= {f"eval_loss.{name}": loss for name, loss in by_dataset.items()}
            metrics["best_eval_loss"] = min(self._eval_losses)
            metrics["perplexity"] = perplexity_of(self._eval_losses[-1])
        return metrics

    def _finish(self, model: ModelInfo, metrics: dict[str, float]) -> ResultDocument:
        assert self._history is not None
        self._history.close()
        warnings = [*self.start.data.warnings, *map(str, self._rewinds)]
        result = ResultDocument(
            outcome="succeeded",
            model=model,
            metrics=metrics,
            step=self.done,
            report_uri=f"{self.job.output.rstrip('/')}/report.html",
            warnings=warnings,
        )
        save_pieces(self.around.output, self._pieces())
        write_report(self.around.output)
        write_result(self.around.output, result)
        self.around.locations.publish(self.around.output, self.job.output)
        _enter(self.around, "finished")
        return result

    def _pieces(self) -> ReportPieces:
        return ReportPieces(
            data=self.start.data.report,
            samples=sample_answers(self.around.output / "model", self.start, self.peers.device),
            lengths=self.study.piece() if self.study is not None else None,
        )

    def _say_plan(self) -> None:
        plan, trained = self.plan, sum(weight_size(w) for w in self.engine.module.parameters() if w.requires_grad)
        self.around.say(
            f"Training {trained:,} weights for {plan.total_steps} steps of {plan.global_batch_size} sequences "
            f"({self.peers.count} processes x {plan.accumulation} passes x {plan.micro_batch_size}), "
            f"ZeRO stage {self.job.deepspeed.zero_stage}, {self.job.training.precision}."
        )


def digest_of_data(start: StartingPoint) -> str:
    """sha256 of what is trained on: the records' files, answers sampled to them, and the tokenizer that reads them."""
    total = hashlib.sha256()
    for source in start.data.report["sources"]:
        total.update(source["digest"].encode())
    if start.data.report.get("ghost_attention"):
        total.update(start.data.report["ghost_attention"]["digest"].encode())
    vocabulary = start.tokenizer.get_vocab()
    total.update(json.dumps(sorted(vocabulary.items(), key=lambda item: item[1])).encode())
    return f"sha256:{total.hexdigest()}"


def _enter(around: Surroundings, state: State) -> None:
    around.progress.enter(state)
    if state in ("tokenizing", "loading"):
        around.stop.check()


def _say_data(start: StartingPoint, around: Surroundings) -> None:
    train = start.data.report["train"]
    around.say(
        f"Data: {train['samples']:,} samples in {train['sequences']:,} sequences, {train['tokens']:,} tokens, "
        f"{train['answer_tokens']:,} of them learned."
    )
    for warning in start.data.warnings:
        around.say(f"Warning: {warning}")


def _plan(
    job: JobDocument, start: StartingPoint, model: nn.Module, peers: Peers, checkpoint: Checkpoint | None
) -> TrainingPlan:
    """The plan; an attempt resumed by as many processes keeps the micro-batches of the first, so it rounds alike."""
    wish = job.training.micro_batch_size
    if checkpoint is not None and checkpoint.state.processes == peers.count:
        micro_batch_size = checkpoint.state.micro_batch_size
    elif wish == "auto":
        micro_batch_size = min(peers.gather(found_micro_batch(job, start, model, peers)))
    elif checkpoint is None:
        micro_batch_size = int(wish)
    else:
        micro_batch_size = largest_divisor(share_of_process(job.training, peers.count), int(wish))
    return plan_training(
        job.training, sequences=len(start.data.train), processes=peers.count, micro_batch_size=micro_batch_size
    )


def _gpu_meter(job: JobDocument, model: nn.Module, start: StartingPoint, peers: Peers) -> GpuMeter | None:
    if job.peak_tflops is None or peers.device.type != "cuda":
        return None
    weights = sum(weight_size(weight) for weight in model.parameters())
    config: Any = model_itself(model).config
    flops = flops_per_token(
        weights=weights,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        length=start.data.train.attended,
        with_adapter=job.adapter.type != AdapterType.NONE,
    )
    return GpuMeter(flops, job.peak_tflops, peers.count)


def step_line(metrics: StepMetrics, plan: TrainingPlan, progress: Progress) -> str:
    document = progress.to_document()
    left = timedelta(seconds=round(document.eta_s or 0))
    return (
        f"step {metrics.step}/{plan.total_steps}  epoch {metrics.epoch:.2f}  loss {metrics.loss:.4f}  "
        f"lr {metrics.learning_rate:.2e}  grad_norm {metrics.grad_norm:.2f}  "
        f"tokens/s {document.tokens_per_second or 0:,.0f}  left {left}"
    )
