"""`infinity-worker`: the command line.

`serve` runs the whole of it on this machine: the Infinity engine, a worker on the real RunPod SDK,
and the local edge in front of them. `plan` says how many workers a load needs.
"""

import argparse
import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn

import aiohttp

from infinity_worker import examples, logs
from infinity_worker.demo.models import demo_settings
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.state import EdgeSettings
from infinity_worker.edge.workers import worker_environment
from infinity_worker.engine import Engine, EngineStartError, wait_until_embedding
from infinity_worker.infinity_client import Model
from infinity_worker.settings import Settings, SettingsError
from infinity_worker.sizing import command as sizing
from infinity_worker.sizing.costs import SizingError

ENDPOINT_ID = "local"
_WORKER_START_S = 60.0
_WORKER_STOP_S = 40.0
_CHECK_S = 0.1


class ServeError(Exception):
    """A part of the local stack did not start, or ended; the message says which."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the result is the process's exit status."""
    parser = argparse.ArgumentParser(prog="infinity-worker", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve_parser = commands.add_parser("serve", help="run engine, worker and local edge here")
    serve_parser.add_argument("--host", default="127.0.0.1", help="where the edge listens")
    serve_parser.add_argument("--port", type=int, default=8000, help="0 lets the system choose")
    plan_parser = commands.add_parser("plan", help="how many workers, with which settings")
    sizing.add_arguments(plan_parser)
    arguments = parser.parse_args(argv)
    if arguments.command == "plan":
        return _plan(arguments)
    signal.signal(signal.SIGTERM, _leave)
    # A shell starts background processes with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return serve(arguments.host, arguments.port)
    except KeyboardInterrupt:
        return 130
    except (SettingsError, EngineStartError, ServeError) as error:
        print(f"infinity-worker: {error}", file=sys.stderr)
        return 1


def _plan(arguments: argparse.Namespace) -> int:
    try:
        for line in sizing.run(arguments):
            print(line)
    except SizingError as error:
        print(f"infinity-worker: {error}", file=sys.stderr)
        return 1
    return 0


def serve(host: str, port: int) -> NoReturn:
    """Run the local stack until it is told to end or a part of it ends.

    Raises:
        SettingsError: a variable has a value that cannot be used.
        EngineStartError: the engine did not come up.
        ServeError: the worker or the edge did not come up, or a part ended.
    """
    settings = Settings.from_process()
    if not settings.models and not settings.infinity_url:
        settings = Settings.from_process(demo_settings())
    logs.configure(settings)
    phases: dict[str, float] = {}
    with ExitStack() as cleanup:
        with _timed(phases, "edge"):
            edge = EdgeServer(EdgeSettings(endpoint_id=ENDPOINT_ID), host=host, port=port)
            _start_edge(edge)
            cleanup.callback(edge.stop)
        with _timed(phases, "engine"):
            engine_url, models = _start_engine(settings, cleanup)
        with _timed(phases, "worker"):
            worker = _start_worker(settings, edge.url, engine_url)
            cleanup.callback(_stop_worker, worker, edge)
            asyncio.run(_await_first_answer(edge.url, worker))
        print(examples.banner(edge.url, phases, models), flush=True)
        while worker.poll() is None:
            time.sleep(_CHECK_S)
        raise ServeError(f"the worker ended with exit status {worker.returncode}")


def _start_edge(edge: EdgeServer) -> None:
    try:
        edge.start()
    except OSError as error:
        raise ServeError(
            f"the edge cannot listen: {error.strerror}; choose another --port"
        ) from None


def _start_engine(settings: Settings, cleanup: ExitStack) -> tuple[str, Sequence[Model]]:
    if settings.infinity_url:
        url = settings.infinity_url
        return url, asyncio.run(wait_until_embedding(url, settings))
    engine = Engine(settings)
    cleanup.callback(engine.stop)
    engine.start()
    print("loading the models …", flush=True)
    return engine.url, asyncio.run(engine.ready())


def _start_worker(settings: Settings, edge_url: str, engine_url: str) -> subprocess.Popen[bytes]:
    """Start a worker process on the real SDK, pointed at the edge and at the engine."""
    environment = {
        **settings.environment,
        **worker_environment(edge_url, ENDPOINT_ID, "local-worker-0"),
        "INFINITY_URL": engine_url,
        "RUNPOD_LOG_LEVEL": settings.environment.get("RUNPOD_LOG_LEVEL", "WARN"),
    }
    # Its presence means "on the platform", where logs are JSON; here people read them.
    del environment["RUNPOD_ENDPOINT_ID"]
    return subprocess.Popen(
        [sys.executable, "-m", "infinity_worker"],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


async def _await_first_answer(edge_url: str, worker: subprocess.Popen[bytes]) -> None:
    """Send one job through the edge and wait until it is answered: then everything works."""
    route = {"openai_route": "/v1/models", "openai_input": {}}
    try:
        async with (
            asyncio.timeout(_WORKER_START_S),
            aiohttp.ClientSession(f"{edge_url}/v2/{ENDPOINT_ID}/") as session,
        ):
            async with session.post("run", json={"input": route}) as response:
                job_id = (await response.json())["id"]
            status = ""
            while status != "COMPLETED":
                await asyncio.sleep(_CHECK_S)
                if status == "FAILED" or worker.poll() is not None:
                    raise ServeError("the worker did not come up: its log is above")
                async with session.get(f"status/{job_id}") as response:
                    status = (await response.json())["status"]
    except TimeoutError:
        raise ServeError(f"the worker did not answer within {_WORKER_START_S:.0f} s") from None


def _stop_worker(worker: subprocess.Popen[bytes], edge: EdgeServer) -> None:
    worker.terminate()
    # The SDK waits for its open polls: they end with the edge.
    edge.stop()
    try:
        worker.wait(_WORKER_STOP_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


@contextmanager
def _timed(phases: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    phases[name] = time.monotonic() - began


def _leave(_number: int, _frame: FrameType | None) -> None:
    """End by an exception, so that every part is stopped on the way out."""
    raise SystemExit(0)
