"""Workers that are started, watched, restarted, stopped when idle and started on demand.

The workers are small programs: what the edge hears of them, the tests say in their place.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from infinity_worker.edge.report import EdgeReport, WorkerState
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.state import EdgeSettings
from infinity_worker.serve.fleet import Fleet, FleetError, FleetSettings
from processes import BOUND_S, clean_environment

SLEEPER = ("sleep", "1000")
# It leaves a child behind that would live on, as the SDK's heartbeat does.
PARENT = ("sh", "-c", "sleep 1000 & echo child $!; wait")


@dataclass
class Run:
    """A fleet, what it said, and its edge as a worker or a client sees it."""

    fleet: Fleet
    edge: EdgeServer
    said: list[str] = field(default_factory=list)
    printed: list[str] = field(default_factory=list)

    def ticks_until(self, holds: Callable[[EdgeReport], object]) -> EdgeReport:
        deadline = time.monotonic() + BOUND_S
        while time.monotonic() < deadline:
            report = self.fleet.tick()
            if holds(report):
                return report
            time.sleep(0.01)
        pytest.fail(f"it never came to that; said: {self.said}")

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.edge.url}/v2/local/{path}", timeout=BOUND_S)

    def run(self) -> str:
        reply = httpx.post(f"{self.edge.url}/v2/local/run", json={"input": 1}, timeout=BOUND_S)
        job_id: str = reply.json()["id"]
        return job_id

    @property
    def id(self) -> str:
        return self.fleet.slots[0].worker_id

    @property
    def pid(self) -> int:
        process = self.fleet.slots[0].process
        assert process is not None
        return process.pid


@contextmanager
def running_fleet(
    command: Sequence[str], edge_settings: EdgeSettings | None = None, **settings: Any
) -> Iterator[Run]:
    said: list[str] = []
    printed: list[str] = []
    with EdgeServer(edge_settings or EdgeSettings(poll_s=0.05)) as edge:
        fleet = Fleet(
            edge,
            command,
            lambda worker_id: clean_environment(WORKER_ID=worker_id),
            FleetSettings(**settings),
            say=said.append,
            output=printed.append,
        )
        fleet.start()
        try:
            yield Run(fleet, edge, said, printed)
        finally:
            fleet.stop()


def test_a_worker_that_dies_again_and_again_is_given_up() -> None:
    program = (sys.executable, "-c", "raise SystemExit(3)")
    with running_fleet(program, restarts=2) as run:
        with pytest.raises(FleetError, match=r"worker 0 ended 3 times within 60 s \(exit status 3"):
            run.ticks_until(lambda _: False)
        assert run.fleet.slots[0].starts == 3


def test_a_killed_worker_is_replaced_under_another_name_and_its_jobs_go_on() -> None:
    with running_fleet(PARENT) as run:
        first, job_id = run.id, run.run()
        assert run.get(f"job-take/{first}").json()["id"] == job_id
        run.ticks_until(lambda _: run.printed)
        child = psutil.Process(int(run.printed[0].split()[1]))
        psutil.Process(run.pid).kill()
        run.ticks_until(lambda _: run.fleet.slots[0].starts == 2)
        assert psutil.wait_procs([child], timeout=BOUND_S)[1] == []
        assert "worker 0 ended (killed by SIGKILL); its jobs go to others" in run.said
        assert run.get(f"job-take/{first}").status_code == 204
        assert run.get(f"job-take/{run.id}").json()["id"] == job_id
        assert run.get("health").json()["jobs"]["retried"] == 1


def test_a_worker_whose_pings_stop_is_killed_and_replaced() -> None:
    settings = EdgeSettings(poll_s=0.05, worker_lost_s=0.2)
    with running_fleet(SLEEPER, settings) as run:
        process = psutil.Process(run.pid)
        run.get(f"ping/{run.id}")
        run.ticks_until(lambda _: run.fleet.slots[0].starts == 2)
        assert not process.is_running()
        assert "worker 0 is silent: killing it" in run.said


def test_a_failed_fitness_check_is_told() -> None:
    program = (sys.executable, "-c", "input() if 0 else __import__('time').sleep(1000)")
    with running_fleet(program) as run:
        run.get(f"ping/{run.id}?status=unhealthy&check=gpu%0A")
        report = run.ticks_until(lambda _: True)
        told = report.workers[run.id]
        assert (told.state, told.failed_check) == (WorkerState.UNHEALTHY, "gpu")
        psutil.Process(run.pid).kill()
        run.ticks_until(lambda _: run.said)
        assert "the check 'gpu' failed" in run.said[0]


def test_idle_workers_stop_and_a_job_starts_one() -> None:
    with running_fleet(SLEEPER, count=2, scale_to_zero_s=0.05) as run:
        slots = run.fleet.slots
        assert run.get("health").json()["workers"]["initializing"] == 2
        for slot in slots:
            assert run.get(f"job-take/{slot.worker_id}").status_code == 204
        run.ticks_until(lambda _: not any(slot.process for slot in slots))
        assert run.get("health").json()["workers"]["ready"] == 0
        assert [slot.state(run.fleet.tick()) for slot in slots] == ["stopped"] * 2
        job_id = run.run()
        run.ticks_until(lambda _: run.fleet.slots[0].process)
        assert run.get("health").json()["workers"]["initializing"] == 1
        assert run.get(f"job-take/{run.id}").json()["id"] == job_id
        # It has a job: however long that takes, the worker is not idle.
        deadline = time.monotonic() + 0.2
        run.ticks_until(lambda _: time.monotonic() > deadline)
        assert slots[0].state(run.fleet.tick()) == "running"
        assert not run.edge.call(lambda edge: edge.retire(run.id))


def test_a_job_that_waits_starts_further_workers_one_at_a_time() -> None:
    with running_fleet(SLEEPER, count=3, scale_to_zero_s=0.05, queue_delay_s=0.1) as run:
        slots = run.fleet.slots
        for slot in slots:
            assert run.get(f"job-take/{slot.worker_id}").status_code == 204
        run.ticks_until(lambda _: not any(slot.process for slot in slots))
        run.run()
        run.ticks_until(lambda report: (report.queued_s or 0) > 0.3)
        assert [slot.process is not None for slot in slots] == [True, False, False]
        # It is there, but it takes no job: as good as one that is full.
        run.get(f"ping/{run.id}")
        run.ticks_until(lambda _: slots[1].process)
        assert slots[2].process is None


def test_stopping_ends_every_process() -> None:
    with running_fleet(PARENT, count=2) as run:
        run.ticks_until(lambda _: len(run.printed) == 2)
        children = [psutil.Process(int(line.split()[1])) for line in run.printed]
        workers = [psutil.Process(slot.process.pid) for slot in run.fleet.slots if slot.process]
    assert psutil.wait_procs([*children, *workers], timeout=BOUND_S)[1] == []
