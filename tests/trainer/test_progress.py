"""Progress, its endpoint, and the metrics it exports."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from alidade_crds.contract import ProgressDocument
from alidade_crds.metric_names import TrainerMetric
from alidade_trainer.progress import GpuMeter, Progress, StepMetrics
from alidade_trainer.progress_server import ProgressServer


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def server(progress: Progress) -> Iterator[ProgressServer]:
    server = ProgressServer(progress, host="127.0.0.1", port=0)
    yield server
    server.close()


def get(server: ProgressServer, path: str) -> str:
    with urllib.request.urlopen(server.url + path, timeout=60) as answer:
        return answer.read().decode()


def step(number: int, *, seconds: float = 0.5) -> StepMetrics:
    return StepMetrics(number, number / 4, 5.0 - number, 1e-3, 1.5, tokens=100, seconds=seconds)


def test_progress_is_answered_from_the_very_start(server: ProgressServer) -> None:
    document = ProgressDocument.model_validate_json(get(server, "/progress"))

    assert (document.state, document.step, document.total_steps, document.loss) == ("starting", 0, 0, None)
    assert get(server, "/healthz") == "ok\n"


def test_progress_tells_step_loss_speed_and_time_left(progress: Progress, server: ProgressServer) -> None:
    progress.enter("training")
    progress.plan(total_steps=8, resumed_from_step=None)
    progress.record_step(step(1, seconds=1.5))
    progress.record_step(step(2, seconds=0.5))
    progress.record_evaluation(3.25, {})

    document = json.loads(get(server, "/progress"))

    assert document["state"] == "training"
    assert (document["step"], document["totalSteps"], document["epoch"]) == (2, 8, 0.5)
    assert document["loss"] == 3.5  # the mean of 4 and 3
    assert document["evalLoss"] == 3.25
    assert document["tokensPerSecond"] == 100.0  # 200 tokens in 2 seconds
    assert document["etaS"] == 6.0  # 6 steps of one second each


def test_a_resumed_attempt_tells_where_it_started(progress: Progress) -> None:
    progress.plan(total_steps=8, resumed_from_step=4)

    document = progress.to_document()

    assert (document.step, document.resumed_from_step) == (4, 4)


def test_every_metric_of_the_list_is_exported_and_no_other(progress: Progress, server: ProgressServer) -> None:
    progress.plan(
        total_steps=8, resumed_from_step=None, gpu_meter=GpuMeter(flops_per_token=6e9, peak_tflops=1.2, gpus=1)
    )
    progress.record_step(replace(step(1), losses={"qa": 2.0, "web": 4.0}), noise_scale=12.0)
    progress.record_step(replace(step(1), losses={"qa": 1.0}, tokens=0, seconds=0.0), noise_scale=12.0)
    server.observe_step(step(1))
    progress.record_evaluation(3.0, {"qa": 2.5, "web": 3.5})
    progress.record_checkpoint(1)
    progress.record_iteration("1-raft", 1, 8, {"reward": 0.5})

    families = {family.name: family for family in text_string_to_metric_families(get(server, "/metrics"))}

    # The parser leaves "_total" out of a counter's name; a histogram's "created" gauge is the library's own.
    wanted = {metric.value.removesuffix("_total") for metric in TrainerMetric}
    assert {name for name in families if not name.endswith("_created")} == wanted
    assert families["alidade_trainer_mfu_ratio"].samples[0].value == pytest.approx(200 * 6e9 / 1.2e12)
    assert families["alidade_trainer_tokens"].samples[0].value == 100
    losses = {one.labels["dataset"]: one.value for one in families["alidade_trainer_dataset_loss"].samples}
    assert losses == {"qa": 1.5, "web": 4.0}
    held_out = {one.labels["dataset"]: one.value for one in families["alidade_trainer_dataset_eval_loss"].samples}
    assert held_out == {"qa": 2.5, "web": 3.5}
    reward = families["alidade_trainer_alignment"].samples[0]
    assert (reward.labels, reward.value) == ({"step": "1-raft", "metric": "reward"}, 0.5)
    memory = {sample.labels["kind"]: sample.value for sample in families["alidade_trainer_memory_bytes"].samples}
    assert memory["resident"] > 10 * 2**20


def test_metrics_without_a_value_are_left_out(server: ProgressServer) -> None:
    assert "alidade_trainer_eval_loss " not in get(server, "/metrics")


def test_other_paths_are_not_found(server: ProgressServer) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404") as refused:
        get(server, "/etc/passwd")
    refused.value.close()
