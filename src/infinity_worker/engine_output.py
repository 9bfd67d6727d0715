"""What the engine prints: passed on to the log within limits, and read for the cause of a failure.

While it loads, nothing that a caller sent can be among its lines: they are passed on, paths of the
machine shortened. Once it serves, a line may repeat an input (an exception's text, most likely), so
nothing but the kinds of exceptions is passed on.
"""

import logging
import re
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO

log = logging.getLogger(__name__)

_KEPT_LINES = 40
_QUOTED_LINES = 15
_LINE_CHARS = 1_000
_LINES_PER_S = 50
# An absolute path: everything before its last component goes.
_FOLDERS = re.compile(
    r"(?:file://|(?<![\w./])(?<!:(?=//)))(?:/[^\s/'\"`,;:)\]]+)*/(?=[^\s/'\"`,;:)\]])"
)
_GAPS = re.compile(r"(?<=\S) {3,}")
# As tracebacks end: `torch.OutOfMemoryError: CUDA out of memory …`.
_EXCEPTION = re.compile(r"^(?:\w+\.)*(\w+(?:Error|Exception|Interrupt|Warning))(?::|$)")

# What a failure most likely means, by what the last lines say; the first match counts.
_CAUSES = {
    r"address already in use|errno 98": (
        "its port is in use: stop the other server, or set INFINITY_PORT"
    ),
    r"out of memory|OutOfMemoryError|Cannot allocate memory|MemoryError": (
        "it ran out of memory: choose a smaller model or dtype, or a larger machine"
    ),
    r"gated repo|401 Client Error|403 Client Error|restricted": (
        "the model is gated or private: set HF_TOKEN to a token that may read it"
    ),
    r"couldn't connect|LocalEntryNotFound|OfflineModeIsEnabled|Max retries exceeded": (
        "the model is not on this machine and the model hub cannot be reached: check MODEL_NAMES, "
        "the network, and HF_HUB_OFFLINE"
    ),
    r"not a valid model identifier|not a local folder|Repository Not Found|404 Client Error"
    r"|No such file|does not appear to have a file|Unrecognized model|HFValidationError": (
        "the model was not found: check MODEL_NAMES"
    ),
    r"No such option|Invalid value for": "it does not know one of its options",
}


class EngineOutput:
    """The lines of one engine process.

    Args:
        clean: takes out of a line what nobody may see.

    Attributes:
        is_loading: whether nobody has sent it anything yet, so that its lines may be quoted.
    """

    def __init__(self, clean: Callable[[str], str] = str) -> None:
        self._clean = clean
        self.is_loading = True
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._second = 0.0
        self._in_second = 0

    def drain(self, pipe: IO[str]) -> None:
        """Read until the end; a pipe that nobody reads would block the engine."""
        while line := pipe.readline(_LINE_CHARS):
            text = self._clean(_GAPS.sub("  ", line.rstrip()))
            if text:
                self._lines.append(text)
                self._pass_on(text)

    def likely_cause(self, exit_code: int | None) -> str:
        """Say in a sentence what a failure most likely means."""
        return likely_cause(list(self._lines), exit_code)

    def quoted(self) -> str:
        """The last lines for an error message; nothing if they may repeat what callers sent."""
        if not self.is_loading:
            return ""
        lines = list(self._lines)[-_QUOTED_LINES:]
        return "".join(f"\n  engine: {without_paths(line)}" for line in lines)

    def _pass_on(self, text: str) -> None:
        said = without_paths(text) if self.is_loading else kind_of_exception(text)
        if not said:
            return
        now = time.monotonic()
        if now - self._second >= 1.0:
            self._second, self._in_second = now, 0
        self._in_second += 1
        if self._in_second <= _LINES_PER_S:
            log.info("engine: %s", said)
        elif self._in_second == _LINES_PER_S + 1:
            log.info("engine: … more lines than %d a second are left out", _LINES_PER_S)


def without_paths(text: str) -> str:
    """Leave the last component of each absolute path; addresses stay as they are."""
    return _FOLDERS.sub("", text)


def kind_of_exception(text: str) -> str:
    """The class that the last line of a traceback names, without its text; else nothing."""
    match = _EXCEPTION.match(text)
    return match[1] if match else ""


def likely_cause(lines: Sequence[str], exit_code: int | None) -> str:
    """Say in a sentence what a failure most likely means."""
    text = "\n".join(lines)
    for pattern, cause in _CAUSES.items():
        if re.search(pattern, text, re.IGNORECASE):
            return cause
    if exit_code == -signal.SIGKILL:
        return "it was killed, most likely for want of memory: choose a smaller model or machine"
    return "see its last lines"
