"""What is measured: each case on each engine in a process of its own, which answers with numbers."""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.gpu.shapes import SHAPES, TINY, TOKENS_FILE, Shape, make_model

SFT_STEPS = 10
ITERATIONS = 3
SERVE_STREAMS = 8
SERVE_PROMPT = 64
"""Tokens of a prompt."""
SERVED_TYPE = "q4_k_m"
BYTES_OF_A_TRAINED_WEIGHT = 18
"""Weight and gradient in bf16, and weight, gradient and AdamW's two moments in fp32, less what is short-lived."""
BYTES_OF_A_FROZEN_WEIGHT = 2


class Skipped(Exception):  # noqa: N818  # it is no error
    """Why a case is not measured here."""


@dataclass(frozen=True)
class Case:
    """One row of the table. group: what --cases names. engine: who does it, ours first."""

    group: str
    engine: str
    shape: str
    lora: bool = False
    load: str = ""
    """Of sampling: ragged or full."""

    @property
    def kind(self) -> str:
        """sft, sample, raft, ppo or serve."""
        return self.group.partition("-")[0]


@dataclass(frozen=True)
class Place:
    """Where it is measured. folder: of all models."""

    folder: Path
    small: bool
    on_gpu: bool
    memory_gib: float

    def shape(self, case: Case) -> Shape:
        """The case's shape, or a tiny one that stands for it."""
        return (TINY if self.small else SHAPES)[case.shape]

    def model_folder(self, case: Case) -> Path:
        """Of its model and data."""
        return self.folder / ("tiny" if self.small else case.shape)


def _sft(shape: str, *, lora: bool) -> list[Case]:
    group = f"sft-{shape}-{'lora' if lora else 'full'}"
    return [Case(group, engine, shape, lora=lora) for engine in ("alidade", "trl")]


def _sample(load: str) -> list[Case]:
    return [Case(f"sample-{load}", engine, "1.5b", load=load) for engine in ("alidade", "generate")]


CASES = [
    *_sft("1.5b", lora=False),
    *_sft("7b", lora=True),
    Case("raft-0.5b", "alidade", "0.5b"),
    *[Case("ppo-0.5b", engine, "0.5b") for engine in ("alidade", "rloo")],
    *_sample("ragged"),
    *_sample("full"),
    *_sft("0.5b", lora=False),
    *_sft("1.5b", lora=True),
    *[Case("serve-1.5b", engine, "1.5b") for engine in ("llama.cpp", "generate")],
    *_sft("7b", lora=False),
]
"""In the order in which they run: what matters most comes first, should the time not suffice."""


def prepare(case: Case, place: Place) -> None:
    """Makes the case's model and data, unless they are there. Raises Skipped for a case that cannot be measured."""
    _refuse_too_large(case, place)
    make_model(place.shape(case), place.model_folder(case), on_gpu=place.on_gpu)


def is_prepared(case: Case, place: Place) -> bool:
    """Whether the case's model and data are there."""
    return (place.model_folder(case) / TOKENS_FILE).is_file()


def measure(case: Case, place: Place) -> dict[str, float]:
    """The numbers of a prepared case, measured in this process. Raises Skipped, and what its engine raises."""
    _refuse_too_large(case, place)
    kinds = {"sft": _measure_sft, "sample": _measure_sampling, "serve": _measure_serving}
    return kinds.get(case.kind, _measure_alignment)(case, place)


def _refuse_too_large(case: Case, place: Place) -> None:
    if not place.on_gpu or case.kind != "sft":
        return
    billions = float(case.shape.removesuffix("b"))
    needed = billions * 1e9 * (BYTES_OF_A_FROZEN_WEIGHT if case.lora else BYTES_OF_A_TRAINED_WEIGHT) / 2**30
    if needed > place.memory_gib:
        raise Skipped(f"weights and AdamW need {needed:.0f} GiB; the GPU has {place.memory_gib:.0f}")


def _measure_sft(case: Case, place: Place) -> dict[str, float]:
    from alidade_trainer.progress import flops_per_token
    from bench import sft

    shape, folder = place.shape(case), place.model_folder(case)
    setting = sft.Setting(
        case.engine,
        case.lora,
        True,
        SFT_STEPS,
        shape.batch,
        shape.micro_batch,
        folder=str(folder),
        max_length=shape.max_length,
        on_gpu=place.on_gpu,
        to_the_model=False,
    )
    found = sft.CHILDREN[case.engine](setting)
    tokens = json.loads((folder / TOKENS_FILE).read_text())
    flops = flops_per_token(
        weights=tokens["weights"],
        layers=shape.init["layers"],
        width=shape.init["hiddenSize"],
        length=tokens["attended"],
        with_adapter=case.lora,
    )
    return {"tokensPerSecond": found["tokensPerSecond"], "tflops": found["tokensPerSecond"] * flops / 1e12}


def _measure_alignment(case: Case, place: Place) -> dict[str, float]:
    from bench import ppo_rloo

    trainer = case.kind if case.engine == "alidade" else case.engine
    large = {"rollout": 256, "mini_batch": 64, "micro_batch": 16}
    sizes = {"rollout": 16, "mini_batch": 8, "micro_batch": 4} if place.small else large
    setting = ppo_rloo.Setting(
        "speed",
        trainer,
        learning_rate=1e-6,
        seed=0,
        iterations=ITERATIONS,
        epochs=1,
        max_new_tokens=16 if place.small else 128,
        kl_coefficient=0.01,
        folder=str(place.model_folder(case)),
        max_length=place.shape(case).max_length,
        on_gpu=place.on_gpu,
        to_the_model=False,
        **sizes,
    )
    seconds = ppo_rloo.train(setting)["seconds"]
    return {"secondsPerIteration": seconds / ITERATIONS, "samplesPerSecond": ITERATIONS * sizes["rollout"] / seconds}


def _measure_sampling(case: Case, place: Place) -> dict[str, float]:
    from bench.sampling import Bench

    slots = 8 if place.small else 64
    options = argparse.Namespace(prompts=slots // 2, samples=4, slots=slots, threads=_threads())
    bench = Bench(options, _load(place.model_folder(case), place))
    bench.run(_sampler(case), "full", 0)  # the first kernels are loaded now
    found = bench.run(_sampler(case), case.load, 1)
    return {"tokensPerSecond": found["tokens"] / found["clock_s"]}


def _sampler(case: Case) -> str:
    return "alidade" if case.engine == "alidade" else "dynamic"


def _load(folder: Path, place: Place) -> Any:
    import torch

    from alidade_engine.models import load_model

    dtype, device = (torch.bfloat16, "cuda") if place.on_gpu else (torch.float32, "cpu")
    return load_model(folder / "start/model", dtype=dtype).to(device).eval()


def _measure_serving(case: Case, place: Place) -> dict[str, float]:
    tokens, folder = 16 if place.small else 128, place.model_folder(case)
    ask = _llama_cpp(folder, place) if case.engine == "llama.cpp" else _generating(folder, place)
    ask(8)  # the first kernels are loaded now
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        ask(tokens)
        seconds.append(time.perf_counter() - begun)
    return {"tokensPerSecond": SERVE_STREAMS * tokens / statistics.median(seconds)}


def _prompts(rows: int) -> list[list[int]]:
    """Tokens without a meaning, different in every stream."""
    import random

    draw = random.Random(0)
    return [[draw.randrange(10, rows) for _ in range(SERVE_PROMPT)] for _ in range(SERVE_STREAMS)]


def _llama_cpp(folder: Path, place: Place) -> Callable[[int], None]:
    """llama.cpp in this process: so many streams at once, each of so many tokens. Raises Skipped without its GPU."""
    os.environ |= {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0"}
    import xllamacpp

    from alidade_engine.gguf.writing import write_gguf

    devices = [device["name"] for device in xllamacpp.get_device_info()]
    if place.on_gpu and devices == ["CPU"]:
        raise Skipped("not installed: xllamacpp is there for processors only, without CUDA")
    file = folder / f"{SERVED_TYPE}.gguf"
    if not file.is_file():
        write_gguf(folder / "start/model", file, SERVED_TYPE)
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_parallel = SERVE_STREAMS
    params.n_ctx = SERVE_STREAMS * 256
    params.n_gpu_layers = 999 if place.on_gpu else 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _threads()
    params.cache_ram_mib = 0
    params.verbosity = -1
    server = xllamacpp.Server(params)
    prompts = _prompts(300)

    def ask(tokens: int) -> None:
        settings = {"n_predict": tokens, "ignore_eos": True, "temperature": 0, "cache_prompt": False}
        with ThreadPoolExecutor(SERVE_STREAMS) as pool:
            for answer in pool.map(lambda ids: server.handle_completions({"prompt": ids, **settings}), prompts):
                if answer["usage"]["completion_tokens"] != tokens:
                    raise RuntimeError(f"llama.cpp was asked for {tokens} tokens and answered {answer['usage']}")

    return ask


def _generating(folder: Path, place: Place) -> Callable[[int], None]:
    """Hugging Face generate with the weights as they are: one batch of so many streams."""
    import torch

    model = _load(folder, place)
    ids = torch.tensor(_prompts(300), device=model.device)

    def ask(tokens: int) -> None:
        limits = {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
        model.generate(ids, attention_mask=torch.ones_like(ids), **limits)

    return ask


def _threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "1"))
