"""`infinity-worker serve --type load-balancing`: workers that answer HTTP, and the endpoint."""

import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NoReturn

from infinity_worker import examples, logs
from infinity_worker.backoff import Backoff
from infinity_worker.demo.models import demo_settings
from infinity_worker.edge.balancer import BalancerSettings, create_balancer
from infinity_worker.edge.pool import Health, Pool
from infinity_worker.edge.server import AppServer, is_loopback
from infinity_worker.serve.processes import WorkerProcess
from infinity_worker.serve.stack import ServeError
from infinity_worker.settings import Settings

_TICK_S = 0.1
_WORKER_START_S = 60.0
_STOP_S = 40.0
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class BalancedOptions:
    """What the command line says.

    Attributes:
        host: Where the endpoint listens.
        port: 0 lets the system choose.
        api_key: What clients must send; None for `EDGE_API_KEY`, or for nothing at all.
        workers: How many there are.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    workers: int = 1


@dataclass(slots=True)
class _Slot:
    """The place of one worker; processes come and go."""

    number: int
    worker_id: str = ""
    process: WorkerProcess | None = None
    starts: int = 0
    restart_at: float = 0.0
    told: Health = Health.SILENT
    backoff: Backoff = field(default_factory=Backoff)


def serve_balanced(options: BalancedOptions) -> NoReturn:
    """Run the endpoint and its workers until told to end. Each worker starts its own engine.

    Raises:
        SettingsError: a variable has a value that cannot be used.
        ServeError: the endpoint or a worker did not come up.
    """
    settings = Settings.from_process()
    if not settings.models and not settings.infinity_url:
        settings = Settings.from_process(demo_settings())
    logs.configure(settings)
    api_key = options.api_key or settings.edge_api_key
    if not (api_key or is_loopback(options.host)):
        raise ServeError(f"{options.host} can be reached from other machines: set EDGE_API_KEY")
    with ExitStack() as cleanup:
        pool = Pool()
        app = create_balancer(BalancerSettings(api_key), pool)
        server = AppServer(
            app, host=options.host, port=options.port, before_shutdown=app.state.closing.set
        )
        try:
            server.start()
        except OSError as error:
            raise ServeError(
                f"the endpoint cannot listen: {error.strerror}; choose another --port or --host"
            ) from None
        cleanup.callback(server.stop)
        workers = Workers(options.workers, settings.environment, pool)
        cleanup.callback(workers.stop)
        began = time.monotonic()
        deadline = began + settings.engine_start_timeout_s + _WORKER_START_S
        while not workers.all_healthy:
            workers.tick()
            if time.monotonic() > deadline:
                raise ServeError("a worker did not become healthy in time: its log is above")
            time.sleep(_TICK_S)
        took = time.monotonic() - began
        print(examples.http_banner(server.url, took, keyed=bool(api_key)), flush=True)
        while True:
            workers.tick()
            time.sleep(_TICK_S)


class Workers:
    """The workers' processes: call `tick` every tenth of a second, then `stop`.

    Args:
        count: how many there are.
        variables: their environment, beside what is set here.
        pool: told which there are.
        say: called with a sentence for each event.
    """

    def __init__(
        self,
        count: int,
        variables: Mapping[str, str],
        pool: Pool,
        say: Callable[[str], None] = print,
    ) -> None:
        self._slots = [_Slot(number) for number in range(count)]
        self._variables = variables
        self._pool = pool
        self._say = say

    @property
    def all_healthy(self) -> bool:
        """Whether every worker is in the pool."""
        return all(self._health(slot) is Health.HEALTHY for slot in self._slots)

    def tick(self) -> None:
        """Start what is not there, say what has changed.

        Raises:
            ServeError: a worker ended before it was healthy for the first time.
        """
        for slot in self._slots:
            if slot.process is None:
                if time.monotonic() >= slot.restart_at:
                    self._start(slot)
            elif slot.process.exit_status() is not None:
                self._ended(slot)
            else:
                self._tell(slot)

    def stop(self) -> None:
        """End every worker."""
        processes = [slot.process for slot in self._slots if slot.process]
        for process in processes:
            process.terminate()
        deadline = time.monotonic() + _STOP_S
        for process in processes:
            process.wait(max(0.0, deadline - time.monotonic()))
            process.kill()

    def _health(self, slot: _Slot) -> Health:
        backend = self._pool.backends.get(slot.worker_id)
        return backend.health if backend else Health.SILENT

    def _start(self, slot: _Slot) -> None:
        again = f"-{slot.starts}" if slot.starts else ""
        slot.worker_id = f"local-worker-{slot.number}{again}"
        slot.starts += 1
        slot.told = Health.SILENT
        port = _free_port()
        environment = {
            **self._variables,
            "WORKER_MODE": "http",
            "HTTP_HOST": _HOST,
            "PORT": str(port),
            "INFINITY_PORT": "0",
        }
        # The endpoint's business, not a worker's.
        for name in ("EDGE_API_KEY", "API_KEY", "PORT_HEALTH"):
            environment.pop(name, None)
        slot.process = WorkerProcess([sys.executable, "-m", "infinity_worker"], environment)
        self._pool.add(slot.worker_id, f"http://{_HOST}:{port}")

    def _ended(self, slot: _Slot) -> None:
        assert slot.process is not None  # noqa: S101  # narrows the type
        status = slot.process.exit_status() or 0
        was_healthy = slot.told is not Health.SILENT and slot.told is not Health.INITIALIZING
        slot.process.kill()  # what it may have left behind
        slot.process = None
        self._pool.remove(slot.worker_id)
        if slot.starts == 1 and not was_healthy:
            raise ServeError("a worker did not come up: its log is above")
        if was_healthy:
            slot.backoff.reset()
        slot.restart_at = time.monotonic() + slot.backoff.next_s()
        how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        self._say(f"worker {slot.number} ended ({how}): starting it again")

    def _tell(self, slot: _Slot) -> None:
        backend = self._pool.backends[slot.worker_id]
        if backend.health is slot.told:
            return
        slot.told = backend.health
        cold = backend.cold_start_s
        after = f", {cold:.1f} s from its first 204" if slot.told is Health.HEALTHY and cold else ""
        self._say(f"worker {slot.number} is {slot.told}{after}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
