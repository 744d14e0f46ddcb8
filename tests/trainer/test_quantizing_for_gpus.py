"""GPTQ, AWQ, FP8 and NF4: what is told without the libraries, and what comes out with them."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from alidade_crds.blocks import ModelInit
from alidade_crds.contract import QuantizationDocument, ResultDocument
from alidade_crds.modelserve import QuantizationMethod, QuantizationReport
from alidade_engine.digests import model_digest
from alidade_engine.failures import JobFailure
from alidade_engine.models import init_model, load_tokenizer, train_tokenizer
from alidade_engine.sources import Locations
from alidade_trainer.quantizing.compressed import CompressedFolder, group_size
from alidade_trainer.quantizing.gguf_file import GgufFile
from alidade_trainer.quantizing.job import quantize
from alidade_trainer.quantizing.methods import method_of
from alidade_trainer.quantizing.normal_float import NormalFloatFolder
from alidade_trainer.quantizing.perplexity import calibration_of, measure_of

CORPUS = [f"{n} rivers run to the sea, and {n + 1} roads lead away from it." for n in range(24)]
PACKAGES = {"gptq": "llmcompressor", "awq": "llmcompressor", "fp8": "llmcompressor", "nf4": "bitsandbytes"}


def needs(method: str) -> pytest.MarkDecorator:
    package = PACKAGES[method]
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed; see docs/how-to/quantize.md")


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A claim `models` with a model whose rows the common group size divides, and records."""
    folder = tmp_path_factory.mktemp("volumes")
    tokenizer = train_tokenizer(CORPUS, 400)
    torch.manual_seed(0)
    init = ModelInit(
        hidden_size=256, layers=2, heads=4, kv_heads=2, vocab_size=400, intermediate_size=768, context_length=128
    )
    model = init_model(init, tokenizer)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3)
    model.save_pretrained(folder / "models" / "wide")
    tokenizer.save_pretrained(folder / "models" / "wide")
    records = "".join(json.dumps({"text": text}) + "\n" for text in CORPUS)
    (folder / "models" / "records.jsonl").write_text(records)
    (folder / "models" / "one.jsonl").write_text(json.dumps({"text": CORPUS[0]}) + "\n")
    (folder / "out").mkdir()
    return folder


@pytest.fixture
def locations(volumes: Path, tmp_path: Path) -> Locations:
    return Locations(volumes, tmp_path)


def document(method: str, **fields: Any) -> QuantizationDocument:
    content = {
        "owner": {"kind": "ModelServe", "namespace": "team-a", "name": "chat", "uid": "u"},
        "model": {"uri": "pvc://models/wide"},
        "method": method,
        "texts": "pvc://models/records.jsonl",
        "output": f"pvc://out/{method}",
    }
    return QuantizationDocument.model_validate(content | fields)


def report(result: ResultDocument) -> QuantizationReport:
    assert result.quantization is not None
    return result.quantization


# Without the libraries


def test_every_method_has_its_quantizer() -> None:
    assert isinstance(method_of(document("gguf", type="q4_0")), GgufFile)
    assert isinstance(method_of(document("int8", type="q8_0")), GgufFile)
    assert isinstance(method_of(document("nf4")), NormalFloatFolder)
    for name in ("gptq", "awq", "fp8"):
        assert method_of(document(name)) == CompressedFolder(QuantizationMethod(name))
    with pytest.raises(JobFailure, match="'exl2'; write one of gguf, int8, int4, gptq, awq, fp8, nf4"):
        method_of(document("exl2"))
    with pytest.raises(JobFailure, match="no type is given"):
        method_of(document("gguf"))


def test_only_gptq_and_awq_look_at_texts() -> None:
    calibrated = {name for name in PACKAGES if method_of(document(name)).calibrates}
    assert calibrated == {"gptq", "awq"}


@pytest.mark.parametrize("method", sorted(PACKAGES))
def test_an_image_without_the_library_says_which_one_has_it(
    method: str, locations: Locations, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == PACKAGES[method] else find(name, *rest)
    )
    with pytest.raises(JobFailure, match=f"is {method}, and this image has no {PACKAGES[method]}.*quantizationImage"):
        quantize(document(method, output=f"pvc://out/{method}-missing"), locations)


def test_what_calibrates_is_not_what_is_measured(locations: Locations, volumes: Path) -> None:
    tokenizer = load_tokenizer(volumes / "models" / "wide")
    asked = document("gptq", samples=11)
    calibrating = calibration_of(asked, tokenizer, locations, 128)
    measured = measure_of(asked, tokenizer, locations, 128, calibrated=True).windows
    seen = {tuple(ids) for ids in calibrating}
    held_out = {tuple(one.input_ids) for one in measured}
    everything = {tuple(one.input_ids) for one in measure_of(asked, tokenizer, locations, 128).windows}
    assert (len(seen), len(held_out)) == (6, 5)
    assert not seen & held_out
    assert seen | held_out == everything
    assert calibrating == calibration_of(asked, tokenizer, locations, 128), "the same records each time"


def test_one_record_cannot_both_calibrate_and_measure(locations: Locations, volumes: Path) -> None:
    tokenizer = load_tokenizer(volumes / "models" / "wide")
    with pytest.raises(JobFailure, match="has 1 records; give it 2 or more") as failure:
        calibration_of(document("gptq", texts="pvc://models/one.jsonl"), tokenizer, locations, 128)
    assert failure.value.reason == "DataEmpty"


@pytest.mark.parametrize(
    ("columns", "size"), [((256, 768), 128), ((192, 64), 64), ((96, 64), 32), ((256, 688), None), ((40,), None)]
)
def test_a_group_is_as_large_as_every_layer_allows(columns: tuple[int, ...], size: int | None) -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([nn.Linear(count, 8) for count in columns])
    model.lm_head = nn.Linear(7, 8)
    assert group_size(model) == size


# With them


@pytest.fixture(params=[pytest.param(name, marks=needs(name)) for name in sorted(PACKAGES)])
def method(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


# The libraries' own; transformers 5.23 is newer than what llm-compressor 0.14 was written for.
@pytest.mark.filterwarnings("ignore")
def test_a_model_is_written_measured_and_the_same_each_time(method: str, locations: Locations, volumes: Path) -> None:
    one = report(quantize(document(method), locations))
    folder = volumes / "out" / method / "model"
    assert one.uri == f"pvc://out/{method}/model"
    assert one.sha256 == model_digest(folder).removeprefix("sha256:")
    assert one.size_bytes == sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert one.size_bytes_before is not None
    # Of 32 bits; embeddings and scales keep theirs.
    assert one.size_bytes < one.size_bytes_before * (0.45 if method == "fp8" else 0.3)
    assert one.increase is not None
    assert 0 < abs(one.increase) < 0.5
    assert one.measured_on is not None
    assert one.measured_on.endswith("weights decoded to 16 bit, as served")
    assert ("those that did not calibrate" in one.measured_on) == (method in ("gptq", "awq"))
    other = report(quantize(document(method, output=f"pvc://out/{method}-again"), locations))
    assert (other.sha256, other.perplexity_after) == (one.sha256, one.perplexity_after)


@pytest.mark.filterwarnings("ignore")
def test_a_complete_folder_is_told_again_and_a_damaged_one_is_made_anew(
    method: str, locations: Locations, volumes: Path
) -> None:
    asked = document(method, output=f"pvc://out/{method}-twice")
    first = report(quantize(asked, locations))
    weights = volumes / "out" / f"{method}-twice" / "model" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert report(quantize(asked, locations)) == first
    assert weights.stat().st_mtime_ns == written
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0\0")
    assert report(quantize(asked, locations)).sha256 == first.sha256


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param("gptq", marks=needs("gptq"))])
def test_rows_that_no_group_divides_have_one_scale_each(name: str, locations: Locations, volumes: Path) -> None:
    tokenizer = load_tokenizer(volumes / "models" / "wide")
    init = ModelInit(hidden_size=256, layers=1, heads=4, vocab_size=400, intermediate_size=688, context_length=128)
    init_model(init, tokenizer).save_pretrained(volumes / "models" / "odd")
    tokenizer.save_pretrained(volumes / "models" / "odd")
    quantize(document(name, model={"uri": "pvc://models/odd"}, output="pvc://out/odd"), locations)
    config = json.loads((volumes / "out" / "odd" / "model" / "config.json").read_text())
    weights = config["quantization_config"]["config_groups"]["group_0"]["weights"]
    assert (weights["strategy"], weights["num_bits"], weights["symmetric"]) == ("channel", 4, True)
