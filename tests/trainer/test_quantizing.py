"""Quantization as a job: what it writes, what it measures, and what it says when it cannot."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from alidade_crds.blocks import ModelInit
from alidade_crds.contract import ExitCode, QuantizationDocument, ResultDocument
from alidade_crds.modelserve import GGUF_TYPES, QuantizationReport
from alidade_engine.digests import file_digest, model_digest
from alidade_engine.failures import JobFailure
from alidade_engine.gguf.quantization import QUANTIZATION_TYPES
from alidade_engine.models import init_model, load_model, load_tokenizer, train_tokenizer
from alidade_engine.sources import Locations
from alidade_trainer.quantizing.job import quantize, run_job

CORPUS = ["The river runs to the sea.", "Mix flour, water and salt.", "小王每天骑自行车上班。"] * 8


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A claim `models` with a model of wide weights, so that rounding them costs something, and records."""
    folder = tmp_path_factory.mktemp("volumes")
    tokenizer = train_tokenizer(CORPUS, 400)
    torch.manual_seed(0)
    init = ModelInit(hidden_size=256, layers=2, heads=4, kv_heads=2, vocab_size=400, context_length=128)
    model = init_model(init, tokenizer)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3)
    model.save_pretrained(folder / "models" / "wide")
    tokenizer.save_pretrained(folder / "models" / "wide")
    records = "".join(json.dumps({"input": text, "output": "yes"}) + "\n" for text in CORPUS)
    (folder / "models" / "records.jsonl").write_text(records)
    return folder


@pytest.fixture
def locations(volumes: Path, tmp_path: Path) -> Locations:
    """The claim, and an empty one for outputs."""
    (volumes / "out").mkdir(exist_ok=True)
    shutil.rmtree(volumes / "out")
    (volumes / "out").mkdir()
    return Locations(volumes, tmp_path)


def document(quantization: str = "q4_k_m", **fields: Any) -> QuantizationDocument:
    owner = {"kind": "ModelServe", "namespace": "team-a", "name": "chat", "uid": "u"}
    content = {
        "owner": owner,
        "model": {"uri": "pvc://models/wide"},
        "method": "gguf",
        "type": quantization,
        "output": f"pvc://out/{quantization}",
    }
    return QuantizationDocument.model_validate(content | fields)


def report(result: ResultDocument) -> QuantizationReport:
    assert result.quantization is not None
    return result.quantization


def test_the_operator_knows_every_type_that_can_be_written() -> None:
    assert GGUF_TYPES == QUANTIZATION_TYPES


def test_fewer_bits_are_smaller_and_cost_more_perplexity(locations: Locations) -> None:
    told = [report(quantize(document(name), locations)) for name in ("f32", "q8_0", "q4_k_m", "q2_k")]
    sizes = [one.size_bytes for one in told]
    assert sizes == sorted(sizes, reverse=True)
    rises = [abs(one.increase or 0.0) for one in told]
    assert rises[0] < 1e-6, "f32 is the model itself"
    assert rises == sorted(rises)
    assert rises[3] > 0.001
    assert len({one.perplexity_before for one in told}) == 1


def test_perplexity_before_is_that_of_the_model_by_its_own_loss(locations: Locations, volumes: Path) -> None:
    """The reference: transformers' own loss on every text, weighted by its tokens."""
    told = report(quantize(document("f32", texts="pvc://models/records.jsonl", samples=5), locations))
    folder = volumes / "models" / "wide"
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    nats, tokens = 0.0, 0
    for text in CORPUS[:5]:
        own = tokenizer(f"{text}\nyes", add_special_tokens=False)["input_ids"]
        ids = [tokenizer.bos_token_id, *own, tokenizer.eos_token_id]
        with torch.no_grad():
            loss = model(torch.tensor([ids]), labels=torch.tensor([ids])).loss
        nats, tokens = nats + float(loss) * (len(ids) - 1), tokens + len(ids) - 1
    # fp32 sums in another order.
    assert told.perplexity_before == pytest.approx(float(torch.tensor(nats / tokens).exp()), rel=1e-4)
    assert told.measured_on is not None
    assert told.measured_on.startswith(f"{tokens} tokens of 5 records of pvc://models/records.jsonl")


def test_the_same_model_and_type_give_the_same_file(locations: Locations, volumes: Path) -> None:
    one = report(quantize(document(), locations))
    other = report(quantize(document(output="pvc://out/again"), locations))
    assert one.sha256 == other.sha256 == file_digest(volumes / "out" / "again" / "model.gguf")
    assert (one.perplexity_before, one.perplexity_after) == (other.perplexity_before, other.perplexity_after)


def test_a_complete_result_is_told_again_and_a_damaged_one_is_made_anew(locations: Locations, volumes: Path) -> None:
    first = report(quantize(document(), locations))
    file = volumes / "out" / "q4_k_m" / "model.gguf"
    written = file.stat().st_mtime_ns
    assert report(quantize(document(), locations)) == first
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    assert report(quantize(document(), locations)).sha256 == first.sha256 == file_digest(file)


def test_another_document_for_the_same_place_is_not_answered_with_the_old_result(locations: Locations) -> None:
    quantize(document(), locations)
    told = report(quantize(document("q8_0", output="pvc://out/q4_k_m"), locations))
    assert told.type == "q8_0"


@pytest.mark.parametrize(
    ("fields", "reason", "words"),
    [
        ({"model": {"uri": "pvc://models/none"}}, "ModelNotFound", "spec.model is pvc://models/none"),
        ({"model": {"uri": "pvc://models/wide", "digest": "sha256:0"}}, "DigestMismatch", "sha256:0"),
        ({"type": "q9"}, "ConfigInvalid", "q9"),
        ({"texts": "pvc://models/none.jsonl"}, "DataNotFound", "spec.quantization.calibration.uri"),
    ],
)
def test_what_cannot_be_quantized_says_why(
    locations: Locations, fields: dict[str, Any], reason: str, words: str
) -> None:
    with pytest.raises(JobFailure, match=words) as failure:
        quantize(document(**fields), locations)
    assert failure.value.reason == reason
    assert not failure.value.retryable


def test_an_adapter_alone_is_refused_with_what_to_do(locations: Locations, volumes: Path) -> None:
    folder = volumes / "models" / "adapter"
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(JobFailure, match="merge the two"):
        quantize(document(model={"uri": "pvc://models/adapter"}), locations)


def test_the_model_that_the_platform_made_is_recognised(locations: Locations, volumes: Path) -> None:
    digest = model_digest(volumes / "models" / "wide")
    assert report(quantize(document(model={"uri": "pvc://models/wide", "digest": digest}), locations)).type == "q4_k_m"


def test_the_termination_message_tells_success_and_failure(locations: Locations, tmp_path: Path) -> None:
    path, log = tmp_path / "job.json", tmp_path / "log"
    environ = {
        "ALIDADE_JOB": str(path),
        "ALIDADE_VOLUMES": str(locations.volumes),
        "ALIDADE_SCRATCH": str(locations.scratch),
        "ALIDADE_TERMINATION_LOG": str(log),
    }
    path.write_text(json.dumps(document("q8_0").to_dict()))
    assert run_job(environ) == ExitCode.SUCCEEDED
    assert report(ResultDocument.model_validate_json(log.read_text())).uri == "pvc://out/q8_0/model.gguf"
    path.write_text(json.dumps(document().to_dict() | {"version": "alidade.dev/quantization/v9"}))
    assert run_job(environ) == ExitCode.FAILED
    failure = ResultDocument.model_validate_json(log.read_text()).failure
    assert failure is not None
    assert "alidade.dev/quantization/v9" in failure.message
