"""The local stack: the edge, the engine and the workers, started in turn and stopped together."""

import asyncio
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import NoReturn

from infinity_worker import examples, logs
from infinity_worker.demo.models import demo_settings
from infinity_worker.edge.job import JobStatus
from infinity_worker.edge.report import WorkerState
from infinity_worker.edge.server import EdgeServer, OpenEdgeError
from infinity_worker.edge.state import EdgeSettings, OpenAIErrors, OversizedResults
from infinity_worker.edge.workers import worker_environment
from infinity_worker.engine import Engine, wait_until_embedding
from infinity_worker.infinity_client import Model
from infinity_worker.serve.fleet import Fleet, FleetSettings
from infinity_worker.serve.processes import family_rss
from infinity_worker.serve.terminal import View, open_view
from infinity_worker.settings import Settings

ENDPOINT_ID = "local"
_WORKER_START_S = 60.0
_TICK_S = 0.1


class ServeError(Exception):
    """A part of the local stack did not start, or ended; the message says which."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What the command line says.

    Attributes:
        host: Where the edge listens.
        port: 0 lets the system choose.
        api_key: What clients must send; None for `EDGE_API_KEY`, or for nothing at all.
        openai_errors: How the OpenAI route delivers errors.
        oversized_results: What becomes of a job whose result is refused for its size.
        workers: How many there are.
        scale_to_zero_s: Idle workers stop after this long; None keeps them all.
        engine_per_worker: Whether each worker starts an engine of its own.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    openai_errors: OpenAIErrors = OpenAIErrors.PLATFORM
    oversized_results: OversizedResults = OversizedResults.COMPLETED
    workers: int = 1
    scale_to_zero_s: float | None = None
    engine_per_worker: bool = False


def serve(options: ServeOptions) -> NoReturn:
    """Run the local stack until it is told to end or a part of it ends.

    Raises:
        SettingsError: a variable has a value that cannot be used.
        EngineStartError: the engine did not come up.
        ServeError: the edge or a worker did not come up.
        FleetError: a worker dies again and again.
    """
    settings = Settings.from_process()
    if not settings.models and not settings.infinity_url:
        settings = Settings.from_process(demo_settings())
    if options.engine_per_worker and settings.infinity_url:
        raise ServeError("each worker is to start an engine of its own: unset INFINITY_URL")
    logs.configure(settings)
    phases: dict[str, float] = {}
    with ExitStack() as cleanup:
        with _timed(phases, "edge"):
            edge = _start_edge(options, settings, cleanup)
        engine_url, engine = None, None
        if not options.engine_per_worker:
            with _timed(phases, "engine"):
                engine_url, engine = _start_engine(settings, cleanup)
        view = cleanup.enter_context(open_view())
        # The live view stands in for standard error.
        logs.configure(settings)
        with _timed(phases, "worker" if options.workers == 1 else "workers"):
            fleet = _start_fleet(options, settings, edge, engine_url, view, cleanup)
            models = _until_ready(fleet, edge, settings, owns_engine=engine_url is None)
        view.say(examples.banner(edge.url, phases, models, keyed=bool(edge.settings.api_key)))
        while True:
            report = fleet.tick()
            view.show(fleet.slots, report, family_rss(engine.pid) if engine and engine.pid else 0)
            time.sleep(_TICK_S)


def _start_edge(options: ServeOptions, settings: Settings, cleanup: ExitStack) -> EdgeServer:
    edge_settings = EdgeSettings(
        endpoint_id=ENDPOINT_ID,
        api_key=options.api_key or settings.edge_api_key,
        worker_token=secrets.token_urlsafe(32),
        openai_errors=options.openai_errors,
        oversized_results=options.oversized_results,
    )
    try:
        edge = EdgeServer(edge_settings, host=options.host, port=options.port)
        edge.start()
    except OpenEdgeError:
        raise ServeError(
            f"{options.host} can be reached from other machines: set EDGE_API_KEY, which clients "
            "then send, or listen on 127.0.0.1"
        ) from None
    except OSError as error:
        raise ServeError(
            f"the edge cannot listen: {error.strerror}; choose another --port or --host"
        ) from None
    cleanup.callback(edge.stop)
    return edge


def _start_engine(settings: Settings, cleanup: ExitStack) -> tuple[str, Engine | None]:
    if settings.infinity_url:
        asyncio.run(wait_until_embedding(settings.infinity_url, settings))
        return settings.infinity_url, None
    engine = Engine(settings)
    cleanup.callback(engine.stop)
    engine.start()
    print("loading the models …", flush=True)
    asyncio.run(engine.ready())
    return engine.url, engine


def _start_fleet(  # noqa: PLR0913, PLR0917  # the parts that it connects
    options: ServeOptions,
    settings: Settings,
    edge: EdgeServer,
    engine_url: str | None,
    view: View,
    cleanup: ExitStack,
) -> Fleet:
    def environment(worker_id: str) -> dict[str, str]:
        return _worker_variables(settings, edge, engine_url, worker_id)

    fleet = Fleet(
        edge,
        [sys.executable, "-m", "infinity_worker"],
        environment,
        FleetSettings(options.workers, options.scale_to_zero_s),
        say=view.say,
        output=view.say if view.is_live else None,
    )
    cleanup.callback(fleet.stop)
    fleet.start()
    return fleet


def _worker_variables(
    settings: Settings, edge: EdgeServer, engine_url: str | None, worker_id: str
) -> dict[str, str]:
    """The variables of a worker on the real SDK, pointed at the edge and at its engine."""
    token = str(edge.settings.worker_token)
    variables = {
        **settings.environment,
        **worker_environment(edge.local_url, ENDPOINT_ID, worker_id, token),
        **({"INFINITY_URL": engine_url} if engine_url else {"INFINITY_PORT": "0"}),
        "RUNPOD_LOG_LEVEL": settings.environment.get("RUNPOD_LOG_LEVEL", "WARN"),
    }
    # Clients' business, not a worker's.
    variables.pop("EDGE_API_KEY", None)
    # Its presence means "on the platform", where logs are JSON; here people read them.
    del variables["RUNPOD_ENDPOINT_ID"]
    return variables


def _until_ready(
    fleet: Fleet, edge: EdgeServer, settings: Settings, *, owns_engine: bool
) -> Sequence[Model]:
    """Wait until every worker asks for jobs, and one has been answered: then everything works.

    Returns:
        What the workers serve.
    """
    limit_s = _WORKER_START_S + (settings.engine_start_timeout_s if owns_engine else 0.0)
    deadline = time.monotonic() + limit_s
    route = {"openai_route": "/v1/models", "openai_input": {}}
    job = edge.call(lambda it: it.queue.submit(route, sync=True))
    while True:
        report = fleet.tick()
        status, output = edge.call(lambda _it: (job.status, job.output))
        if fleet.deaths() or status is JobStatus.FAILED:
            raise ServeError("a worker did not come up: its log is above")
        asking = [worker.state is not WorkerState.STARTING for worker in report.workers.values()]
        if status is JobStatus.COMPLETED and all(asking):
            edge.call(lambda it: it.queue.forget(job))
            return _models(output)
        if time.monotonic() > deadline:
            raise ServeError(f"a worker did not answer within {limit_s:.0f} s")
        time.sleep(_TICK_S)


def _models(output: Sequence[Mapping[str, Sequence[Mapping[str, Sequence[str]]]]]) -> list[Model]:
    entries = output[0]["data"]
    return [Model(str(entry["id"]), frozenset(entry["capabilities"])) for entry in entries]


@contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    phases[name] = time.monotonic() - began
