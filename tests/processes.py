"""Starting and ending real processes in tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

TESTS = Path(__file__).parent
ROOT = TESTS.parent
BOUND_S = 60.0


def clean_environment(**extra: str) -> dict[str, str]:
    """This process's environment without what would redirect a worker, plus `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RUNPOD_", "INFINITY_", "MODEL_", "FAKE_"))
        and not name.lower().endswith("_proxy")
    }
    return kept | extra


@contextmanager
def running(
    command: Sequence[str], environment: Mapping[str, str], *, output: int | IO[str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a command in a process group of its own, which is gone afterwards."""
    process = subprocess.Popen(
        command,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=None if output is None else subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(BOUND_S)
        if process.stdout is not None:
            process.stdout.close()


def worker_command() -> list[str]:
    """The container's entry."""
    return [sys.executable, "-m", "infinity_worker"]


def write_engine_program(folder: Path) -> Path:
    """A program that takes `infinity_emb`'s command line and is the fake engine."""
    program = folder / "infinity_emb"
    fake = TESTS / "fakes" / "fake_engine.py"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" "$@"\n')
    program.chmod(0o755)
    return program
