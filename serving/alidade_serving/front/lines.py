"""The log: a JSON object a line."""

import json
import logging
import sys
from time import gmtime, strftime

from alidade_serving.front.bodies import NOT_HTTP, not_http


class _JsonLines(logging.Formatter):
    """What is JSON already, as access is, is completed."""

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


class _ClientsFault(logging.Filter):
    """What a client says that is no HTTP is told in a line, without a trace: nothing of ours has failed."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, NOT_HTTP):
            record.levelno, record.levelname = logging.INFO, "INFO"
            record.msg, record.args = f"a client was refused: {not_http(error)}", ()
            record.exc_info = None
        return True


def write_lines() -> None:
    """Sends what the servers log, and aiohttp and asyncio below them, to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    handler.addFilter(_ClientsFault())
    for name, level in (("alidade_serving", logging.INFO), ("aiohttp", logging.WARNING), ("asyncio", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level)
        logger.propagate = False
