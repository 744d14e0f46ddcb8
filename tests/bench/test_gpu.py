"""The benchmark for GPUs does not rot: tiny models on the CPU, operations counted by hand, failures contained."""

import argparse
import sys
import warnings
from pathlib import Path

import pytest
import torch

from alidade_crds.blocks import ModelInit
from alidade_engine.models import init_model, train_tokenizer
from alidade_trainer.progress import flops_per_token
from bench.gpu import __main__ as gpu
from bench.gpu.cases import CASES, Case, Place, prepare
from bench.gpu.hardware import Hardware, peak_tflops
from bench.gpu.shapes import MEAN_ANSWER, end_by_chance
from tests.trainer.conftest import in_child

H100 = Hardware("NVIDIA H100 80GB HBM3", on_gpu=True, memory_gib=79.6, peak_tflops=989.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("gpu"), small=True, on_gpu=False, memory_gib=0.0)


def case_of(group: str, engine: str) -> Case:
    return next(case for case in CASES if (case.group, case.engine) == (group, engine))


def measured(case: Case, place: Place) -> dict[str, float]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # as the benchmark tells its processes
    prepare(case, place)
    return gpu.outcome(case, place)


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import alidade_trainer.training  # noqa: F401  # loaded once here, inherited by every child

    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("group", "number"), [("sft-7b-lora", "tokensPerSecond"), ("raft-0.5b", "secondsPerIteration")]
)
def test_a_case_runs_a_job_of_the_trainer_and_ends_before_its_model_is_written(
    place: Place, group: str, number: str
) -> None:
    found = in_child(measured, case_of(group, "alidade"), place)

    assert found[number] > 0
    assert {model.parent.name for model in (place.folder / "tiny").glob("*/model")} == {"start"}


def test_operations_are_those_of_palm() -> None:
    # 1.5 billion weights, 28 layers of 12 heads of 128, 1,000 tokens: 6N = 9e9, 12·28·1536·1000 = 0.516e9.
    shape = {"weights": 1_500_000_000, "layers": 28, "width": 1536, "length": 1000.0}
    assert flops_per_token(**shape, with_adapter=False) == pytest.approx(9.516e9, rel=1e-3)
    assert flops_per_token(**shape, with_adapter=True) == pytest.approx(6.516e9, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10G", 70.0),
        ("NVIDIA L4", 121.0),
        ("NVIDIA L40S", 362.0),
        ("Tesla T4", None),
    ],
)
def test_a_peak_is_found_by_the_devices_name(name: str, peak: float | None) -> None:
    assert peak_tflops(name) == peak


def test_answers_of_random_weights_end_by_chance() -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["a question and an answer"], 300)
    init = ModelInit(hidden_size=64, layers=2, heads=2, vocab_size=300)
    model = init_model(init, tokenizer)
    with torch.no_grad():
        end_by_chance(model, tokenizer.eos_token_id)
        logits = model(input_ids=torch.randint(5, len(tokenizer), (4, 32))).logits
    ends = logits.softmax(-1)[..., tokenizer.eos_token_id].mean()
    assert float(ends) == pytest.approx(1 / MEAN_ANSWER, rel=0.25)


def test_a_case_that_hangs_or_breaks_is_a_row_and_not_an_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    programs = {"hangs": "sleep 60", "breaks": "echo out of luck; exit 3", "speaks": "echo '{\"tokensPerSecond\": 7}'"}
    found = {}
    for name, program in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / name).chmod(0o755)
        found[name] = gpu._run({}, 1 if name == "hangs" else 20, str(tmp_path / name))

    assert found["hangs"] == {"failed": "no end after 1 seconds"}
    assert found["breaks"]["failed"] == "exit code 3: out of luck"
    assert found["speaks"] == {"tokensPerSecond": 7}


def test_a_package_that_is_missing_is_a_row(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    assert gpu.outcome(case_of("serve-1.5b", "llama.cpp"), place) == {"skipped": "not installed: xllamacpp"}


def test_weights_that_cannot_fit_are_told_before_anything_is_loaded() -> None:
    large = Place(Path("/nowhere"), small=False, on_gpu=True, memory_gib=79.6)
    found = gpu.outcome(case_of("sft-7b-full", "alidade"), large, only_prepare=True)
    assert found == {"skipped": "weights and AdamW need 117 GiB; the GPU has 80"}


def test_nothing_is_begun_when_the_time_is_used_up() -> None:
    row = gpu._row(CASES[0], H100, argparse.Namespace(budget_s=570.0), 0.0)
    assert row["skipped"] == "the 570 seconds of --budget-s were used up"


def test_the_table_has_shares_of_the_peak_and_ratios() -> None:
    rows = [
        {"case": "sft-7b-lora", "engine": "alidade", "tokensPerSecond": 14000.0, "mfu": 0.405, "gpuGib": 41.26},
        {"case": "sft-7b-lora", "engine": "trl", "tokensPerSecond": 12500.0, "mfu": 0.362, "gpuGib": 43.0},
        {"case": "serve-1.5b", "engine": "llama.cpp", "skipped": "not installed: xllamacpp"},
    ]
    gpu._compare(rows)
    head, *_, ours, theirs, skipped = gpu.table(H100, rows).splitlines()
    assert head.startswith("NVIDIA H100 80GB HBM3, 80 GiB, 989 TFLOPS at most; torch")
    assert ours == "| sft-7b-lora | alidade | 14,000 | 40.5% |  | 41.3 | 1.12 × |"
    assert theirs == "| sft-7b-lora | trl | 12,500 | 36.2% |  | 43.0 |  |"
    assert skipped.startswith("| serve-1.5b | llama.cpp | not installed: xllamacpp |")
