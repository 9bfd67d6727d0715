"""`infinity-worker doctor`: look at this machine, and say what to do about what is wrong.

What is found out here is judged in `diagnosis.py`. Nothing is installed or changed, and no value of
a setting is shown but one that cannot be used.
"""

import argparse
import asyncio
import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from infinity_worker.demo.models import demo_settings
from infinity_worker.diagnosis import (
    Engine,
    Environment,
    Facts,
    Finding,
    Gpu,
    ModelPlace,
    PortUser,
    Status,
    diagnose,
)
from infinity_worker.engine import HOST, engine_environment, port_is_taken
from infinity_worker.infinity_client import InfinityClient, InfinityError
from infinity_worker.model_sources import (
    ModelSource,
    Origin,
    explain,
    resolve_models,
    tokenizer_folder,
)
from infinity_worker.settings import Settings
from infinity_worker.variables import SettingsError

_ROOT = Settings.default_engine_bin().parents[3]
_PROBE_S = 5.0
_SCRIPT_S = 60.0
# Importing all that the engine imports took 10 s here.
_ENGINE_HELP_S = 120.0
_SHOWN_CHARS = 200


def register(commands: Any) -> None:
    """Add `doctor` to the subparsers of the command line."""
    parser = commands.add_parser("doctor", help="say what is wrong here, and what to do about it")
    parser.add_argument("--port", type=int, default=8000, help="the local edge's port")
    parser.add_argument("--quick", action="store_true", help="do not start the engine's program")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Look, print the findings, and return the exit status: 1 if there is a problem."""
    if not arguments.quick:
        print("starting the engine's program takes a few seconds …", file=sys.stderr)
    findings = diagnose(gather(arguments.port, start_engine=not arguments.quick))
    problems = sum(finding.status is Status.PROBLEM for finding in findings)
    if arguments.json:
        listed = [dataclasses.asdict(finding) for finding in findings]
        print(orjson.dumps({"problems": problems, "findings": listed}).decode())
    else:
        print("\n".join(map(_line, findings)))
        print(f"\n{problems or 'no'} problem{'' if problems == 1 else 's'} found")
    return 1 if problems else 0


def _line(finding: Finding) -> str:
    message = finding.message.replace("\n", f"\n{'':11}")
    line = f"{finding.status.value:8} {finding.check}: {message}"
    return f"{line}\n{'':9}→ {finding.advice}" if finding.advice else line


def gather(edge_port: int, *, start_engine: bool) -> Facts:
    """Find out what there is; what cannot be found out stays "not known"."""
    settings_error = None
    try:
        settings = Settings.from_process()
        if not settings.models and not settings.infinity_url:
            settings = Settings.from_process(demo_settings())
    except SettingsError as error:
        settings_error = str(error)
        settings = Settings(engine_bin=Settings.default_engine_bin())
    uv = _uv_version()
    url = settings.infinity_url
    return Facts(
        python=sys.version_info[:2],
        uv=uv,
        worker_environment=_worker_environment() if uv else Environment.UNKNOWN,
        settings_error=settings_error,
        engine=None if url else _engine(settings, start=start_engine),
        url_failure=asyncio.run(_infinity_failure(url, settings)) if url else "",
        gpu=_gpu(settings),
        edge_port=edge_port,
        edge_user=_port_user(edge_port),
        memory_mb=_memory_mb(),
        disk_mb=_disk_mb(),
    )


def _succeeds(command: Sequence[str]) -> bool | None:
    """Whether a script of the checkout ends with status 0; None if it cannot be run."""
    try:
        done = subprocess.run(
            command,
            cwd=_ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SCRIPT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.returncode == 0


def _uv_version() -> str | None:
    """The uv that `scripts/uv.sh` would run; "" if it would install one; None without scripts."""
    try:
        script = (_ROOT / "scripts" / "uv.sh").read_text(encoding="utf-8")
    except OSError:
        return None
    wanted = re.search(r"^UV_VERSION=(\S+)$", script, re.MULTILINE)
    if wanted is None:
        return None
    if (_ROOT / ".tools" / f"uv-{wanted[1]}" / "bin" / "uv").exists():
        return wanted[1]
    return wanted[1] if f" {wanted[1]} " in f"{_first_line(['uv', '--version'])} " else ""


def _worker_environment() -> Environment:
    check = ["scripts/setup-worker.sh", "--check", "--offline"]
    # A container has it without the tools for development.
    answers = [_succeeds(check), _succeeds([*check, "--no-dev"])]
    if any(answers):
        return Environment.MATCHES
    return Environment.UNKNOWN if None in answers else Environment.DIFFERS


def _engine(settings: Settings, *, start: bool) -> Engine:
    installed = settings.engine_bin.exists()
    return Engine(
        environment=_engine_lock(settings),
        installed=installed,
        failure=_start_failure(settings) if installed and start else None,
        tried=start,
        port_number=settings.infinity_port,
        port_user=_port_user(settings.infinity_port) if settings.infinity_port else PortUser.NOBODY,
        models=tuple(
            (source.model.name, _place(source, settings)) for source in resolve_models(settings)
        ),
        choices=tuple(explain(settings)),
        offline=settings.environment.get("HF_HUB_OFFLINE", "").lower()
        in {"1", "true", "yes", "on"},
    )


def _engine_lock(settings: Settings) -> Environment:
    if settings.engine_bin != Settings.default_engine_bin():
        return Environment.UNKNOWN
    if not settings.engine_bin.exists():
        return Environment.MISSING
    matches = _succeeds(["scripts/setup-engine.sh", "--check"])
    if matches is None:
        return Environment.UNKNOWN
    return Environment.MATCHES if matches else Environment.DIFFERS


def _start_failure(settings: Settings) -> str | None:
    """What the engine's program says last if it does not even print its help."""
    try:
        done = subprocess.run(
            [str(settings.engine_bin), "v2", "--help"],
            env=engine_environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_ENGINE_HELP_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it does not print its help within {_ENGINE_HELP_S:.0f} s"
    except OSError as error:
        return str(error.strerror)
    if done.returncode == 0:
        return None
    lines = done.stderr.split("\n") + done.stdout.split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:_SHOWN_CHARS] if said else f"exit status {done.returncode}"


def _place(source: ModelSource, settings: Settings) -> ModelPlace:
    if source.origin is not Origin.HUB:
        return ModelPlace[source.origin.name]
    try:
        tokenizer_folder(source, settings)
    except OSError:
        # A model's name on the hub is `organisation/name`; any other path is one of a folder.
        name = source.model.source
        is_path = name.startswith(("/", ".", "~")) or name.count("/") > 1
        return ModelPlace.NO_FOLDER if is_path else ModelPlace.HUB
    return ModelPlace.CACHE


def _gpu(settings: Settings) -> Gpu:
    # The same signs as in scripts/setup-engine.sh.
    devices = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    stamp = _ROOT / "engine" / ".venv" / ".stamp"
    flavour = stamp.read_text(encoding="utf-8").split()[:1] if stamp.exists() else []
    return Gpu(
        devices=devices,
        names=tuple(_lines(query)) if devices else (),
        wanted=settings.engine_device,
        cuda_engine=flavour == ["cuda"] if flavour else None,
    )


def _first_line(command: Sequence[str]) -> str:
    return next(iter(_lines(command)), "")


def _lines(command: Sequence[str]) -> list[str]:
    """What a program prints; nothing if it is not there or fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SCRIPT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _port_user(number: int) -> PortUser:
    if not port_is_taken(number):
        return PortUser.NOBODY
    return asyncio.run(_who_answers(f"http://{HOST}:{number}"))


async def _who_answers(url: str) -> PortUser:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_PROBE_S)) as session:
        try:
            async with session.get(f"{url}/v2/local/health") as response:
                if response.status == HTTPStatus.UNAUTHORIZED:
                    # An edge with a key: nothing else here asks for one at that address.
                    return PortUser.EDGE
                if response.status == HTTPStatus.OK:
                    health = await response.json()
                    if isinstance(health, dict) and {"jobs", "workers"} <= health.keys():
                        return PortUser.EDGE
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return PortUser.OTHER
    failure = await _infinity_failure(url, Settings())
    return PortUser.OTHER if failure else PortUser.INFINITY


async def _infinity_failure(url: str, settings: Settings) -> str:
    """Why the server cannot be used; empty if it lists its models."""
    async with InfinityClient(url, timeout_s=_PROBE_S, api_key=settings.infinity_api_key) as client:
        try:
            await client.models()
        except InfinityError as error:
            return str(error)
    return ""


def _memory_mb() -> int | None:
    """What programs can have now: the machine's, or less where a control group limits it."""
    try:
        report = Path("/proc/meminfo").read_text(encoding="utf-8")
    except OSError:
        return None
    available = re.search(r"^MemAvailable:\s+(\d+) kB", report, re.MULTILINE)
    if available is None:
        return None
    limits = [int(available[1]) // 1_000]
    group = Path("/sys/fs/cgroup")
    try:
        limit = (group / "memory.max").read_text(encoding="utf-8")
        used = int((group / "memory.current").read_text(encoding="utf-8"))
        limits.append((int(limit) - used) // 1_000_000)
    except (OSError, ValueError):
        pass  # there is no group, or it says "max"
    return min(limits)


def _disk_mb() -> int | None:
    try:
        return shutil.disk_usage(_ROOT).free // 1_000_000
    except OSError:
        return None
