"""GPUs are found by nvidia-smi and given to one container each."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from alidade_local.kubelet.gpus import Gpu, GpuPool, find_gpus, gpu_labels, gpu_shares
from alidade_local.operator_process import operator_config
from alidade_operator.config import OperatorConfig

A, B = Gpu("GPU-a", "NVIDIA H100 80GB HBM3", 81559), Gpu("GPU-b", "NVIDIA H100 80GB HBM3", 81559)
SHARES_MEMORY = Gpu("GPU-a", "NVIDIA GB10", 0)


def container(name: str, gpus: int = 0, **more: Any) -> dict[str, Any]:
    limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
    return {"name": name, "resources": {"limits": limits}, **more}


def pod(*containers: dict[str, Any], init: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"spec": {"initContainers": list(init), "containers": list(containers)}}


@pytest.mark.parametrize(
    ("script", "found", "said"),
    [
        ("echo 'GPU-a, NVIDIA H100 80GB HBM3, 81559'; echo 'GPU-b, NVIDIA H100 80GB HBM3, 81559'", (A, B), ""),
        ('echo "couldn\'t communicate with the NVIDIA driver"; exit 9', (), "couldn't communicate"),
        ("echo 'GPU-a, NVIDIA H100'", (), "no GPUs are offered"),
        ("echo 'GPU-a, NVIDIA GB10, [N/A]'", (SHARES_MEMORY,), ""),
        ("", (), ""),
        (None, (), ""),
    ],
)
def test_gpus_are_those_that_nvidia_smi_lists(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    script: str | None,
    found: tuple[Gpu, ...],
    said: str,
) -> None:
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        assert find_gpus() == found
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


def test_init_containers_lend_their_gpus_and_sidecars_keep_them() -> None:
    inits = (container("first", 3), container("side", 1, restartPolicy="Always"), container("second", 2))
    shares = gpu_shares(pod(container("main", 1), container("cpu"), init=inits))
    assert shares == {
        "first": range(3),
        "side": range(1),
        "second": range(1, 3),
        "main": range(1, 2),
        "cpu": range(2, 2),
    }


def test_containers_see_their_own_gpus_only() -> None:
    pool = GpuPool([A, B])
    both = pod(container("one", 1), container("other", 1), container("none"))
    assert pool.take(both, "uid-1") == ""
    seen = [pool.environment(both, one, "uid-1") for one in both["spec"]["containers"]]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in seen] == ["GPU-a", "GPU-b", ""]
    assert seen[2]["NVIDIA_VISIBLE_DEVICES"] == "void"
    refusal = pool.take(pod(container("late", 1)), "uid-2")
    assert "Requested: 1, Available: 0" in refusal
    pool.release("uid-1")
    assert pool.take(pod(container("late", 1)), "uid-2") == ""


def test_a_machine_without_gpus_says_nothing_about_them() -> None:
    alone = pod(container("main"))
    pool = GpuPool([])
    assert pool.take(alone, "uid") == ""
    assert pool.environment(alone, alone["spec"]["containers"][0], "uid") == {}
    assert gpu_labels([]) == {}


def test_the_operator_gets_a_pool_of_the_gpus_beside_the_one_without() -> None:
    assert [pool.name for pool in OperatorConfig.model_validate(operator_config(())).node_pools] == ["local"]
    cpu, gpu = OperatorConfig.model_validate(operator_config((A, B))).node_pools
    assert (cpu.name, cpu.gpus_per_node) == ("local", 0)
    assert (gpu.name, gpu.gpus_per_node, gpu.gpu_memory_gib) == ("local-gpu", 2, 79.6)
    shares = OperatorConfig.model_validate(operator_config((SHARES_MEMORY,))).node_pools[1]
    assert (shares.gpus_per_node, shares.gpu_memory_gib) == (1, None)
