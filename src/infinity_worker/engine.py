"""The Infinity process: its command line, start, readiness and end.

The engine has its own Python environment, runs in its own process group and listens on loopback
only. It listens after its models are loaded, so "connection refused" means "still loading".
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from infinity_worker.model_sources import hub_environment, resolve_models
from infinity_worker.process_group import ProcessGroup
from infinity_worker.settings import Settings

if TYPE_CHECKING:
    from infinity_worker.infinity_client import Model

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_STOP_GRACE_S = 5.0
_KILL_S = 10.0
_PROBE_TIMEOUT_S = 60.0
# The engine has no use for these, and what it does not have it cannot leak.
_WITHHELD = ("RUNPOD_", "API_KEY", "EDGE_", "INFINITY_URL", "OPENAI_", "AWS_")


class EngineState(StrEnum):
    """Where the engine process is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    DEAD = "dead"


class EngineStartError(Exception):
    """The engine did not come up; the message says why, most likely."""


class EngineLostError(Exception):
    """The engine keeps ending: starting it once more would help nobody."""


def engine_command(settings: Settings, port: int) -> list[str]:
    """The engine's command line, every behaviour that matters set explicitly."""
    command = [str(settings.engine_bin), "v2"]
    for source in resolve_models(settings):
        model = source.model
        command += ["--model-id", source.engine_source, "--served-model-name", model.name]
        command += ["--revision", source.engine_revision]
        command += ["--batch-size", str(model.batch_size), "--dtype", model.dtype]
    trust = "--trust-remote-code" if settings.trust_remote_code else "--no-trust-remote-code"
    return [
        *command,
        *("--engine", settings.backend),
        *("--device", settings.engine_device),
        *("--host", HOST),
        *("--port", str(port)),
        *("--url-prefix", ""),
        *("--log-level", "warning"),
        "--lengths-via-tokenize",
        "--no-model-warmup",
        trust,
    ]


def engine_environment(settings: Settings) -> dict[str, str]:
    """The engine's environment: the worker's, less what is none of its business."""
    environment = {
        name: value
        for name, value in settings.environment.items()
        if not name.startswith(_WITHHELD)
    }
    environment |= {
        "DO_NOT_TRACK": "1",
        "INFINITY_QUEUE_SIZE": str(settings.infinity_queue_size),
        "PYTHONUNBUFFERED": "1",
        # Its log is made for a terminal: without this, paths are broken in two.
        "COLUMNS": "900",
        # Its libraries warn about each other's deprecations, which no user can act on.
        "PYTHONWARNINGS": "ignore",
    }
    # Its libraries' bytecode is worth 8 s of each start (measured), wherever it may be written.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    for name, value in hub_environment(resolve_models(settings), settings).items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return environment


class Engine:
    """One Infinity process, which may be started again once it has ended.

    Use it as `engine.start()`, `await engine.ready()`, and `engine.stop()` on every way out.
    Start it from the main thread: with that it dies if the worker is killed (see `parent_death`).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.port = settings.infinity_port or _free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.state = EngineState.DEAD
        self._process: ProcessGroup | None = None

    @property
    def pid(self) -> int | None:
        """The id of its process group, while there is one."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the process; returns at once.

        Raises:
            EngineStartError: the engine is not installed, or its port is taken.
        """
        if not self.settings.models:
            raise EngineStartError(
                "MODEL_NAMES is not set: give Hugging Face ids or folders, separated by semicolons"
            )
        if not self.settings.engine_bin.exists():
            raise EngineStartError(
                "the engine's environment is missing: run `make setup`, or set ENGINE_BIN to an "
                "infinity_emb program, or INFINITY_URL to a running server"
            )
        if port_is_taken(self.port):
            raise EngineStartError(
                f"port {self.port} is in use by another process, perhaps an engine that an earlier "
                "run left behind: stop it, set INFINITY_PORT to another port, or set INFINITY_URL "
                "to use that server"
            )
        self.state = EngineState.STARTING
        self._process = ProcessGroup(
            engine_command(self.settings, self.port),
            engine_environment(self.settings),
            self.settings.without_secrets,
        )

    async def ready(self, mark: Callable[[str], None] = lambda _phase: None) -> "Sequence[Model]":
        """Wait until every model embeds.

        Args:
            mark: told when the engine is `listening` and when it is `embedding`.

        Raises:
            EngineStartError: the process ended, a model does not work, or it took too long.
        """
        process = self._running()
        loading = asyncio.ensure_future(wait_until_embedding(self.url, self.settings, mark))
        exited = asyncio.ensure_future(self.exited())
        try:
            await asyncio.wait({loading, exited}, return_when=asyncio.FIRST_COMPLETED)
            if exited.done():
                raise EngineStartError(await asyncio.to_thread(process.describe_exit))
            models = loading.result()
        finally:
            loading.cancel()
            exited.cancel()
        process.output.is_loading = False
        self.state = EngineState.READY
        return models

    async def exited(self) -> str:
        """Wait until the process has ended, and everything it started with it.

        Returns:
            What there is to say about it.
        """
        process = self._running()
        code = await asyncio.wrap_future(process.exited)
        self.state = EngineState.DEAD
        return f"exit code {code}: {process.output.likely_cause(code)}"

    def memory_bytes(self) -> int:
        """The resident memory of the process and everything it started."""
        return self._process.memory_bytes() if self._process else 0

    def kill(self) -> None:
        """End the process and everything it started at once: a hung one ignores SIGTERM."""
        if self._process is not None:
            self._process.send(signal.SIGKILL)

    def stop(self) -> None:
        """End the process and everything it started: ask, wait, then kill. Safe to call again."""
        process = self._process
        if process is None:
            return
        self.state = EngineState.STOPPING
        process.send(signal.SIGTERM)
        if not process.wait(_STOP_GRACE_S):
            log.warning("the engine did not end within %s s of SIGTERM: killing it", _STOP_GRACE_S)
        process.send(signal.SIGKILL)
        process.wait(_KILL_S)
        self._process = None
        self.state = EngineState.DEAD

    def _running(self) -> ProcessGroup:
        if self._process is None:
            raise EngineStartError("the engine was not started")
        return self._process


async def wait_until_embedding(
    url: str, settings: Settings, mark: Callable[[str], None] = lambda _phase: None
) -> "Sequence[Model]":
    """Wait until the server at `url` embeds with every model that it serves.

    Args:
        url: the server's.
        settings: how long it may take, and the key.
        mark: told when the server is `listening` and when it is `embedding`.

    Raises:
        EngineStartError: it took longer than `engine_start_timeout_s`, or a model does not work.
    """
    # Only now: aiohttp and numpy take a quarter of a second to import, while the engine loads.
    from infinity_worker.infinity_client import InfinityClient, InfinityError  # noqa: PLC0415
    from infinity_worker.probes import probe, wait_until_listening  # noqa: PLC0415

    limit = settings.engine_start_timeout_s
    async with InfinityClient(
        url, timeout_s=min(limit, _PROBE_TIMEOUT_S), api_key=settings.infinity_api_key
    ) as client:
        try:
            async with asyncio.timeout(limit):
                models = await wait_until_listening(client)
                mark("listening")
                # A listening engine has loaded its models, but only an embedding shows they work.
                for model in models:
                    await probe(client, model)
                mark("embedding")
                return models
        except TimeoutError:
            raise EngineStartError(
                f"the engine was not ready within {limit:.0f} s: raise ENGINE_START_TIMEOUT if its "
                "models need longer to load, and check that the address is right"
            ) from None
        except InfinityError as error:
            raise EngineStartError(
                f"the engine runs, but a model does not answer: {error}"
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def port_is_taken(port: int) -> bool:
    """Whether something listens on this port, seen from `HOST`."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False
