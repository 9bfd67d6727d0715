"""The worker's log: JSON lines on the platform, readable lines elsewhere."""

import logging
import sys

import orjson

from infinity_worker.settings import Settings


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the fields that RunPod's log viewer knows."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record; a traceback becomes a field."""
        line: dict[str, object] = {
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def configure(settings: Settings) -> None:
    """Send the package's log to standard error, at the level that is set."""
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    handler.setFormatter(JsonFormatter() if settings.on_platform else plain)
    logger = logging.getLogger("infinity_worker")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.log_level)
    logger.propagate = False
