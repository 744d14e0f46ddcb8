"""The command `alidade-trainer`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns the exit code; usage errors end with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "run":
        from alidade_trainer.launcher import launch

        return launch(os.environ)
    if arguments.command == "quantize":
        from alidade_engine.imports import large_imports

        with large_imports():
            from alidade_trainer.quantizing.job import run_job

        return run_job(os.environ)
    if arguments.command == "show":
        from alidade_trainer.data.preview import show

        return show(sys.stdin.read())
    if arguments.command == "merge":
        return _merge(arguments.base, arguments.adapter, arguments.output)
    return _report(arguments.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alidade-trainer", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="train as the job document named by ALIDADE_JOB says")
    commands.add_parser("quantize", help="quantize as the document named by ALIDADE_JOB says")
    commands.add_parser("show", help="print records of a dataset as JSON, as the request on stdin says")
    merge = commands.add_parser("merge", help="write a model with a LoRA adapter merged into its base")
    merge.add_argument("--base", type=Path, required=True, help="folder of the base model")
    merge.add_argument("--adapter", type=Path, required=True, help="folder of the adapter")
    merge.add_argument("--output", type=Path, required=True, help="folder to write; it must not exist")
    report = commands.add_parser("report", help="write report.html of a finished job again")
    report.add_argument("--output", type=Path, required=True, help="output folder of the job")
    return parser


def _merge(base: Path, adapter: Path, output: Path) -> int:
    from alidade_trainer.failures import JobFailure
    from alidade_trainer.merge import merge_adapter

    try:
        merge_adapter(base, adapter, output)
    except JobFailure as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


def _report(output: Path) -> int:
    from alidade_trainer.report import ReportError, write_report

    try:
        print(write_report(output))
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
