"""Whole trainings of a tiny model: what comes out is the same however the work is divided, interrupted or repeated."""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from peft import PeftModel

from alidade_engine.digests import model_digest
from alidade_engine.models import load_model, load_tokenizer
from alidade_engine.sources import Locations
from alidade_trainer.batches import BatchStream
from alidade_trainer.data.dataset import Collator, epoch_order, prepare
from alidade_trainer.jobs import read_job
from alidade_trainer.loss import summed_loss
from alidade_trainer.plan import learning_rate_at, plan_training
from tests.trainer.conftest import Run, in_child, kill_after_step
from tests.trainer.event_files import curves

RunJob = Callable[..., Run]
MakeJob = Callable[..., Path]
Documented = Callable[[dict[str, float]], None]

# peft asks transformers by a name that is about to change.
quiet_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
# Sums of the same numbers in another order, in fp32, carried through six steps of Adam.
SAME = 1e-4


def naive_losses(job_path: Path, steps: int) -> list[float]:
    """As `_naive_losses`."""
    losses: list[float] = in_child(_naive_losses, job_path, steps)
    return losses


def _naive_losses(job_path: Path, steps: int) -> list[float]:
    """The losses of plain PyTorch: each sequence alone through the model, one mean over all answer tokens of a step."""
    job = read_job(job_path)
    folder = Path(job.model.uri.removeprefix("file://"))  # type: ignore[union-attr]
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    data = prepare(job, tokenizer, Locations(Path("/none"), Path("/none")))
    plan = plan_training(job.training, sequences=len(data.train), processes=1, micro_batch_size=1)
    stream = BatchStream(
        data.train,
        Collator(tokenizer.pad_token_id, packed=False),
        order=partial(epoch_order, job.training.seed),
        global_batch_size=job.training.global_batch_size,
        micro_batch_size=1,
        rank=0,
        processes=1,
    )
    matrices = [weight for weight in model.parameters() if weight.dim() >= 2]
    vectors = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": job.training.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    losses = []
    for step in range(steps):
        log_probabilities = []
        for index in stream.indices(step):
            ids = torch.tensor(data.train[index]["input_ids"])
            labels = torch.tensor(data.train[index]["labels"])
            predicted = model(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
            log_probabilities += [predicted[at, label] for at, label in enumerate(labels[1:]) if label != -100]
        loss = -torch.stack(log_probabilities).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), job.training.max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, job.training, plan)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


@torch.no_grad()
def naive_held_out_losses(job_path: Path, model_folder: Path) -> dict[str, float]:
    """The loss on what is held out of each dataset by plain PyTorch, each sample alone: its text says whose it is."""
    job, tokenizer, model = read_job(job_path), load_tokenizer(model_folder), load_model(model_folder)
    data = prepare(job, tokenizer, Locations(Path("/none"), Path("/none")))
    assert data.validation is not None
    losses: dict[str, list[float]] = {"train": [], "heldout": []}
    for item in (data.validation[index] for index in range(len(data.validation))):
        ids, labels = torch.tensor(item["input_ids"]), torch.tensor(item["labels"])
        predicted = model(input_ids=ids[None]).logits[0, :-1].double().log_softmax(-1)
        own = losses["heldout" if " of heldout " in tokenizer.decode(ids) else "train"]
        own += [-float(predicted[at, label]) for at, label in enumerate(labels[1:]) if label != -100]
    return {name: fmean(own) for name, own in losses.items()}


def naive_noise(job_path: Path, processes: int) -> list[float]:
    """As `_naive_noise`."""
    noise: list[float] = in_child(_naive_noise, job_path, processes)
    return noise


def _naive_noise(job_path: Path, processes: int) -> list[float]:
    """Variance and signal of the first step's gradient (McCandlish et al. 2018, A.1), by whole gradients of passes."""
    job = read_job(job_path)
    micro_batch_size = int(job.training.micro_batch_size)
    folder = Path(job.model.uri.removeprefix("file://"))  # type: ignore[union-attr]
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    data = prepare(job, tokenizer, Locations(Path("/none"), Path("/none")))
    gradients, sizes = [], []
    for rank in range(processes):
        stream = BatchStream(
            data.train,
            Collator(tokenizer.pad_token_id, packed=False),
            order=partial(epoch_order, job.training.seed),
            global_batch_size=job.training.global_batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            processes=processes,
        )
        for batch in stream.step(0):
            loss = summed_loss(model, batch.tensors, selects_positions=False) / batch.learned
            gradients.append(torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))]))
            sizes.append(batch.learned)
    weights = torch.tensor(sizes, dtype=torch.float64)
    passes = torch.stack(gradients).double()
    mean = (weights[:, None] * passes).sum(0) / weights.sum()
    # The variance of groups of unequal size, as any analysis of variance has it.
    of_token = (weights * (passes - mean).square().sum(1)).sum() / (len(sizes) - 1)
    of_sequence = of_token * job.training.global_batch_size / weights.sum()
    return [float(of_sequence), float(mean.square().sum() - of_token / weights.sum())]


@pytest.mark.parametrize(
    ("processes", "micro_batch_size", "stage"), [(1, 4, 2), (1, 8, 0), (1, 1, 1), (1, 2, 3), (2, 2, 2), (2, 4, 3)]
)
def test_losses_are_those_of_plain_pytorch_whatever_the_processes_micro_batches_and_zero_stage(
    make_job: MakeJob, run_job: RunJob, processes: int, micro_batch_size: int, stage: int
) -> None:
    deepspeed: dict[str, Any] = {"zeroStage": stage}
    if (processes, stage) == (2, 3):
        deepspeed["zeroPlusPlus"] = {"partitionSize": 2}
    job = make_job({"training": {"microBatchSize": micro_batch_size, "maxSteps": 4}, "deepspeed": deepspeed})
    is_one_pass = micro_batch_size == 8

    run = run_job(job, processes=processes, prepare=without_norms if is_one_pass else None)

    assert run.result.outcome == "succeeded"
    assert run.losses == pytest.approx(naive_losses(job, 4), abs=SAME)
    first = run.lines[0]
    if is_one_pass:  # which tells nothing of noise
        assert "gradient_signal" not in first
    else:
        noise = [first["gradient_variance"], first["gradient_signal"]]
        assert noise == pytest.approx(naive_noise(job, processes), rel=1e-3)


def without_norms(_rank: int) -> None:
    """For `prepare`: where no pass's norm can be taken."""
    import alidade_trainer.training as training

    vars(training).pop("PassNorms")


def small_memory(_rank: int) -> None:
    """For `prepare`: as on a GPU whose memory ends within a pass over more than six sequences."""
    import alidade_trainer.microbatch as microbatch
    import alidade_trainer.probing as probing

    summed_loss = probing.summed_loss

    def bounded(model: Any, batch: dict[str, torch.Tensor], **options: Any) -> torch.Tensor:
        if len(batch["input_ids"]) > 6:
            raise torch.OutOfMemoryError
        return summed_loss(model, batch, **options)

    probing.summed_loss = bounded
    microbatch.can_probe = lambda _device, *, zero_stage: zero_stage < 3


def test_packed_sequences_learn_the_same_as_padded_ones_in_the_largest_micro_batches_that_fit(
    make_job: MakeJob, run_job: RunJob, capfd: pytest.CaptureFixture[str]
) -> None:
    # One batch of all 48 samples, packed or not, is one gradient.
    over = {"training": {"globalBatchSize": 48, "microBatchSize": "auto", "maxSteps": 1}, "dataset": {"packing": False}}
    padded = run_job(make_job(over, output="padded"), prepare=small_memory)
    assert "(1 processes x 12 passes x 4)" in capfd.readouterr().out
    job = json.loads(make_job(over | {"dataset": {"packing": True}}, output="packed").read_text())
    data = prepare(
        read_job(Path(job["output"].removeprefix("file://") + ".json")),
        load_tokenizer(Path(job["model"]["uri"].removeprefix("file://"))),
        Locations(Path("/none"), Path("/none")),
    )
    over = {"training": {"globalBatchSize": len(data.train), "microBatchSize": "auto", "maxSteps": 1}}

    packed = run_job(make_job(over | {"dataset": {"packing": True}}, output="packed"))

    assert len(data.train) < 48
    assert packed.losses == pytest.approx(padded.losses, abs=SAME)
    assert packed.lines[0]["grad_norm"] == pytest.approx(padded.lines[0]["grad_norm"], rel=1e-3)


def test_gradient_checkpointing_changes_nothing_but_memory(make_job: MakeJob, run_job: RunJob) -> None:
    # One of two blocks, in an implementation of attention that keeps the scores.
    over = {"gradientCheckpointing": True, "checkpointEveryLayers": 2, "attention": "eager", "maxSteps": 3}
    job = make_job({"training": over})

    assert run_job(job).losses == pytest.approx(naive_losses(job, 3), abs=SAME)


def test_bf16_follows_fp32_within_its_precision(make_job: MakeJob, run_job: RunJob) -> None:
    job = make_job({"training": {"precision": "bf16", "maxSteps": 3}, "deepspeed": {"zeroStage": 0}})

    run = run_job(job)

    # 8 bits of mantissa: a relative error of about 2**-8 of losses near 6.
    assert run.losses == pytest.approx(naive_losses(job, 3), abs=0.03)
    assert json.loads((run.output / "model" / "config.json").read_text())["dtype"] == "bfloat16"


def test_offload_to_host_memory_changes_no_loss(make_job: MakeJob, run_job: RunJob) -> None:
    job = make_job({"training": {"maxSteps": 3}, "deepspeed": {"zeroStage": 3, "offload": "all"}})

    assert run_job(job).losses == pytest.approx(naive_losses(job, 3), abs=SAME)


def test_noise_on_embeddings_is_added_in_training_and_not_in_evaluation(make_job: MakeJob, run_job: RunJob) -> None:
    still = {"training": {"maxSteps": 1, "learningRate": 1e-9, "evaluateEverySteps": 1}}
    plain = run_job(make_job(still, output="plain"))
    noisy = run_job(make_job({"training": still["training"] | {"neftuneAlpha": 50}}, output="noisy"))

    assert noisy.losses[0] != pytest.approx(plain.losses[0], abs=1e-3)
    assert noisy.lines[-1]["eval_loss"] == pytest.approx(plain.lines[-1]["eval_loss"], abs=1e-5)


@pytest.mark.parametrize(
    ("over", "processes"),
    [
        pytest.param({}, 1, id="all weights"),
        pytest.param({"adapter": {"type": "lora", "dropout": 0.3}}, 1, id="lora with dropout"),
        pytest.param({"deepspeed": {"zeroStage": 2}}, 2, id="two processes"),
    ],
)
def test_a_run_that_is_killed_and_resumed_has_the_loss_curve_of_one_that_is_not(
    make_job: MakeJob,
    run_job: RunJob,
    workplace: Path,
    tmp_path: Path,
    documented: Documented,
    over: dict[str, Any],
    processes: int,
) -> None:
    mix = [{"uri": f"file://{workplace}/heldout.jsonl", "weight": 0.2}]
    validation = {"uri": None, "fraction": 0.25}
    over = over | {"dataset": {"mix": mix, "lengthGrouping": True, "validation": validation}}
    whole = run_job(make_job(over, output="whole"), processes=processes)
    job = make_job(over | {"tracking": {"tensorboard": {}}}, output="killed")

    # Step 5 is after the checkpoint of step 4, of which it loses one step; step 1 is before any.
    first = run_job(job, processes=processes, prepare=kill_after_step(1))
    second = run_job(job, processes=processes, prepare=kill_after_step(5, rank=processes - 1))
    third = run_job(job, processes=processes)

    assert -9 in first.exit_codes
    assert -9 in second.exit_codes
    assert third.result.outcome == "succeeded"
    assert third.lines == whole.lines  # to the last bit
    by_dataset = [line["losses"] for line in whole.lines if "loss" in line]
    assert {name for losses in by_dataset for name in losses} == {"train", "heldout"}
    assert whole.result.metrics["train_loss.train"] == pytest.approx(
        sum(losses["train"] for losses in by_dataset) / len(by_dataset)
    )
    held_out = naive_held_out_losses(tmp_path / "whole.json", whole.output / "model")
    assert whole.lines[-1]["eval_losses"] == pytest.approx(held_out, abs=SAME)
    assert {name: whole.result.metrics[f"eval_loss.{name}"] for name in held_out} == whole.lines[-1]["eval_losses"]
    assert "Loss on what is held out of each dataset" in (whole.output / "report.html").read_text()
    documented(whole.result.metrics)
    assert third.result.model.digest == whole.result.model.digest  # type: ignore[union-attr]
    told = curves(third.output / "tensorboard")
    for name, key in (("train/loss", "loss"), ("train/tokens", "tokens"), ("eval/loss", "eval_loss")):
        lines = [(line["step"], pytest.approx(line[key])) for line in whole.lines if key in line]
        assert told[name] == lines, f"{name}: by the first process only, no step left out, none there twice"
    assert [value for _, value in told["eval/loss/heldout"]] == [
        pytest.approx(line["eval_losses"]["heldout"]) for line in whole.lines if "eval_losses" in line
    ]
    assert told["train/final/train_loss"] == [(6, pytest.approx(whole.result.metrics["train_loss"]))]


def test_a_run_resumed_by_more_and_by_fewer_processes_goes_on_with_the_same_curve(
    make_job: MakeJob, run_job: RunJob
) -> None:
    # Weight decay, so that it would be seen which weights it goes to.
    job = make_job({"deepspeed": {"zeroStage": 3}, "training": {"weightDecay": 1}})

    run_job(job, processes=1, prepare=kill_after_step(3))
    run_job(job, processes=2, prepare=kill_after_step(5))
    resumed = run_job(job, processes=1)

    assert resumed.result.outcome == "succeeded", resumed.result.failure
    assert [line["step"] for line in resumed.lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert resumed.losses == pytest.approx(naive_losses(job, 6), abs=SAME)
    assert not [path.name for path in (resumed.output / "checkpoints").iterdir() if path.name.startswith(".")]


def test_processes_whose_peer_died_say_that_another_attempt_may_succeed(make_job: MakeJob, run_job: RunJob) -> None:
    run = run_job(make_job(), processes=2, prepare=kill_after_step(2, rank=1))

    assert run.exit_codes == [1, -9]
    failure = run.result.failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("WorkerLost", True)


@quiet_peft
@pytest.mark.parametrize(("stage", "before"), [(2, 2), (3, 1)])
def test_lora_trains_its_additions_and_nothing_else_also_when_another_number_of_processes_goes_on(
    make_job: MakeJob, run_job: RunJob, workplace: Path, stage: int, before: int
) -> None:
    over = {"adapter": {"type": "lora", "rank": 4, "alpha": 64, "dropout": 0}, "deepspeed": {"zeroStage": stage}}
    job = make_job(over)

    first = run_job(job, processes=before, prepare=kill_after_step(4))  # of which steps 3 and 4 are lost
    lost = first.losses[2:]
    run = run_job(job, processes=3 - before)

    assert run.result.outcome == "succeeded"
    assert run.losses[2:4] == pytest.approx(lost, abs=SAME)
    base = load_model(workplace / "base")
    before = {name: weight.clone() for name, weight in base.named_parameters()}
    adapted = PeftModel.from_pretrained(base, str(run.output / "adapter"))
    additions = [weight for name, weight in adapted.named_parameters() if "lora_B" in name]
    assert all(weight.abs().sum() > 0 for weight in additions)  # B starts at zero
    merged = load_model(run.output / "model")
    ids = torch.arange(20)[None] + 5
    assert torch.allclose(adapted(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-4)
    unmerged = load_model(workplace / "base")
    assert not torch.allclose(unmerged(input_ids=ids).logits, merged(input_ids=ids).logits, atol=1e-2)
    linear = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    for name, weight in merged.named_parameters():
        assert torch.equal(weight, before[name]) == (name.split(".")[-2] not in linear), name


def test_lora_can_train_the_embeddings_too(make_job: MakeJob, run_job: RunJob, workplace: Path) -> None:
    run = run_job(make_job({"adapter": {"type": "lora", "trainEmbeddings": True}, "training": {"maxSteps": 2}}))

    assert run.result.outcome == "succeeded"
    merged, base = load_model(run.output / "model"), load_model(workplace / "base")
    assert not torch.equal(merged.get_input_embeddings().weight, base.get_input_embeddings().weight)
    assert torch.equal(merged.get_input_embeddings().weight, merged.get_output_embeddings().weight)


def test_a_model_from_scratch_gets_a_tokenizer_of_its_own_and_learns(
    make_job: MakeJob, run_job: RunJob, workplace: Path
) -> None:
    init = {"hiddenSize": 32, "layers": 2, "heads": 2, "vocabSize": 300, "contextLength": 128}
    over = {"model": {"uri": None, "init": init}, "training": {"maxSteps": 25, "epochs": 99, "evaluateEverySteps": 25}}

    run = run_job(make_job(over))

    assert run.losses[-1] < run.losses[0] - 1
    assert run.losses[0] == pytest.approx(math.log(run.result.model.vocab_size), abs=0.3)  # type: ignore[union-attr, arg-type]
    tokenizer = load_tokenizer(run.output / "model")
    assert tokenizer.decode(tokenizer("green gold")["input_ids"], skip_special_tokens=True) == "green gold"


def test_the_output_holds_model_digest_lineage_card_report_and_result(make_job: MakeJob, run_job: RunJob) -> None:
    run = run_job(make_job({"training": {"maxSteps": 3}}))

    model = run.result.model
    assert model is not None
    assert model.uri == f"file://{run.output}/model"
    assert model.digest == model_digest(run.output / "model")
    assert (run.output / "model" / "digest").read_text().strip() == model.digest
    lineage = json.loads((run.output / "model" / "lineage.json").read_text())
    assert lineage["model"]["digest"] == model.digest
    assert lineage["data"][0]["uri"].endswith("train.jsonl")
    assert model.digest in (run.output / "model" / "README.md").read_text()
    assert load_tokenizer(run.output / "model").chat_template
    assert "<svg" in (run.output / "report.html").read_text()
    assert json.loads((run.output / "result.json").read_text())["model"]["digest"] == model.digest
    assert {"train_loss", "eval_loss", "perplexity", "tokens", "tokens_per_second"} <= run.result.metrics.keys()
    assert run.result.metrics["perplexity"] == pytest.approx(math.exp(run.result.metrics["eval_loss"]))
    assert not [path for path in run.output.iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize("place", ["dataset", "dataset.validation"])
def test_data_of_another_digest_than_was_named_is_not_trained_on(
    make_job: MakeJob, run_job: RunJob, workplace: Path, place: str
) -> None:
    wrong = {"uri": f"file://{workplace}/heldout.jsonl", "sha256": "0" * 64}
    failure = run_job(make_job({"dataset": wrong if place == "dataset" else {"validation": wrong}})).result.failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("DigestMismatch", False)
    assert failure.message.startswith(f"{place}.uri is file://{workplace}/heldout.jsonl; the file there has sha256")


def test_a_finished_job_succeeds_again_at_once_with_the_same_result(make_job: MakeJob, run_job: RunJob) -> None:
    job = make_job({"training": {"maxSteps": 2}})
    first = run_job(job)
    written = (first.output / "model" / "model.safetensors").stat().st_mtime_ns

    second = run_job(job)

    assert second.result == first.result
    assert (first.output / "model" / "model.safetensors").stat().st_mtime_ns == written


def test_a_finished_model_is_not_overwritten_by_another_job(make_job: MakeJob, run_job: RunJob) -> None:
    run_job(make_job({"training": {"maxSteps": 2}}))

    failure = run_job(make_job({"training": {"maxSteps": 2, "seed": 4}})).result.failure

    assert failure is not None
    assert (failure.reason, failure.retryable) == ("ConfigInvalid", False)
    assert "training.seed: 3, now 4" in failure.message
    assert "output.uri" in failure.message


def test_checkpoints_of_other_settings_or_data_are_refused(
    make_job: MakeJob, run_job: RunJob, workplace: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text((workplace / "train.jsonl").read_text())
    usual = {"dataset": {"uri": f"file://{data}"}}
    run_job(make_job(usual), prepare=kill_after_step(3))

    settings = run_job(make_job(usual | {"training": {"learningRate": 0.02}})).result.failure
    data.write_text("".join(data.read_text().splitlines(keepends=True)[:-1]))
    records = run_job(make_job(usual)).result.failure

    assert settings is not None
    assert "training.learningRate: 0.01, now 0.02" in settings.message
    assert records is not None
    assert "the data has changed" in records.message
    assert {one.retryable for one in (settings, records)} == {False}


def test_a_checkpoint_that_was_cut_off_is_passed_over(
    make_job: MakeJob, run_job: RunJob, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = run_job(make_job(output="whole"))
    job = make_job(output="cut")
    run = run_job(job, prepare=kill_after_step(5))
    newest = run.output / "checkpoints" / "step-4"
    cut = next((newest / "engine").glob("*optim_states.pt"))
    cut.write_bytes(cut.read_bytes()[:-100])
    capfd.readouterr()

    resumed = run_job(job)

    log = capfd.readouterr().out
    assert f"Checkpoint step-4 is passed over: {cut.name} has" in log
    assert "Going on from checkpoint step-2." in log
    assert resumed.lines == whole.lines


def test_training_ends_early_when_held_out_loss_stops_improving(make_job: MakeJob, run_job: RunJob) -> None:
    # With so high a learning rate the held-out loss cannot keep falling.
    training = {
        "maxSteps": 40,
        "learningRate": 0.5,
        "evaluateEverySteps": 1,
        "epochs": 99,
        "earlyStopping": {"patience": 2},
    }

    run = run_job(make_job({"training": training, "checkpoint": {"everySteps": 50}}))

    losses = [line["eval_loss"] for line in run.lines if "eval_loss" in line]
    assert run.result.outcome == "succeeded"
    assert run.result.step == len(losses) < 40
    assert min(losses[-2:]) >= min(losses[:-2])


def test_a_loss_that_is_not_finite_ends_the_job_before_it_is_saved(make_job: MakeJob, run_job: RunJob) -> None:
    def poison(_rank: int) -> None:
        import alidade_trainer.loop as loop

        summed_loss, calls = loop.summed_loss, iter(range(1000))

        def summed(*arguments: Any, **options: Any) -> torch.Tensor:
            loss = summed_loss(*arguments, **options)
            return loss * math.nan if next(calls) >= 6 else loss  # two passes a step: in step 4

        loop.summed_loss = summed

    run = run_job(make_job({"dataset": {"validation": None}}), prepare=poison)

    failure = run.result.failure
    assert failure is not None
    assert (failure.reason, failure.retryable) == ("LossNotFinite", False)
    assert "step 4" in failure.message
    assert "training.learningRate" in failure.message
    assert [path.name for path in (run.output / "checkpoints").iterdir()] == ["step-2"]


@pytest.mark.parametrize(
    ("over", "processes", "sentence"),
    [
        ({"training": {"globalBatchSize": 7}}, 2, "training.globalBatchSize is 7; it must be a multiple of the 2"),
        ({"training": {"microBatchSize": 3}}, 1, "training.microBatchSize is 3 and must divide that. Use 2."),
        ({"model": {"uri": "file:///nowhere/at/all"}}, 1, "/nowhere/at/all, which does not exist"),
        ({"adapter": {"type": "qlora"}, "deepspeed": {"zeroStage": 3}}, 1, "use deepspeed.zeroStage 0 to 2."),
        ({"adapter": {"type": "lora", "targetModules": ["nothing"]}}, 1, "endings of these: down_proj, gate_proj"),
        ({"deepspeed": {"config": {"train_batch_size": 4}}}, 1, "which training.globalBatchSize decides"),
        ({"deepspeed": {"zeroStage": 2, "offload": "all"}}, 1, "Set zeroStage 3, or offload optimizer."),
        ({"model": {"digest": "sha256:0"}}, 1, "the job was made for sha256:0"),
    ],
)
def test_what_cannot_be_done_is_refused_with_field_value_and_advice(
    make_job: MakeJob, run_job: RunJob, over: dict[str, Any], processes: int, sentence: str
) -> None:
    run = run_job(make_job(over), processes=processes)

    for outcome in run.outcomes:
        assert outcome.result.failure is not None
        assert sentence in outcome.result.failure.message
        assert not outcome.result.failure.retryable
    assert len(run.outcomes) == processes
