"""`alidade-serve`: one model behind HTTP, until it is told to end."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Sequence
from time import gmtime, strftime


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM. Exit code 1 when the model cannot be served, 2 for settings that do not go together."""
    from alidade_serving.settings import read_settings

    settings = read_settings(argv, os.environ)
    _write_lines()
    # Imported here so that --help and mistakes in the settings answer at once.
    from alidade_engine.failures import JobFailure
    from alidade_serving.refusals import Refusal
    from alidade_serving.serving import serve

    try:
        asyncio.run(
            serve(settings, lambda address: logging.getLogger("alidade_serving").info("listening: %s", address))
        )
    except (JobFailure, Refusal, RuntimeError, ValueError, OSError) as error:
        print(f"alidade-serve: {error}", file=sys.stderr)
        return 1
    return 0


class _JsonLines(logging.Formatter):
    """A JSON object a line; what is one already, as access is, is completed."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(record.created))
        line = {"time": stamp, "level": record.levelname.lower()}
        if record.name.endswith(".access"):
            line |= json.loads(record.getMessage())
        else:
            line["message"] = record.getMessage()
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _write_lines() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("alidade_serving")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


if __name__ == "__main__":
    sys.exit(main())
