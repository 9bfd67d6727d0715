"""What several integration tests share."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from processes import TESTS, clean_environment, running


@pytest.fixture(scope="module")
def fake_engine() -> Iterator[str]:
    """The URL of a fake engine in a process of its own."""
    program = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    with running(program, clean_environment(), output=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
