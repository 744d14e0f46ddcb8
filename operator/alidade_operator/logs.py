"""Structured logs: one JSON object a line, one line a decision."""

import json
import logging
import sys
from datetime import UTC, datetime

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# kopf attaches whole objects and settings to its records.
_DROPPED = frozenset({"k8s_skip", "k8s_ref", "settings"})


class JsonFormatter(logging.Formatter):
    """Time, level, logger and message, and whatever `extra` the record carries."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {
            name: value for name, value in record.__dict__.items() if name not in _STANDARD and name not in _DROPPED
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logs(level: str) -> None:
    """Sends every log line to the standard output as JSON."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # kopf tells of every connection and handler at INFO; its warnings and errors stay.
    logging.getLogger("kopf").setLevel(max(logging.WARNING, logging.getLevelName(level)))
