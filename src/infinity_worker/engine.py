"""The Infinity process: its command line, start, readiness and end.

The engine has its own Python environment, runs in its own process group and listens on loopback
only. It listens after its models are loaded, so "connection refused" means "still loading".
"""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import IO

from infinity_worker.infinity_client import InfinityClient, InfinityError, Model, wait_for_models
from infinity_worker.model_sources import hub_environment, resolve_models
from infinity_worker.settings import Settings

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
_LAST_LINES = 40
_LINE_CHARS = 1_000
_EXIT_CHECK_S = 0.05
_STOP_GRACE_S = 5.0
_DRAIN_JOIN_S = 0.5
_PROBE_TIMEOUT_S = 60.0
_QUOTED_LINES = 15
# The engine has no use for these, and what it does not have it cannot leak.
_WITHHELD = ("RUNPOD_", "INFINITY_URL", "OPENAI_", "AWS_")

# What a failed start most likely means, by what the last lines say; the first match counts.
_CAUSES = {
    r"address already in use|errno 98": (
        "its port is in use: stop the other server, or set INFINITY_PORT"
    ),
    r"out of memory|OutOfMemoryError|Cannot allocate memory|MemoryError": (
        "it ran out of memory: choose a smaller model or dtype, or a larger machine"
    ),
    r"gated repo|401 Client Error|403 Client Error|restricted": (
        "the model is gated or private: set HF_TOKEN to a token that may read it"
    ),
    r"couldn't connect|LocalEntryNotFound|OfflineModeIsEnabled|Max retries exceeded": (
        "the model is not on this machine and the model hub cannot be reached: check MODEL_NAMES, "
        "the network, and HF_HUB_OFFLINE"
    ),
    r"not a valid model identifier|not a local folder|Repository Not Found|404 Client Error"
    r"|No such file|does not appear to have a file|Unrecognized model|HFValidationError": (
        "the model was not found: check MODEL_NAMES"
    ),
    r"No such option|Invalid value for": "it does not know one of its options",
}


class EngineState(StrEnum):
    """Where the engine process is in its life."""

    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    DEAD = "dead"


class EngineStartError(Exception):
    """The engine did not come up; the message says why, most likely."""


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


def likely_cause(lines: Sequence[str], exit_code: int | None) -> str:
    """Say in a sentence what a failed start most likely means."""
    text = "\n".join(lines)
    for pattern, cause in _CAUSES.items():
        if re.search(pattern, text, re.IGNORECASE):
            return cause
    if exit_code == -signal.SIGKILL:
        return "it was killed, most likely for want of memory: choose a smaller model or machine"
    return "see its last lines"


class Engine:
    """One Infinity process.

    Use it as `engine.start()`, `await engine.ready()`, and `engine.stop()` on every way out.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.port = settings.infinity_port or _free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.state = EngineState.DEAD
        self._process: subprocess.Popen[str] | None = None
        self._last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._drain: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
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
        if _port_is_taken(self.port):
            raise EngineStartError(
                f"port {self.port} is in use by another process, perhaps an engine that an earlier "
                "run left behind: stop it, set INFINITY_PORT to another port, or set INFINITY_URL "
                "to use that server"
            )
        self.state = EngineState.STARTING
        self._process = subprocess.Popen(
            engine_command(self.settings, self.port),
            env=engine_environment(self.settings),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
        self._drain = threading.Thread(
            target=self._drain_output, args=(self._process.stdout,), name="engine-log", daemon=True
        )
        self._drain.start()

    async def ready(self) -> Sequence[Model]:
        """Wait until every model embeds.

        Raises:
            EngineStartError: the process ended, a model does not work, or it took too long.
        """
        loading = asyncio.ensure_future(wait_until_embedding(self.url, self.settings))
        exited = asyncio.ensure_future(self._exited())
        try:
            await asyncio.wait({loading, exited}, return_when=asyncio.FIRST_COMPLETED)
            if not loading.done():
                raise EngineStartError(await asyncio.to_thread(self._describe_exit))
            models = loading.result()
        finally:
            loading.cancel()
            exited.cancel()
        self.state = EngineState.READY
        return models

    async def _exited(self) -> None:
        # The process is a plain one, known to no event loop, so that it outlives all of them.
        while self._process is not None and self._process.poll() is None:  # noqa: ASYNC110
            await asyncio.sleep(_EXIT_CHECK_S)

    def _describe_exit(self) -> str:
        self.state = EngineState.DEAD
        if self._drain is not None:
            self._drain.join(_DRAIN_JOIN_S)
        code = self._process.returncode if self._process else None
        lines = list(self._last_lines)
        quoted = "".join(f"\n  engine: {line}" for line in lines[-_QUOTED_LINES:])
        cause = likely_cause(lines, code)
        return f"the engine ended while loading (exit code {code}): {cause}{quoted}"

    def stop(self) -> None:
        """End the process and everything it started: ask, wait, then kill. Safe to call again."""
        process = self._process
        if process is None:
            return
        self.state = EngineState.STOPPING
        _signal_group(process, signal.SIGTERM)
        try:
            process.wait(_STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            log.warning("the engine did not end within %s s of SIGTERM: killing it", _STOP_GRACE_S)
        _signal_group(process, signal.SIGKILL)
        process.wait()
        if self._drain is not None:
            self._drain.join(_DRAIN_JOIN_S)
        if process.stdout is not None:
            process.stdout.close()
        self._process = None
        self.state = EngineState.DEAD

    def _drain_output(self, pipe: IO[str]) -> None:
        """Pass the engine's lines to the log; an undrained pipe would block the engine."""
        for line in pipe:
            text = self.settings.without_secrets(line.rstrip())[:_LINE_CHARS]
            if text:
                self._last_lines.append(text)
                log.info("engine: %s", text)


async def wait_until_embedding(url: str, settings: Settings) -> Sequence[Model]:
    """Wait until the server at `url` embeds with every model that it serves.

    Raises:
        EngineStartError: it took longer than `engine_start_timeout_s`, or a model does not work.
    """
    limit = settings.engine_start_timeout_s
    async with InfinityClient(
        url, timeout_s=min(limit, _PROBE_TIMEOUT_S), api_key=settings.infinity_api_key
    ) as client:
        try:
            async with asyncio.timeout(limit):
                return await wait_for_models(client)
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


def _port_is_taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _signal_group(process: subprocess.Popen[str], number: signal.Signals) -> None:
    # The group outlives its leader as long as a child of it lives.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
