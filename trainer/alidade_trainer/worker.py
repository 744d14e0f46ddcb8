"""One training process: shows its progress from its first moment, trains, and tells the launcher how it went."""

import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from alidade_crds.contract import JOB_ENV, POD_IP_ENV, PORT_ENV, ExitCode, JobDocument, ResultDocument, Stage
from alidade_trainer.jobs import read_job
from alidade_trainer.launcher import MEETING_FILE, STOP_FILE
from alidade_trainer.outcomes import RUN_FOLDER_ENV, write_outcome
from alidade_trainer.progress import Progress
from alidade_trainer.progress_server import ProgressServer
from alidade_trainer.stopping import StopRequested, StopWish


def main() -> int:
    """Runs the job in this process. Returns 0 when it succeeded or stopped as asked, else 1."""
    rank = int(os.environ["RANK"])
    run_folder = Path(os.environ[RUN_FOLDER_ENV])
    (run_folder / MEETING_FILE).unlink(missing_ok=True)
    stop = StopWish(run_folder / STOP_FILE)
    progress = Progress()
    say = _say if rank == 0 else _say_nothing
    server = _start_server(progress, say) if rank == 0 else None
    stage: Stage | None = None
    try:
        job = read_job(Path(os.environ[JOB_ENV]))
        stage = job.stage
        result = _run(job, run_folder, stop, progress, server, say)
    except StopRequested:
        result = ResultDocument(outcome="terminated", step=0)
    except Exception as error:
        # Imported here: a process that fails while it imports has to be able to say so.
        from alidade_engine.sources import Locations
        from alidade_trainer.failures import JobFailure
        from alidade_trainer.faults import failure_of

        failure = failure_of(error, stage)
        told = Locations.from_environment().as_addresses(failure.message)
        failure = failure.model_copy(update={"message": told})
        if not isinstance(error, JobFailure):  # its message says all that its traceback could
            print(traceback.format_exc(), file=sys.stderr, flush=True)
        last = progress.last
        result = ResultDocument(outcome="failed", failure=failure, step=last.step if last else None)
    write_outcome(run_folder, rank, result)
    if server is not None:
        server.close()
    return ExitCode.FAILED if result.outcome == "failed" else ExitCode.SUCCEEDED


def _run(
    job: JobDocument,
    run_folder: Path,
    stop: StopWish,
    progress: Progress,
    server: ProgressServer | None,
    say: Callable[[str], None],
) -> ResultDocument:
    from alidade_engine.sources import Locations
    from alidade_trainer.results import finished_result

    locations = Locations.from_environment()
    output = locations.resolve_output(job.output)
    earlier = locations.uploaded_output(job.output) or output
    result = finished_result(earlier, job)
    if result is not None:
        output = earlier
        say(f"The model of this job is complete at {job.output}/model; nothing is left to train.")
    else:
        progress.enter("loading")
        from alidade_engine.imports import large_imports
        from alidade_trainer.history import Track, track_nothing

        with large_imports():
            from alidade_trainer.surroundings import Surroundings
            from alidade_trainer.training import train  # seconds: torch, transformers, deepspeed

        def work(track: Track) -> ResultDocument:
            around = Surroundings(
                locations=locations,
                output=output,
                run_folder=run_folder,
                progress=progress,
                observe_step=server.observe_step if server else lambda _metrics: None,
                stop=stop,
                say=say,
                track=track,
            )
            return train(job, around)

        if job.tracking is not None and os.environ["RANK"] == "0":
            from alidade_trainer.tracking import tracked

            result = tracked(job, output, progress=progress, say=say, work=work)
        else:
            result = work(track_nothing)
    return _published(job, result, output, progress, say)


def _published(
    job: JobDocument, result: ResultDocument, output: Path, progress: Progress, say: Callable[[str], None]
) -> ResultDocument:
    """The result, once the first process has published the model, if the job asks for that and there is one."""
    if job.publish is not None and result.model is not None and os.environ["RANK"] == "0":
        from alidade_trainer.publishing.publish import publish_model

        progress.enter("saving")
        result = publish_model(job.publish, job, result, output=output, environ=os.environ, say=say)
    if result.outcome == "succeeded":
        progress.enter("finished")
    return result


def _start_server(progress: Progress, say: Callable[[str], None]) -> ProgressServer | None:
    """The HTTP endpoint where ALIDADE_PORT asks for one. A port that is taken costs the view, not the training."""
    port = os.environ.get(PORT_ENV)
    if not port:
        return None
    host = os.environ.get(POD_IP_ENV) or "127.0.0.1"
    try:
        server = ProgressServer(progress, host=host, port=int(port))
    except OSError as error:
        say(f"Progress cannot be shown at {host}:{port}: {error.strerror}.")
        return None
    say(f"Progress: {server.url}/progress")
    return server


def _say(text: str) -> None:
    print(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {text}", flush=True)


def _say_nothing(_text: str) -> None:
    """Processes other than the first would only repeat it."""


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # All is written. Threads that clients of trackers leave to wait for a server must not hold the GPUs.
    os._exit(code)
