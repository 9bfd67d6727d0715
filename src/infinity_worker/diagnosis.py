"""What `infinity-worker doctor` makes of what it found out. Pure: facts in, findings out."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# The engine with all demo models took 570 MB, a worker and the edge 260 MB more (measured).
_MEMORY_MB: Final = 1_000
# For models and logs, once both environments are there.
_DISK_MB: Final = 1_000
# Both environments take 1.5 GB with the CPU build of PyTorch (measured). The wheels of the CUDA
# build are 2.7 GB (by the lock), and lie on the disk packed and unpacked.
_DISK_FOR_CPU_MB: Final = 2_500
_DISK_FOR_CUDA_MB: Final = 10_000
_PYTHONS: Final = ((3, 11), (3, 13))


class Status(StrEnum):
    """How a finding is meant; only a problem is something wrong."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        check: what was looked at.
        status: whether it is right.
        message: what was found.
        advice: what to do about it; empty if nothing.
    """

    check: str
    status: Status
    message: str
    advice: str = ""


class Environment(StrEnum):
    """How an environment stands to its lock."""

    MATCHES = "matches"
    DIFFERS = "differs"
    MISSING = "missing"
    UNKNOWN = "unknown"


class PortUser(StrEnum):
    """Who seems to listen on a port, by what it answers."""

    NOBODY = "nobody"
    INFINITY = "an Infinity server"
    EDGE = "a local edge"
    OTHER = "another program"


class ModelPlace(StrEnum):
    """Where a model's files are."""

    FOLDER = "a folder on this machine"
    NO_FOLDER = "no such folder"
    RUNPOD_CACHE = "RunPod's cached model"
    IMAGE = "baked into the image"
    VOLUME = "on the network volume"
    CACHE = "in the model hub's cache"
    HUB = "on the model hub"


@dataclass(frozen=True, slots=True)
class Gpu:
    """What is known of NVIDIA hardware.

    Attributes:
        devices: whether there are device files of it.
        names: what the driver says: a name and a driver version for each.
        wanted: the setting `ENGINE_DEVICE`.
        cuda_engine: whether the engine's environment has CUDA; None where that is not known.
    """

    devices: bool = False
    names: tuple[str, ...] = ()
    wanted: str = "auto"
    cuda_engine: bool | None = None


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that would be started.

    Attributes:
        environment: how its environment stands to its lock.
        installed: whether its program is there.
        failure: what it said last when it did not start; None if it did or was not tried.
        tried: whether it was started.
        port_number: where it would listen; 0 lets the system choose.
        port_user: who listens there now.
        models: by name, where its models are.
        choices: lines that say where each model would be loaded from, and why from there.
        offline: whether the model hub may not be asked.
    """

    environment: Environment = Environment.UNKNOWN
    installed: bool = True
    failure: str | None = None
    tried: bool = False
    port_number: int = 7997
    port_user: PortUser = PortUser.NOBODY
    models: tuple[tuple[str, ModelPlace], ...] = ()
    choices: tuple[str, ...] = ()
    offline: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """What was found out; None is "not known".

    Attributes:
        python: version of the running interpreter.
        uv: version of uv that the scripts would use, or "" for none.
        worker_environment: how the worker's environment stands to its lock.
        settings_error: why the settings cannot be read, if so.
        engine: the engine that would be started; None where `INFINITY_URL` names one.
        url_failure: why the server at `INFINITY_URL` cannot be used; "" if it can.
        gpu: NVIDIA hardware.
        edge_port: the edge's port.
        edge_user: who listens there now.
        memory_mb: memory that programs can have now.
        disk_mb: free space where the checkout is.
    """

    python: tuple[int, int] = (3, 11)
    uv: str | None = None
    worker_environment: Environment = Environment.UNKNOWN
    settings_error: str | None = None
    engine: Engine | None = None
    url_failure: str = ""
    gpu: Gpu = Gpu()
    edge_port: int = 8000
    edge_user: PortUser = PortUser.NOBODY
    memory_mb: int | None = None
    disk_mb: int | None = None


def diagnose(facts: Facts) -> list[Finding]:
    """Judge the facts, in the order in which things would go wrong."""
    return list(_findings(facts))


def _findings(facts: Facts) -> Iterator[Finding]:
    yield _python(facts.python)
    yield _uv(facts.uv)
    yield _environment("worker environment", facts.worker_environment)
    yield _settings(facts.settings_error)
    if facts.engine is None:
        yield _engine_url(facts.url_failure)
    else:
        yield _environment("engine environment", facts.engine.environment)
        yield _program(facts.engine)
        yield _gpu(facts.gpu)
        for name, place in facts.engine.models:
            yield _model(name, place, offline=facts.engine.offline)
        if facts.engine.choices:
            yield Finding("models at start", Status.OK, "\n".join(facts.engine.choices))
        yield _engine_port(facts.engine, edge_runs=facts.edge_user is PortUser.EDGE)
    yield _edge_port(facts.edge_port, facts.edge_user)
    yield _memory(facts.memory_mb)
    yield _disk(facts)


def _python(version: tuple[int, int]) -> Finding:
    low, high = _PYTHONS
    if low <= version <= high:
        return Finding("Python", Status.OK, _dotted(version))
    advice = "make it again with such a Python: make clean setup"
    needed = f"{_dotted(version)}; {_dotted(low)} to {_dotted(high)} is needed"
    return Finding("Python", Status.PROBLEM, needed, advice)


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _uv(version: str | None) -> Finding:
    if version is None:
        return Finding("uv", Status.NOTE, "not looked for: this is no checkout of the project")
    if not version:
        return Finding("uv", Status.NOTE, "not there yet: `make setup` installs it into .tools/")
    return Finding("uv", Status.OK, version)


def _environment(check: str, state: Environment) -> Finding:
    match state:
        case Environment.MATCHES:
            return Finding(check, Status.OK, "matches its lock")
        case Environment.DIFFERS:
            return Finding(check, Status.PROBLEM, "differs from its lock", "run `make setup`")
        case Environment.MISSING:
            return Finding(check, Status.PROBLEM, "is missing", "run `make setup`")
    return Finding(check, Status.NOTE, "cannot be compared with its lock here")


def _settings(error: str | None) -> Finding:
    if error:
        return Finding("settings", Status.PROBLEM, error, "see the table of settings in README.md")
    return Finding("settings", Status.OK, "can be read")


def _engine_url(failure: str) -> Finding:
    if failure:
        advice = "start that server, correct INFINITY_URL, or unset it to start an engine here"
        return Finding("INFINITY_URL", Status.PROBLEM, failure, advice)
    return Finding("INFINITY_URL", Status.OK, "an Infinity server answers there")


def _program(engine: Engine) -> Finding:
    check = "engine program"
    if not engine.installed:
        advice = "run `make setup`, or set ENGINE_BIN to an infinity_emb program"
        return Finding(check, Status.PROBLEM, "is missing", advice)
    if engine.failure is not None:
        advice = "make its environment again: rm -r engine/.venv && make setup"
        return Finding(check, Status.PROBLEM, f"does not start: {engine.failure}", advice)
    if not engine.tried:
        return Finding(check, Status.NOTE, "is there; --quick does not start it")
    return Finding(check, Status.OK, "starts")


def _gpu(gpu: Gpu) -> Finding:
    needs_gpu = gpu.wanted == "cuda"
    if not gpu.devices:
        if needs_gpu:
            advice = (
                "unset ENGINE_DEVICE; in a container, start it with the GPU (docker: --gpus all)"
            )
            return Finding(
                "GPU", Status.PROBLEM, "ENGINE_DEVICE is cuda, and there is none", advice
            )
        return Finding("GPU", Status.NOTE, "no NVIDIA GPU: the engine runs on the CPU")
    if not gpu.names:
        advice = "install the NVIDIA driver and nvidia-smi, or set ENGINE_DEVICE=cpu"
        status = Status.NOTE if gpu.wanted == "cpu" else Status.PROBLEM
        return Finding("GPU", status, "a device is there, but its driver does not answer", advice)
    found = "; ".join(gpu.names)
    if gpu.cuda_engine is False and gpu.wanted != "cpu":
        advice = "install the CUDA build: ENGINE_TORCH=cuda make setup"
        return Finding("GPU", Status.PROBLEM, f"{found}, but the engine has no CUDA", advice)
    return Finding("GPU", Status.OK, found)


def _model(name: str, place: ModelPlace, *, offline: bool) -> Finding:
    check = f"model {name}"
    if place is ModelPlace.NO_FOLDER:
        return Finding(
            check, Status.PROBLEM, place.value, "correct MODEL_NAMES, or run `make setup`"
        )
    if place is ModelPlace.HUB and offline:
        advice = "unset HF_HUB_OFFLINE for one start, or set HF_HOME to where the models are"
        return Finding(
            check, Status.PROBLEM, "not on this machine, and HF_HUB_OFFLINE is set", advice
        )
    if place is ModelPlace.HUB:
        return Finding(check, Status.NOTE, "not on this machine: the engine will download it")
    return Finding(check, Status.OK, place.value)


def _engine_port(engine: Engine, *, edge_runs: bool) -> Finding:
    check = f"port {engine.port_number} (engine)"
    if engine.port_number == 0:
        return Finding("engine port", Status.OK, "the system will choose one")
    if engine.port_user is PortUser.NOBODY:
        return Finding(check, Status.OK, "is free")
    used = f"is in use, it seems by {engine.port_user.value}"
    if engine.port_user is PortUser.INFINITY and edge_runs:
        return Finding(check, Status.NOTE, f"{used}: `make serve` seems to run")
    advice = "stop it, or set INFINITY_PORT to another port"
    if engine.port_user is PortUser.INFINITY:
        advice += f", or use it: INFINITY_URL=http://127.0.0.1:{engine.port_number}"
    return Finding(check, Status.PROBLEM, used, advice)


def _edge_port(number: int, user: PortUser) -> Finding:
    check = f"port {number} (local edge)"
    if user is PortUser.NOBODY:
        return Finding(check, Status.OK, "is free")
    used = f"is in use, it seems by {user.value}"
    if user is PortUser.EDGE:
        return Finding(check, Status.NOTE, f"{used}: `make serve` seems to run")
    advice = "stop it, or choose another port: make serve ARGS='--port 9000'"
    return Finding(check, Status.PROBLEM, used, advice)


def _memory(available: int | None) -> Finding:
    if available is None:
        return Finding("memory", Status.NOTE, "not known")
    found = f"{available:,} MB available"
    if available < _MEMORY_MB:
        advice = f"free some: engine and worker take {_MEMORY_MB:,} MB with the demo models"
        return Finding("memory", Status.PROBLEM, found, advice)
    return Finding("memory", Status.OK, found)


def _disk(facts: Facts) -> Finding:
    if facts.disk_mb is None:
        return Finding("disk", Status.NOTE, "not known")
    needed = _DISK_MB
    if facts.engine is not None and facts.engine.environment is Environment.MISSING:
        needed = _DISK_FOR_CUDA_MB if facts.gpu.devices else _DISK_FOR_CPU_MB
    found = f"{facts.disk_mb:,} MB free"
    if facts.disk_mb < needed:
        return Finding("disk", Status.PROBLEM, found, f"free some: {needed:,} MB are needed")
    return Finding("disk", Status.OK, found)
