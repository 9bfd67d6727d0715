"""The real Infinity engine: asked directly, and through the worker, in turn on one process."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import psutil

from bench.closed_loop import Plan, Submit
from bench.grid import Cell, Result, measure_in_turn
from bench.http1 import OK
from bench.measure import Engine, Route, ThroughWorker
from bench.measuring_edge import MeasuringEdge, OnResult
from bench.processes import Cost, Worker, clean_environment, running_worker
from bench.workload import Workload
from infinity_worker.demo.models import TEXT_MODEL, demo_settings
from infinity_worker.engine import Engine as EngineProcess
from infinity_worker.settings import Settings

BACKENDS = {"torch": "minilm", "debugengine": "weightless"}
_DIMENSIONS = {"torch": 384, "debugengine": 13}
_VARIANTS = ("direct", "ours", "stock")
_BULK_CLIENTS = 2
_JSON = {"Content-Type": "application/json"}


@dataclass
class Direct:
    """The engine without a worker: an aiohttp client that asks for base64."""

    url: str
    session: aiohttp.ClientSession
    worker: Worker | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def bind(self, workload: Workload, on_result: OnResult) -> Submit:
        """Send each job's texts to the engine."""
        bodies = workload.engine_requests

        def submit(job_id: str, number: int) -> None:
            asking = self._ask(job_id, bodies[number % len(bodies)], on_result)
            task = asyncio.create_task(asking)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        return submit

    async def _ask(self, job_id: str, body: bytes, on_result: OnResult) -> None:
        try:
            async with self.session.post(
                f"{self.url}/embeddings", data=body, headers=_JSON
            ) as response:
                answer = await response.read()
                # In the form that a worker posts, so that one check serves both.
                head = b'{"output":[' if response.status == OK else b""
        except (aiohttp.ClientError, TimeoutError) as error:
            head, answer = b"", repr(error).encode()
        on_result(job_id, [head + answer[:200], answer[200:], b"]}"])


def cells(backend: str) -> list[Cell]:
    """What is measured on one engine; the same plan whatever the route."""

    def cell(texts: int, clients: int, plan: Plan) -> Cell:
        workload = Workload(texts, _DIMENSIONS[backend], model=BACKENDS[backend])
        return Cell(workload, clients, dict.fromkeys(_VARIANTS, plan), rounds=2)

    singles = [
        cell(1, clients, Plan(clients, warmup_jobs=2 * clients + 10, warmup_s=1.5, seconds=2.0))
        for clients in (1, 32, 256)
    ]
    bulk = Plan(_BULK_CLIENTS, warmup_jobs=_BULK_CLIENTS, seconds=5.0 if backend == "torch" else 2)
    return [*singles, cell(512, _BULK_CLIENTS, bulk)]


async def run_real(backend: str, chosen: Sequence[Cell]) -> list[Result]:
    """Start the engine and measure.

    Raises:
        EngineStartError: the engine does not come up.
        WrongAnswerError: an answer is an error or wrong, or none comes.
        ProcessFailedError: a worker did not start.
    """
    async with running_infinity(backend) as (engine, models):
        return await _measure(engine, chosen, models)


@asynccontextmanager
async def running_infinity(backend: str) -> AsyncIterator[tuple[Engine, Mapping[str, str]]]:
    """Infinity with one model.

    Yields:
        The engine, and the variables that tell a worker of its model.

    Raises:
        EngineStartError: the engine does not come up.
    """
    source = demo_settings()["MODEL_NAMES"].split(";")[0]
    # The worker is told too: it may read the model's tokenizer.
    models = {"MODEL_NAMES": source, "SERVED_MODEL_NAMES": BACKENDS[backend]}
    variables = {**clean_environment(), **models, "BACKEND": backend, "INFINITY_PORT": "0"}
    process = EngineProcess(Settings.from_env(variables))
    process.start()
    print(f"… starting Infinity with {TEXT_MODEL}, {backend}", flush=True)
    try:
        await process.ready()
        leader = psutil.Process(process.pid)
        family = [leader, *leader.children(recursive=True)]
        engine = Engine(process.url, [Cost(each.pid) for each in family])
        yield engine, models
    finally:
        await asyncio.to_thread(process.stop)


async def _measure(
    engine: Engine, chosen: Sequence[Cell], variables: Mapping[str, str]
) -> list[Result]:
    async with AsyncExitStack() as stack:
        # Less than the engine keeps an idle connection: 5 s.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
        timeout = aiohttp.ClientTimeout(total=60)
        session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        await stack.enter_async_context(session)
        routes: dict[str, Route] = {"direct": Direct(engine.url, session)}
        edge = await stack.enter_async_context(MeasuringEdge())
        for loop in _VARIANTS[1:]:
            # Without the tokenizer no jobs share a request: that is the plain handler.
            known = variables if loop == "ours" else {}
            worker = running_worker(loop, edge, engine.url, known)
            routes[loop] = ThroughWorker(await stack.enter_async_context(worker))
        return [await measure_in_turn(cell, routes, engine) for cell in chosen]
