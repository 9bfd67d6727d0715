"""When the phases of the worker's start were over, for one line of the log."""

import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)


class ColdStart:
    """The moments of one start, in seconds since the process began."""

    def __init__(self) -> None:
        self._began = time.monotonic() - _process_age_s()
        self._moments: dict[str, float] = {}
        self._is_written = False

    def mark(self, phase: str) -> None:
        """Note that a phase is over now; the first time counts."""
        if not self._is_written:
            self._moments.setdefault(phase, round(time.monotonic() - self._began, 2))

    def write(self) -> None:
        """Write the line; only the first call does."""
        if not self._is_written:
            self._is_written = True
            moments = {f"{phase}_s": moment for phase, moment in self._moments.items()}
            log.info("cold start", extra={"fields": moments})


def _process_age_s() -> float:
    """Seconds since this process began, to 10 ms, by /proc (proc(5)); 0 where there is none."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    began_ticks = int(stat.rpartition(")")[2].split()[19])
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - began_ticks / ticks_per_s
