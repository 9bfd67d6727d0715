"""A program in a process group of its own, watched by threads and ended as a whole."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from pathlib import Path

from infinity_worker.engine_output import EngineOutput
from infinity_worker.parent_death import guarded

_DRAIN_JOIN_S = 0.5


class ProcessGroup:
    """A process group whose output is drained, and whose end is waited for, each by a thread.

    Known to no event loop, so that it outlives all of them.

    Attributes:
        pid: of the group and its leader, which ends as the engine ends.
        output: what it printed.
        exited: resolves to the exit status, negative for a signal, once all of the group is gone.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        clean: Callable[[str], str] = str,
    ) -> None:
        self.output = EngineOutput(clean)
        self.exited: Future[int] = Future()
        # From now on nobody who stops waiting for it can cancel it.
        self.exited.set_running_or_notify_cancel()
        self._lock = threading.Lock()
        self._popen = subprocess.Popen(
            guarded(command),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self.pid = self._popen.pid
        self._drain = threading.Thread(target=self._read, name="engine-log", daemon=True)
        self._drain.start()
        threading.Thread(target=self._wait, name="engine-exit", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Wait, blocking, until the group is gone; False if it still is not."""
        return bool(wait({self.exited}, seconds).done)

    def memory_bytes(self) -> int:
        """Resident memory of all its processes, by /proc (proc(5)); 0 where there is no /proc."""
        pages = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            # A process may end while it is looked at.
            with contextlib.suppress(OSError):
                fields = stat.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.pid:
                    pages += int(fields[21])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to every process of the group, if it is still there."""
        with self._lock:
            if self._popen.returncode is None:
                self._signal_group(number)

    def describe_exit(self) -> str:
        """Say how it ended while loading, and most likely why, with its last lines."""
        code = self.exited.result()
        self._drain.join(_DRAIN_JOIN_S)
        cause, quoted = self.output.likely_cause(code), self.output.quoted()
        return f"the engine ended while loading (exit code {code}): {cause}{quoted}"

    def _read(self) -> None:
        assert self._popen.stdout is not None  # noqa: S101  # narrows the type
        with self._popen.stdout as pipe:
            self.output.drain(pipe)

    def _wait(self) -> None:
        # Until the leader is waited for, no other process can get its id: so the rest ends first.
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with self._lock:
            self._signal_group(signal.SIGKILL)
            code = self._popen.wait()
        self._drain.join(_DRAIN_JOIN_S)
        self.exited.set_result(code)

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)
