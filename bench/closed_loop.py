"""Simulated clients: each has one job outstanding and sends the next when that one is done."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from bench.workload import Workload, WrongAnswerError

Submit: TypeAlias = Callable[[str, int], None]

_KEPT_ANSWERS = 6
_STALL_S = 60.0


@dataclass(frozen=True)
class Plan:
    """How many clients do how much.

    A phase ends with its jobs or its seconds, whichever comes first. The measured phase then goes
    on until every client has had the same number of jobs on average: a slow worker finishes jobs
    in bursts of as many as there are clients, and half a burst would falsify the rate.

    Attributes:
        clients: jobs outstanding at any time.
        warmup_jobs: jobs done before measuring begins.
        warmup_s: the longest that warming up may take.
        jobs: the most jobs measured.
        seconds: the longest that is measured.
    """

    clients: int
    warmup_jobs: int = 100
    warmup_s: float = 1.0
    jobs: int = 1_000_000
    seconds: float = 2.0


@dataclass
class Measured:
    """What the clients saw in the measured phase; times in seconds."""

    latencies: list[float] = field(default_factory=list)
    bytes_out: int = 0
    seconds: float = 0.0
    completed: int = 0


class ClosedLoop:
    """Clients that send jobs and check what comes back.

    Args:
        workload: what they send.
        plan: how much.
        on_turn: called when the measured phase begins and when it ends.

    Attributes:
        measured: what they saw in the measured phase.
        sent: jobs sent in all phases.
    """

    def __init__(self, workload: Workload, plan: Plan, on_turn: Callable[[], None]) -> None:
        self.measured = Measured()
        self.sent = 0
        self._workload = workload
        self._plan = plan
        self._submit: Submit = lambda _id, _number: None
        self._on_turn = on_turn
        self._outstanding: dict[str, tuple[int, float]] = {}
        self._done = 0
        self._phase = "warming up"
        self._began = 0.0
        # Checked after the run: parsing megabytes would delay the others' jobs.
        self._kept: list[tuple[int, bytes]] = []
        self._finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, submit: Submit) -> Measured:
        """Send, measure, and wait until nothing is outstanding.

        Args:
            submit: sends a job, by its id and its number.

        Raises:
            WrongAnswerError: an answer is an error or wrong, or none comes.
        """
        self._submit = submit
        self._began = time.perf_counter()
        for _ in range(self._plan.clients):
            self._send()
        seen = -1
        while not self._finished.done():
            if seen == self._done:
                raise WrongAnswerError(
                    f"{len(self._outstanding)} jobs outstanding and none done in {_STALL_S:.0f} s"
                )
            seen = self._done
            await asyncio.wait([self._finished], timeout=_STALL_S)
        self._finished.result()
        for number, posted in self._kept:
            self._workload.check_fully(number, posted)
        return self.measured

    def on_result(self, job_id: str, chunks: Sequence[bytes]) -> None:
        """Take a job's result: the chunks of what the worker posted."""
        now = time.perf_counter()
        sent = self._outstanding.pop(job_id, None)
        if sent is None:
            self._fail(WrongAnswerError(f"job {job_id} was reported twice, or never sent"))
            return
        number, created = sent
        size = sum(map(len, chunks))
        try:
            self._workload.check_quickly(chunks[0] if chunks else b"", size)
        except WrongAnswerError as error:
            self._fail(error)
            return
        self._done += 1
        if self._phase == "measuring":
            self._record(now, now - created, size)
            # The first few, and then ever rarer ones: jobs 1, 2, 4, 8, …
            if self.measured.completed.bit_count() == 1:
                self._keep(number, chunks)
        elif self._phase == "warming up" and (
            self._done >= self._plan.warmup_jobs or now - self._began > self._plan.warmup_s
        ):
            self._phase, self._began = "measuring", now
            self._on_turn()
        if self._phase != "draining":
            self._send()
        elif not self._outstanding and not self._finished.done():
            self._finished.set_result(None)

    def _send(self) -> None:
        number = self.sent
        self.sent += 1
        job_id = f"bench-{number:08x}-u1"
        self._outstanding[job_id] = (number, time.perf_counter())
        self._submit(job_id, number)

    def _record(self, now: float, latency: float, size: int) -> None:
        measured = self.measured
        measured.latencies.append(latency)
        measured.bytes_out += size
        measured.completed += 1
        measured.seconds = now - self._began
        is_over = measured.completed >= self._plan.jobs or measured.seconds >= self._plan.seconds
        if is_over and measured.completed % self._plan.clients == 0:
            self._phase = "draining"
            self._on_turn()

    def _keep(self, number: int, chunks: Sequence[bytes]) -> None:
        self._kept.append((number, b"".join(chunks)))
        # The first one and the latest ones.
        del self._kept[1 : len(self._kept) - _KEPT_ANSWERS + 1]

    def _fail(self, error: Exception) -> None:
        if not self._finished.done():
            self._finished.set_exception(error)
