"""What a measurement ran on. Neither the host's name nor any path is in it."""

import importlib.metadata
import os
import platform
from pathlib import Path

import psutil

_PACKAGES = ("runpod", "aiohttp", "orjson", "numpy", "uvloop", "httptools")


def describe_machine() -> dict[str, str]:
    """The machine and the versions, for people and for JSON."""
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    } | {package: importlib.metadata.version(package) for package in _PACKAGES}


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()
