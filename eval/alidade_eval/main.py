"""The command `alidade-eval`."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand. Returns the exit code; usage errors end with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "run":
        from alidade_eval.launch import launch

        return launch(os.environ)
    return _report(arguments.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="alidade-eval", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="measure what the evaluation document named by ALIDADE_JOB says")
    report = commands.add_parser("report", help="write report.html of a finished evaluation again")
    report.add_argument("--output", type=Path, required=True, help="output folder of the evaluation")
    return parser


def _report(output: Path) -> int:
    from alidade_eval.report import ReportError, write_report

    try:
        print(write_report(output))
    except ReportError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
