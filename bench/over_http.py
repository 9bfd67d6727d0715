"""The worker as an HTTP server, beside the same worker behind a queue and the engine itself."""

import asyncio
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from bench.closed_loop import Plan, Submit
from bench.grid import FLOOR_REQUESTS, Cell, Result, known, measure_in_turn
from bench.http1 import HOST, OK, Client, request_to
from bench.measure import Engine, Route, ThroughWorker, floor
from bench.measuring_edge import MeasuringEdge, OnResult
from bench.processes import (
    READY_S,
    ProcessFailedError,
    Program,
    Worker,
    clean_environment,
    running_standin,
    running_worker,
)
from bench.real import running_infinity
from bench.workload import Workload

_VARIANTS = ("direct", "ours", "http")
_BULK_CLIENTS = 4


@dataclass
class OverHttp:
    """A server that is asked over connections kept alive, one for each job outstanding.

    Attributes:
        url: the server's.
        asks_engine: whether it is the engine itself, which is asked for base64.
        worker: whose costs are measured.
    """

    url: str
    asks_engine: bool = False
    worker: Worker | None = None
    _idle: list[Client] = field(default_factory=list)
    _connecting: set[asyncio.Task[None]] = field(default_factory=set)

    def bind(self, workload: Workload, on_result: OnResult) -> Submit:
        """Send each job's texts in a request of their own."""
        bodies = workload.engine_requests if self.asks_engine else workload.requests
        path = "/embeddings" if self.asks_engine else "/v1/embeddings"
        requests = [request_to(path, body) for body in bodies]

        def send(client: Client, job_id: str, number: int) -> None:
            def on_answer(status: int, body: bytes) -> None:
                self._idle.append(client)
                # In the form that a worker posts, so that one check serves all.
                head = b'{"output":[' if status == OK else b""
                on_result(job_id, [head + body[:200], body[200:], b"]}"])

            client.send(requests[number % len(requests)], on_answer)

        async def connect_and_send(job_id: str, number: int) -> None:
            send(await Client.connect(self.url), job_id, number)

        def submit(job_id: str, number: int) -> None:
            if self._idle:
                send(self._idle.pop(), job_id, number)
                return
            task = asyncio.create_task(connect_and_send(job_id, number))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

        return submit

    def disconnect(self) -> None:
        """Close what is idle: the engine would, between its turns, in the middle of a request."""
        while self._idle:
            self._idle.pop().close()


def standin_cells() -> list[Cell]:
    """Single texts and bulk, in turn over each way."""
    base64, floats = Workload(1), Workload(1, encoding="float")
    singles = [
        _cell(workload, clients, 10 * clients + 200, 2.0)
        for workload, clients in ((base64, 1), (base64, 32), (base64, 256), (floats, 32))
    ]
    bulk = [
        _cell(workload, _BULK_CLIENTS, 3 * _BULK_CLIENTS, 2.5)
        for workload in (Workload(512, encoding="float"), Workload(512))
    ]
    return [*singles, *bulk]


def real_cells() -> list[Cell]:
    """Single texts for MiniLM; and 32 texts at a time in two requests, as the worker sends them.

    Asked so directly, the engine does all that it can do for 32 callers of one text.
    """
    singles = [
        _cell(Workload(1, model="minilm"), clients, 2 * clients + 10, 3.0)
        for clients in (1, 32, 256)
    ]
    return [*singles, _cell(Workload(16, model="minilm"), 2, 20, 3.0)]


def _cell(workload: Workload, clients: int, warmup_jobs: int, seconds: float) -> Cell:
    plan = Plan(clients, warmup_jobs=warmup_jobs, warmup_s=1.5, seconds=seconds)
    return Cell(workload, clients, dict.fromkeys(_VARIANTS, plan))


async def run_standin(chosen: Sequence[Cell]) -> list[Result]:
    """Measure on one stand-in engine.

    Raises:
        WrongAnswerError: an answer is an error or wrong, or none comes.
        ProcessFailedError: a process did not start.
    """
    async with running_standin() as (url, cost):
        engine = Engine(url, [cost], counts=True)
        return await _measure(engine, chosen, known("ours"), has_floor=True)


async def run_minilm(chosen: Sequence[Cell]) -> list[Result]:
    """Measure on Infinity with MiniLM.

    Raises:
        EngineStartError: the engine does not come up.
        WrongAnswerError: an answer is an error or wrong, or none comes.
        ProcessFailedError: a worker did not start.
    """
    async with running_infinity("torch") as (engine, models):
        return await _measure(engine, chosen, models, has_floor=False)


async def _measure(
    engine: Engine, chosen: Sequence[Cell], variables: Mapping[str, str], *, has_floor: bool
) -> list[Result]:
    async with AsyncExitStack() as stack:
        edge = await stack.enter_async_context(MeasuringEdge())
        queue = await stack.enter_async_context(running_worker("ours", edge, engine.url, variables))
        url, server = await stack.enter_async_context(running_http_worker(engine.url, variables))
        results = []
        for cell in chosen:
            # Without the worker there is nobody to measure but the engine.
            direct, http = OverHttp(engine.url, asks_engine=True), OverHttp(url, worker=server)
            routes: dict[str, Route] = {
                "direct": _Fresh(direct),
                "ours": ThroughWorker(queue),
                "http": http,
            }
            own = None
            if has_floor:
                own = await floor(cell.workload, engine, FLOOR_REQUESTS[cell.workload.texts])
            results.append(await measure_in_turn(cell, routes, engine, own))
            direct.disconnect()
            http.disconnect()
        return results


@dataclass(frozen=True)
class _Fresh:
    """A server that drops idle connections: each turn begins with new ones."""

    route: OverHttp
    worker: Worker | None = None

    def bind(self, workload: Workload, on_result: OnResult) -> Submit:
        """Close what is idle, then as the other."""
        self.route.disconnect()
        return self.route.bind(workload, on_result)


@asynccontextmanager
async def running_http_worker(
    engine_url: str, extra: Mapping[str, str]
) -> AsyncIterator[tuple[str, Worker]]:
    """`python -m infinity_worker` as an HTTP server.

    Yields:
        Its URL, and itself.

    Raises:
        ProcessFailedError: it ended, or did not become ready in time.
    """
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    environment = clean_environment() | {
        "WORKER_MODE": "http",
        "PORT": str(port),
        "INFINITY_URL": engine_url,
        **extra,
    }
    program = Program([sys.executable, "-m", "infinity_worker"], environment)
    url = f"http://{HOST}:{port}"
    try:
        await _until_ready(url, program)
        yield url, Worker("http", program, None)
    finally:
        await program.stop()


async def _until_ready(url: str, program: Program) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline and program.is_running:
        try:
            client = await Client.connect(url)
            await client.ask(request_to("/ping"))
        except OSError:
            await asyncio.sleep(0.1)
        else:
            client.close()
            return
    raise ProcessFailedError(f"the worker did not become ready:\n{program.last_lines()}")
