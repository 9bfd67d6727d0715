"""Worker processes: starting one, what belongs to it, what it costs, and ending all of it."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO

import psutil


class WorkerProcess:
    """One worker in a process group of its own.

    Args:
        command: What to run.
        environment: All of its variables.
        output: Called with each line that it prints, from another thread; None lets it print.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: Callable[[str], None] | None = None,
    ) -> None:
        self._process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=None if output is None else subprocess.PIPE,
            stderr=None if output is None else subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._engines: list[psutil.Process] = []
        if output is not None and self._process.stdout is not None:
            threading.Thread(
                target=_drain, args=(self._process.stdout, output), daemon=True
            ).start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def exit_status(self) -> int | None:
        """How it ended; None while it lives."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; False where it has not come in that time."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it and everything that it started, at once. Its heartbeat outlives it otherwise."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for engine in self._engines:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if engine.is_running():
                    os.killpg(engine.pid, signal.SIGKILL)
        self._process.wait()

    def engine_rss(self) -> int:
        """Bytes of memory of the engine that it owns; 0 where it owns none."""
        # Its engine leads a session of its own, which a kill of the worker does not reach: it is
        # remembered while it can be found.
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            children = psutil.Process(self._process.pid).children()
            self._engines = [child for child in children if os.getsid(child.pid) == child.pid]
        return sum(family_rss(engine.pid) for engine in self._engines)


def family_rss(pid: int) -> int:
    """Bytes of memory of a process and all that it started; 0 where it is gone."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for each in family:
        with contextlib.suppress(psutil.Error):
            total += int(each.memory_info().rss)
    return total


def _drain(pipe: IO[str], output: Callable[[str], None]) -> None:
    with pipe:
        for line in pipe:
            output(line.rstrip())
