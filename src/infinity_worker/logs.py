"""The worker's log: JSON lines on the platform, readable lines elsewhere; a line for each job."""

import logging
import sys
import time
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from infinity_worker.settings import Settings

_jobs = logging.getLogger("infinity_worker.jobs")


@dataclass(slots=True)
class JobRecord:
    """What the log says about one job: sizes and times, never what was sent.

    Attributes:
        job_id: the platform's id.
        route: the OpenAI route, or `standard`.
        model: the served name.
        texts: how many texts.
        images: how many images.
        recordings: how many recordings.
        failed: items that could not be embedded, where the caller wanted the others nevertheless.
        tokens: tokens of the texts.
        cached: texts whose embeddings were remembered.
        encoding: `float` or `base64`.
        engine_s: seconds spent waiting for the engine.
    """

    job_id: str
    route: str = "standard"
    model: str = ""
    texts: int = 0
    images: int = 0
    recordings: int = 0
    failed: int = 0
    tokens: int = 0
    cached: int = 0
    encoding: str = ""
    engine_s: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def write(self, outcome: str, code: int = 0, bytes_out: int = 0) -> None:
        """Write the job's line.

        Args:
            outcome: `ok`, `error`, `stopped` or `lost`.
            code: the result's code, 200 where it is no error.
            bytes_out: what was posted.
        """
        if not _jobs.isEnabledFor(logging.INFO):
            return
        fields = {
            "job": self.job_id,
            "outcome": outcome,
            "code": code,
            "route": self.route,
            "model": self.model,
            "texts": self.texts,
            "images": self.images,
            "audio": self.recordings,
            "failed": self.failed,
            "tokens": self.tokens,
            "cached": self.cached,
            "encoding": self.encoding,
            "engine_ms": round(self.engine_s * 1e3, 2),
            "total_ms": round((time.perf_counter() - self.began) * 1e3, 2),
            "bytes_out": bytes_out,
        }
        _jobs.info("job", extra={"fields": fields})


def place_of(error: BaseException) -> str:
    """Say what kind of error it was and where, without its text, which may repeat an input."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
    return f"{type(error).__name__} at {' > '.join(places)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the fields that RunPod's log viewer knows."""

    def format(self, record: logging.LogRecord) -> str:
        """Format one record; a traceback becomes a field."""
        line: dict[str, object] = {"level": record.levelname, "message": record.getMessage()}
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


class PlainFormatter(logging.Formatter):
    """A line for people: the time, the level, the message, and the fields as `name=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Format one record; fields that are empty or zero are left out."""
        fields = getattr(record, "fields", {})
        told = "".join(f" {name}={value}" for name, value in fields.items() if value)
        return super().format(record) + told


def configure(settings: Settings) -> None:
    """Send the package's log to standard error, at the level that is set."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if settings.on_platform else PlainFormatter())
    logger = logging.getLogger("infinity_worker")
    logger.handlers[:] = [handler]
    logger.setLevel(settings.log_level)
    logger.propagate = False
    # Pillow's opinions on callers' pictures, printed with the paths of this machine.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
