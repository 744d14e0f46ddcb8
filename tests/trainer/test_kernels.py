"""How a model computes: what this device or image cannot do is said before a model is loaded."""

import sys
from types import ModuleType
from typing import Any

import pytest
from torch.utils import cpp_extension
from transformers import LlamaConfig, LlamaForCausalLM

import alidade_trainer.kernels as kernels
from alidade_crds.blocks import Kernels, Training
from alidade_crds.contract import JobDocument
from alidade_trainer.failures import JobFailure
from alidade_trainer.kernels import compile_engine, fuse, keep_few_activations, recomputed_layers, refuse_unavailable


def document(stage: str = "sft", **over: Any) -> JobDocument:
    job = {
        "owner": {"kind": "FineTuneJob", "namespace": "team", "name": "tiny", "uid": "0"},
        "stage": stage,
        "model": {"uri": "file:///base"},
        "dataset": {"uri": "file:///data"},
        "output": "file:///out",
    }
    return JobDocument.model_validate(job | over)


QUANTIZED = {"deepspeed": {"zeroStage": 3, "zeroPlusPlus": {"quantizedWeights": True}}}


@pytest.mark.parametrize(
    ("over", "on_gpu", "said"),
    [
        (
            {"training": {"attention": "flash_attention_2"}},
            False,
            "training.attention is flash_attention_2; this process has no GPU",
        ),
        (
            {"training": {"attention": "flash_attention_2"}},
            True,
            "training.attention is flash_attention_2; the image lacks the package flash-attn;",
        ),
        ({"training": {"attention": "flash_attention_3", "precision": "fp32"}}, True, "it computes in 16 bits only"),
        ({"training": {"kernels": "liger"}}, False, "training.kernels is liger; this process has no GPU"),
        (
            {"training": {"kernels": "liger"}},
            True,
            "training.kernels is liger; the image lacks the package liger-kernel",
        ),
        ({"training": {"offloadActivations": True}}, False, "training.offloadActivations is true; this process has no"),
        (QUANTIZED, False, "deepspeed.zeroPlusPlus is quantizing; this process has no GPU"),
        (QUANTIZED, True, "has neither DeepSpeed's quantizer built in nor a CUDA toolkit"),
        ({"deepspeed": {"zeroStage": 2, "zeroPlusPlus": {"partitionSize": 2}}}, True, "deepspeed.zeroStage is 2"),
        (
            {"deepspeed": {"zeroStage": 3, "zeroPlusPlus": {"partitionSize": 4}}},
            True,
            "deepspeed.zeroPlusPlus.partitionSize is 4; it must divide the 2 training processes",
        ),
        ({"training": {"compile": True}, "deepspeed": {"zeroStage": 3}}, True, "use deepspeed.zeroStage 0 to 2"),
        ({"training": {"compile": True}}, False, "training.compile is true; the image has no C++ compiler"),
        ({"training": {"compile": True}, "stage": "align"}, True, "an alignment draws its answers from the weights"),
    ],
)
def test_what_the_device_or_the_image_cannot_do_is_refused_with_advice(
    monkeypatch: pytest.MonkeyPatch, over: dict[str, Any], on_gpu: bool, said: str
) -> None:
    has_compiler = over.get("stage") == "align"
    monkeypatch.setattr(kernels.shutil, "which", lambda _name: "/usr/bin/g++" if has_compiler else None)
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)

    with pytest.raises(JobFailure) as refused:
        refuse_unavailable(document(**over), on_gpu=on_gpu, processes=2)

    assert said in refused.value.message
    assert not refused.value.retryable


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"training": {"attention": "sdpa", "checkpointEveryLayers": 2}},
        {"deepspeed": {"zeroStage": 3, "offload": "all", "zeroPlusPlus": {"partitionSize": 2}}},
    ],
)
def test_what_a_cpu_can_do_is_let_in(over: dict[str, Any]) -> None:
    refuse_unavailable(document(**over), on_gpu=False, processes=4)


def tiny_llama() -> LlamaForCausalLM:
    """Of five blocks."""
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=5, num_attention_heads=1)
    )


@pytest.mark.parametrize(("every", "recomputed"), [(1, 5), (2, 3), (3, 2), (9, 1)])
def test_one_block_of_so_many_is_computed_again(every: int, recomputed: int) -> None:
    model = tiny_llama()
    training = Training(checkpoint_every_layers=every)

    keep_few_activations(model, training)

    assert sum(layer.gradient_checkpointing for layer in model.model.layers) == recomputed
    assert recomputed_layers(training, 5) == recomputed
    assert recomputed_layers(Training(gradient_checkpointing=False), 5) == 0


def test_an_engine_is_compiled_where_the_job_asks_for_it() -> None:
    class Engine:
        backends: list[str] = []

        def compile(self, *, backend: str) -> None:
            self.backends.append(backend)

    compile_engine(Engine(), Training())
    assert Engine.backends == []
    compile_engine(Engine(), Training(compile=True))
    assert Engine.backends == ["inductor"]


def test_a_family_without_fused_kernels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    # The package is for GPUs; of it only its list of families is asked.
    listed = ModuleType("liger_kernel.transformers.monkey_patch")
    listed.MODEL_TYPE_TO_APPLY_LIGER_FN = {"qwen3": None, "mistral": None}  # type: ignore[attr-defined]
    for name, module in (
        ("liger_kernel", ModuleType("liger_kernel")),
        ("liger_kernel.transformers", ModuleType("liger_kernel.transformers")),
        ("liger_kernel.transformers.monkey_patch", listed),
    ):
        monkeypatch.setitem(sys.modules, name, module)

    with pytest.raises(JobFailure) as refused:
        fuse(tiny_llama(), Training(kernels=Kernels.LIGER))

    assert "the model's type is llama, for which it has no kernels (it has them for mistral, qwen3)" in str(
        refused.value.message
    )
    fuse(tiny_llama(), Training())
