"""A job of many large pictures takes a bounded share of the worker's memory."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest

from corpus import encoded
from fakes.image_host import ImageHost
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment
from processes import TESTS, clean_environment, running, worker_command

BOUND_S = 110.0


def photo() -> bytes:
    """A JPEG of 12 megapixels and 5.5 MB: noise that is smoothed, as photographs are."""
    noise = np.random.default_rng(1).integers(0, 256, (750, 1000, 3), np.uint8)
    large = PIL.Image.fromarray(noise).resize((4000, 3000), PIL.Image.Resampling.BICUBIC)
    return encoded(large, "JPEG", quality=88)


def peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1e3
    raise AssertionError("the kernel tells no peak")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak of memory")
async def test_a_hundred_photos_in_one_job_stay_under_600_mb() -> None:
    program = [sys.executable, str(TESTS / "fakes" / "fake_engine.py")]
    with (
        EdgeServer() as edge,
        running(program, clean_environment(), output=subprocess.PIPE) as engine,
    ):
        assert engine.stdout is not None
        environment = clean_environment(
            **worker_environment(edge.url, "local", "w0"),
            INFINITY_URL=(await asyncio.to_thread(engine.stdout.readline)).strip(),
            IMAGE_ALLOWED_HOSTS="127.0.0.1",
        )
        async with ImageHost(photo()) as host, httpx.AsyncClient(timeout=BOUND_S) as client:
            with running(worker_command(), environment) as worker:
                job = {"image": [f"{host.url}/ok{at}" for at in range(100)], "model": "fake-clip"}
                reply = await client.post(
                    f"{edge.url}/v2/local/runsync?wait=100000", json={"input": job}
                )
                envelope: dict[str, Any] = reply.json()
                assert envelope["status"] == "COMPLETED"
                assert len(envelope["output"]["data"]) == 100
                assert host.at_once <= 16
                assert peak_mb(worker.pid) < 600
