"""The quantization that a document asks for: written once, measured, and told to the operator."""

import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from alidade_crds.contract import (
    JOB_ENV,
    QUANTIZATION_VERSION,
    TERMINATION_LOG_ENV,
    ExitCode,
    QuantizationDocument,
    ResultDocument,
)
from alidade_crds.modelserve import QuantizationReport
from alidade_crds.reasons import FailureReason
from alidade_engine.digests import model_digest
from alidade_engine.disk import write_file
from alidade_engine.models import load_config, load_tokenizer
from alidade_engine.sources import Locations
from alidade_trainer.failures import JobFailure
from alidade_trainer.faults import failure_of
from alidade_trainer.outcomes import write_termination_message
from alidade_trainer.quantizing.method import Quantizer, weights_size
from alidade_trainer.quantizing.methods import method_of
from alidade_trainer.quantizing.perplexity import calibration_of, measure_of
from alidade_trainer.results import RESULT_FILE

DOCUMENT_FILE = "quantization.json"


def run_job(environ: Mapping[str, str] = os.environ) -> int:
    """Does what the document that ALIDADE_JOB names asks.

    Returns the exit code (alidade_crds.contract.ExitCode); the termination log has the result in every case.
    """
    log = environ.get(TERMINATION_LOG_ENV)
    locations = Locations.from_environment(environ)
    try:
        result = quantize(_read(environ), locations)
    except Exception as error:
        failure = failure_of(error)
        failure = failure.model_copy(update={"message": locations.as_addresses(failure.message)})
        if not isinstance(error, JobFailure):  # its message says all that its traceback could
            print(traceback.format_exc(), file=sys.stderr, flush=True)
        result = ResultDocument(outcome="failed", failure=failure)
    write_termination_message(Path(log) if log else None, result)
    if result.failure is not None:
        print(f"Failed ({result.failure.reason}): {result.failure.message}", file=sys.stderr, flush=True)
        return ExitCode.RETRY if result.failure.retryable else ExitCode.FAILED
    assert result.quantization is not None, "a quantization that has succeeded reports itself"
    print(f"Done: {result.quantization.uri}", flush=True)
    return ExitCode.SUCCEEDED


def quantize(document: QuantizationDocument, locations: Locations) -> ResultDocument:
    """Writes the quantized model and result.json to the output; answers what is there when it is of the same document.

    Raises JobFailure: as `resolve_model`, the method and `measure_of`; DigestMismatch when the model is another one.
    """
    method = method_of(document)
    output = locations.resolve_output(document.output)
    finished = _finished(output, document, method)
    if finished is not None:
        return finished
    method.check()
    folder = locations.resolve_model(document.model.uri or "", field="spec.model")
    context_length = int(load_config(folder).max_position_embeddings)
    _check_digest(document, folder)
    tokenizer = load_tokenizer(folder)
    measure = measure_of(
        document,
        tokenizer,
        locations,
        context_length,
        calibrated=method.calibrates,
        computed_in=method.computed_in,
    )
    texts = calibration_of(document, tokenizer, locations, context_length) if method.calibrates else []
    # What was there is of another document, or was cut off: without a result it counts as nothing.
    (output / RESULT_FILE).unlink(missing_ok=True)
    write_file(output / DOCUMENT_FILE, _identity(document))
    target = output / method.file_name
    begun = time.monotonic()
    method.write(folder, target, texts)
    seconds = time.monotonic() - begun
    before, after = method.perplexities(folder, target, measure, tokenizer)
    result = ResultDocument(
        outcome="succeeded",
        quantization=QuantizationReport(
            method=document.method,
            type=document.type,
            uri=f"{document.output.rstrip('/')}/{method.file_name}",
            sha256=method.digest(target),
            size_bytes=method.size_bytes(target),
            size_bytes_before=weights_size(folder),
            perplexity_before=float(f"{before:.6g}"),
            perplexity_after=float(f"{after:.6g}"),
            measured_on=measure.told,
            seconds=round(seconds, 2),
        ),
    )
    write_file(output / RESULT_FILE, result.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")
    locations.publish(output, document.output)
    return result


def _read(environ: Mapping[str, str]) -> QuantizationDocument:
    path = environ.get(JOB_ENV)
    if not path:
        raise JobFailure(
            FailureReason.CONFIG_INVALID, f"{JOB_ENV} is not set; it must name the quantization document's file."
        )
    try:
        content = json.loads(Path(path).read_text())
        version = content.get("version", QUANTIZATION_VERSION)
        if version != QUANTIZATION_VERSION:
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"The quantization document's version is {version!r}; this trainer reads {QUANTIZATION_VERSION!r}. "
                "Use operator and trainer image of the same release.",
            )
        return QuantizationDocument.model_validate(content)
    except OSError as error:
        raise JobFailure(FailureReason.CONFIG_INVALID, f"{path} cannot be read: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise JobFailure(FailureReason.CONFIG_INVALID, f"{path}: {field}: {first['msg']}.") from error
    except (ValueError, AttributeError) as error:
        raise JobFailure(FailureReason.CONFIG_INVALID, f"{path} is no quantization document: {error}.") from error


def _identity(document: QuantizationDocument) -> str:
    """What decides the file, as JSON: who asks for it, and where it goes, does not."""
    content = {name: value for name, value in document.to_dict().items() if name not in ("owner", "output")}
    return json.dumps(content, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _finished(output: Path, document: QuantizationDocument, method: Quantizer) -> ResultDocument | None:
    """The result of the same document when what it wrote is whole; None when there is none."""
    told, path = output / DOCUMENT_FILE, output / RESULT_FILE
    if not told.is_file() or not path.is_file() or told.read_text() != _identity(document):
        return None
    result = ResultDocument.model_validate_json(path.read_text())
    target, report = output / method.file_name, result.quantization
    if report is None or not target.exists() or method.digest(target) != report.sha256:
        return None
    return result


def _check_digest(document: QuantizationDocument, folder: Path) -> None:
    expected = document.model.digest
    if expected is None:
        return
    found = model_digest(folder)
    if found != expected:
        raise JobFailure(
            FailureReason.DIGEST_MISMATCH,
            f"spec.model is {document.model.uri}, whose digest is {found}; it was made with {expected}. The files have "
            "changed since: make that model again, or name the folder by spec.model.uri.",
        )
