"""The log: a JSON object a line."""

import json
import logging
import sys
from time import gmtime, strftime


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


def write_lines() -> None:
    """Sends what the servers log to standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_JsonLines())
    logger = logging.getLogger("alidade_serving")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
