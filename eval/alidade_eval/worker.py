"""One evaluation process: shows its progress from its first moment, measures, and leaves word how it went."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from prometheus_client import CollectorRegistry

from alidade_crds.contract import (
    JOB_ENV,
    POD_IP_ENV,
    PORT_ENV,
    EvaluationDocument,
    ExitCode,
    ResultDocument,
)
from alidade_crds.packed import PackedResults
from alidade_crds.reasons import FailureReason
from alidade_engine.disk import write_file
from alidade_engine.failures import JobFailure
from alidade_engine.imports import large_imports
from alidade_engine.sources import Locations, is_remote
from alidade_engine.status_server import StatusServer
from alidade_eval.documents import claim_folder, read_document
from alidade_eval.faults import failure_of
from alidade_eval.places import OUTCOME_ENV, REPORT_FILE, RESULT_FILE
from alidade_eval.progress import Progress, ProgressCollector
from alidade_eval.sharing import Share

MOST_WARNINGS = 10

Say = Callable[[str], None]


class _StopWish:
    """Whether this process was asked to stop."""

    def __init__(self) -> None:
        self._asked = False
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def __call__(self) -> bool:
        return self._asked

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self._asked = True


def main() -> int:
    """Runs this process's part of the evaluation. Returns its exit code; the outcome file has its result."""
    stop = _StopWish()
    progress = Progress()
    server: StatusServer | None = None
    try:
        document = read_document(Path(os.environ[JOB_ENV]))
        share = Share.of_environment(workers=document.workers, processes=document.processes_per_worker)
        server = _start_server(progress) if share.is_first else None
        result = _evaluate(document, share, progress, stop)
    except Exception as error:
        result = _failed(error)
    if server is not None:
        server.close()
    write_file(Path(os.environ[OUTCOME_ENV]), result.model_dump_json(by_alias=True, exclude_none=True))
    return {"succeeded": ExitCode.SUCCEEDED, "terminated": ExitCode.TERMINATED}.get(result.outcome, ExitCode.FAILED)


def _failed(error: Exception) -> ResultDocument:
    from alidade_eval.course import StopRequested

    if isinstance(error, StopRequested):
        return ResultDocument(outcome="terminated")
    if not isinstance(error, JobFailure):  # its message says all that its traceback could
        print(traceback.format_exc(), file=sys.stderr, flush=True)
    failure = failure_of(error)
    told = Locations.from_environment().as_addresses(failure.message)
    return ResultDocument(outcome="failed", failure=failure.model_copy(update={"message": told}))


def _evaluate(
    document: EvaluationDocument, share: Share, progress: Progress, stop: Callable[[], bool]
) -> ResultDocument:
    locations = Locations.from_environment()
    if share.count > 1 and is_remote(document.output):
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"spec.output.uri is {document.output}; {share.count} processes share their samples through the output, "
            "which a bucket cannot hold for them. Name a volume (pvc://), or set compute.workers: 1.",
        )
    output = locations.resolve_output(document.output)
    finished = _finished(output)
    claim_folder(output, document, is_first=share.is_first)
    if finished is not None:
        say("This evaluation is complete; nothing is left to do.")
        return finished if share.is_first else ResultDocument(outcome="succeeded")
    with large_imports():
        from alidade_eval.course import Course, Surroundings  # seconds: torch, transformers

    around = Surroundings(locations, output, share, progress, say, stop)
    outcome = Course(document, around).run()
    if outcome is None:
        return ResultDocument(outcome="succeeded")
    from alidade_eval.report import write_report
    from alidade_eval.results import write_results

    write_results(output, document, outcome, datetime.now(UTC).isoformat(timespec="seconds"))
    write_report(output)
    result = ResultDocument(
        outcome="succeeded",
        evaluation=PackedResults.of(outcome.results),
        step=progress.total,
        report_uri=f"{document.output.rstrip('/')}/{REPORT_FILE}",
        warnings=list(outcome.warnings)[:MOST_WARNINGS],
    )
    write_file(output / RESULT_FILE, result.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")
    locations.publish(output, document.output)
    progress.enter("finished")
    return result


def _finished(output: Path) -> ResultDocument | None:
    """The result of an evaluation that was complete before, whose pod's last words were lost."""
    path = output / RESULT_FILE
    if not path.is_file():
        return None
    return ResultDocument.model_validate_json(path.read_text())


def _start_server(progress: Progress) -> StatusServer | None:
    """The HTTP endpoint where ALIDADE_PORT asks for one. A port that is taken costs the view, not the work."""
    port = os.environ.get(PORT_ENV)
    if not port:
        return None
    host = os.environ.get(POD_IP_ENV) or "127.0.0.1"
    registry = CollectorRegistry()
    registry.register(ProgressCollector(progress))

    def document() -> bytes:
        return progress.to_document().model_dump_json(by_alias=True).encode()

    try:
        server = StatusServer(document, registry, host=host, port=int(port))
    except OSError as error:
        say(f"Progress cannot be shown at {host}:{port}: {error.strerror}.")
        return None
    say(f"Progress: {server.url}/progress")
    return server


def say(text: str) -> None:
    """A line of the log."""
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
