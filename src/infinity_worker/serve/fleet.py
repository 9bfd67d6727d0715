"""Several workers, started, watched and restarted; stopped when idle and started on demand."""

import signal
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from infinity_worker.backoff import Backoff
from infinity_worker.edge.report import EdgeReport, WorkerReport, WorkerState, report_of
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.state import Edge
from infinity_worker.serve.processes import WorkerProcess

_LOOK_AT_ENGINES_S = 1.0


class FleetError(Exception):
    """The workers cannot be kept running; the message says which and why."""


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """How many workers there are, and how they are kept. Times are in seconds.

    Attributes:
        count: The most workers.
        scale_to_zero_s: After this long without a job a worker is stopped; None keeps them all.
        queue_delay_s: When a job has waited this long, a further worker is started, one at a time;
            the default is the platform's.
        restarts: How often one worker may die within `window_s`.
        window_s: See `restarts`.
        stop_s: How long a worker may take to end once it is asked to.
    """

    count: int = 1
    scale_to_zero_s: float | None = None
    queue_delay_s: float = 4.0
    restarts: int = 5
    window_s: float = 60.0
    stop_s: float = 40.0


@dataclass(slots=True)
class Slot:
    """The place of one worker; processes come and go.

    Attributes:
        worker_id: What its present process, or the last one, is called.
        starts: How many processes it has had.
        restart_at: When a dead one is started again.
        kill_at: When one that was asked to end is killed.
        engine_rss: Bytes of memory of the engine that the worker owns.
    """

    number: int
    worker_id: str = ""
    process: WorkerProcess | None = None
    starts: int = 0
    began_at: float = 0.0
    restart_at: float | None = None
    kill_at: float | None = None
    engine_rss: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    deaths: deque[float] = field(default_factory=deque)

    @property
    def leaving(self) -> bool:
        """Whether it was asked to end."""
        return self.kill_at is not None

    def state(self, report: EdgeReport) -> str:
        """What to tell people about it."""
        if self.process is None:
            return "stopped" if self.restart_at is None else "restarting"
        return self.report(report).state.value

    def report(self, report: EdgeReport) -> WorkerReport:
        """What the edge knows of it."""
        return report.workers.get(self.worker_id, WorkerReport(WorkerState.STARTING))


class Fleet:
    """The workers of one edge. Call `start`, then `tick` every tenth of a second, then `stop`.

    Args:
        edge: A running edge.
        command: What a worker's process runs.
        environment: The variables of the worker of that id.
        settings: How many there are, and how they are kept.
        say: Called with a sentence for each event.
        output: Called with each line that a worker prints; None lets them print.
    """

    def __init__(  # noqa: PLR0913  # where it runs, what it runs, and two ways to tell
        self,
        edge: EdgeServer,
        command: Sequence[str],
        environment: Callable[[str], Mapping[str, str]],
        settings: FleetSettings,
        *,
        say: Callable[[str], None],
        output: Callable[[str], None] | None = None,
    ) -> None:
        self.slots = [Slot(number) for number in range(settings.count)]
        self._edge = edge
        self._command = command
        self._environment = environment
        self._settings = settings
        self._say = say
        self._output = output
        self._looked_at = 0.0

    def start(self) -> None:
        """Start every worker."""
        for slot in self.slots:
            self._start(slot)

    def deaths(self) -> int:
        """How many processes have ended that nobody had asked to."""
        return sum(len(slot.deaths) for slot in self.slots)

    def tick(self) -> EdgeReport:
        """Look at every worker once and do what is due.

        Raises:
            FleetError: A worker dies again and again.
        """
        now = time.monotonic()
        report = self._edge.call(report_of)
        for slot in self.slots:
            self._look_at(slot, report, now)
        if self._settings.scale_to_zero_s is not None:
            self._scale(report, self._settings.scale_to_zero_s, now)
        if now - self._looked_at > _LOOK_AT_ENGINES_S:
            self._looked_at = now
            for slot in self.slots:
                slot.engine_rss = slot.process.engine_rss() if slot.process else 0
        return report

    def stop(self) -> None:
        """End every worker, and the edge, whose open polls they wait for."""
        processes = [slot.process for slot in self.slots if slot.process]
        for process in processes:
            process.terminate()
        self._edge.stop()
        deadline = time.monotonic() + self._settings.stop_s
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()

    def _start(self, slot: Slot) -> None:
        # A new name each time: what a dead one leaves behind cannot be taken for its successor's.
        again = f"-{slot.starts}" if slot.starts else ""
        slot.worker_id = worker_id = f"local-worker-{slot.number}{again}"
        slot.starts += 1
        slot.restart_at = slot.kill_at = None
        slot.began_at = time.monotonic()
        self._edge.call(lambda edge: edge.workers.expect(worker_id))
        slot.process = WorkerProcess(self._command, self._environment(worker_id), self._output)
        if slot.starts > 1:
            self._say(f"worker {slot.number} starts again")

    def _look_at(self, slot: Slot, report: EdgeReport, now: float) -> None:
        if slot.process is None:
            if slot.restart_at is not None and now >= slot.restart_at:
                self._start(slot)
            return
        if (status := slot.process.exit_status()) is not None:
            self._ended(slot, status, now)
            return
        if slot.kill_at is not None and now > slot.kill_at:
            self._say(f"worker {slot.number} does not end: killing it")
            slot.process.kill()
        elif slot.report(report).state is WorkerState.LOST:
            self._say(f"worker {slot.number} is silent: killing it")
            slot.process.kill()

    def _ended(self, slot: Slot, status: int, now: float) -> None:
        worker_id, leaving = slot.worker_id, slot.leaving
        if slot.process is not None:
            slot.process.kill()  # what it may have left behind
        slot.process = slot.kill_at = None
        unhealthy = self._edge.call(lambda edge: _end(edge, worker_id))
        if leaving:
            self._say(f"worker {slot.number} stopped: it had no jobs")
            return
        window = self._settings.window_s
        if now - slot.began_at > window:
            slot.backoff.reset()
        slot.deaths.append(now)
        while slot.deaths[0] < now - window:
            slot.deaths.popleft()
        why = _describe(status) + (f", the check {unhealthy!r} failed" if unhealthy else "")
        if len(slot.deaths) > self._settings.restarts:
            raise FleetError(
                f"worker {slot.number} ended {len(slot.deaths)} times within {window:g} s ({why}): "
                "its log is above"
            )
        self._say(f"worker {slot.number} ended ({why}); its jobs go to others")
        slot.restart_at = now + slot.backoff.next_s()

    def _scale(self, report: EdgeReport, idle_s: float, now: float) -> None:
        running = [slot for slot in self.slots if slot.process and not slot.leaving]
        stopped = [slot for slot in self.slots if not slot.process and slot.restart_at is None]
        states = [slot.report(report).state for slot in running]
        if report.queued_s is not None:
            enough = bool(running) and report.queued_s < self._settings.queue_delay_s
            if stopped and not enough and WorkerState.STARTING not in states:
                self._say("a job waits: starting a worker")
                self._start(stopped[0])
            return
        for slot in running:
            told = slot.report(report)
            if told.state is WorkerState.IDLE and told.idle_s >= idle_s:
                self._retire(slot, now)

    def _retire(self, slot: Slot, now: float) -> None:
        worker_id = slot.worker_id
        # The edge decides: a job may have been handed out a moment ago.
        if slot.process and self._edge.call(lambda edge: edge.retire(worker_id)):
            slot.process.terminate()
            slot.kill_at = now + self._settings.stop_s


def _end(edge: Edge, worker_id: str) -> str:
    """Tell the edge that a worker has ended; the fitness check that it had failed, if any."""
    edge.workers.ended(worker_id)
    return edge.workers.known()[worker_id].failed_check


def _describe(status: int) -> str:
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
