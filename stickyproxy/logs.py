"""How log lines look: text for people, or one JSON object a line.

Law: an event's line has its fields beside its text, so that nobody has to parse sentences.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: `at` (RFC 3339, UTC), `level`, `logger`, `message`, what else is known."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said: dict[str, object] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if self._worker is not None:
            said["worker"] = self._worker
        event = getattr(record, "event", None)
        if event is not None:
            said |= {
                "event": event.kind.value, "text": event.text, "backend": event.backend, "to": event.to,
                "cause": event.cause, "count": event.count, "pages": event.pages, "seq": event.seq,
            }  # fmt: skip
        if record.exc_info:
            said["exception"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False)


def set_up_logs(level: str, format_: LogFormat, worker: int | None = None) -> None:
    """Log to standard error from now on; `worker` is the number of the worker process that this is."""
    handler = logging.StreamHandler(sys.stderr)
    if format_ == "json":
        handler.setFormatter(JsonFormatter(worker))
    else:
        name = "%(name)s" if worker is None else f"%(name)s[{worker}]"
        handler.setFormatter(logging.Formatter(TEXT_FORMAT.replace("%(name)s", name)))
    logging.basicConfig(level=level.upper(), handlers=[handler])
