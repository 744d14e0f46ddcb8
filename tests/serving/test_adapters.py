"""LoRA adapters asked for by name: each answers as PEFT does, also when others answer at the same time."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from alidade_engine.failures import JobFailure
from alidade_engine.gguf.adapters import write_adapter
from tests.serving.running import Server

# PEFT asks transformers by a name that it is about to give up.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PROMPT = "What is the capital of France?"
TOKENS = 6
"""Few, so that keys and values in half precision do not change the likeliest token."""


def save_adapter(base: Path, folder: Path, seed: int, **options: object) -> None:
    """Random matrices as large as the weights, so that no two adapters answer alike."""
    torch.manual_seed(seed)
    settings = LoraConfig(r=4, lora_alpha=16, init_lora_weights=False, target_modules="all-linear", **options)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings).save_pretrained(folder)


def greedy(base: Path, adapter: Path | None) -> str:
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    inputs = tokenizer(PROMPT, return_tensors="pt", return_token_type_ids=False)
    answer = model.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)
    text: str = tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :])
    return text


def test_each_name_answers_with_its_own_weights(
    start: Callable[..., Server], model_folder: Path, tmp_path: Path
) -> None:
    save_adapter(model_folder, tmp_path / "plain", 1)
    save_adapter(model_folder, tmp_path / "stabilised", 2, use_rslora=True)
    named = {None: None, "plain": tmp_path / "plain", "stabilised": tmp_path / "stabilised"}
    adapters = f"plain={tmp_path / 'plain'},stabilised={tmp_path / 'stabilised'}"
    server = start(adapters=adapters, quantization="f32", slots=3)
    expected = {name: greedy(model_folder, folder) for name, folder in named.items()}
    assert len(set(expected.values())) == 3

    def asked(name: str | None) -> str:
        text: str = server.generate(PROMPT, max_new_tokens=TOKENS, adapter_id=name)[1]["generated_text"]
        return text

    names = [None, "plain", "stabilised", None, "stabilised", "plain"] * 3
    assert [asked(name) for name in names] == [expected[name] for name in names]
    with ThreadPoolExecutor(6) as crowd:
        assert list(crowd.map(asked, names)) == [expected[name] for name in names]
    body = {"model": "plain", "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0}
    answer = server.post("/v1/completions", body)[1]
    assert (answer["model"], answer["choices"][0]["text"]) == ("plain", expected["plain"])
    assert [model["id"] for model in json.loads(server.get("/v1/models")[1])["data"]] == ["tiny", "plain", "stabilised"]
    status, refused = server.generate(PROMPT, adapter_id="other")
    assert (status, refused["error"]) == (
        422,
        "parameters.adapter_id is 'other'; adapters served beside the model: plain, stabilised.",
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_dora": True}, "uses use_dora, which cannot be added while serving; merge it"),
        ({"modules_to_save": ["embed_tokens"]}, "uses modules_to_save, which cannot be added"),
    ],
)
def test_an_adapter_that_changes_more_than_matrices_is_refused(
    options: dict[str, object], message: str, model_folder: Path, tmp_path: Path
) -> None:
    save_adapter(model_folder, tmp_path / "adapter", 1, **options)
    with pytest.raises(JobFailure, match=message):
        write_adapter(tmp_path / "adapter", model_folder, tmp_path / "adapter.gguf")


def test_a_folder_without_an_adapter_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobFailure, match="holds no LoRA adapter"):
        write_adapter(model_folder, model_folder, tmp_path / "adapter.gguf")


def test_an_adapter_of_another_context_or_vocabulary_than_its_bases_is_refused(
    model_folder: Path, tmp_path: Path
) -> None:
    save_adapter(model_folder, tmp_path / "adapter", 1)
    (tmp_path / "adapter" / "model_config.json").write_text("{}")
    with pytest.raises(JobFailure, match="uses another vocabulary or context than its base has, which cannot be added"):
        write_adapter(tmp_path / "adapter", model_folder, tmp_path / "adapter.gguf")
