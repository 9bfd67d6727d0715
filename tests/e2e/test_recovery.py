"""The real engine is killed under load: every job is answered by the next one."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import psutil

from infinity_worker.demo.models import demo_settings
from infinity_worker.edge.server import EdgeServer
from infinity_worker.edge.workers import worker_environment
from processes import BOUND_S, clean_environment, running, worker_command

LOAD_S = 120.0


def embed(edge_url: str, texts: Sequence[str]) -> list[list[float]]:
    body = {"model": "minilm", "input": list(texts)}
    url = f"{edge_url}/v2/local/openai/v1/embeddings"
    reply = httpx.post(url, json=body, timeout=LOAD_S)
    return [entry["embedding"] for entry in reply.json()["data"]]


def engine_below(pid: int) -> psutil.Process:
    family = psutil.Process(pid).children(recursive=True)
    # The guard has the same words in its command line, and comes before it.
    return [process for process in family if "--model-id" in process.cmdline()][-1]


def test_jobs_under_way_when_the_engine_is_killed_are_answered() -> None:
    sources, names = (demo_settings()[name] for name in ("MODEL_NAMES", "SERVED_MODEL_NAMES"))
    jobs = [[f"text {n} of job {job}" for n in range(1 + 40 * (job % 2))] for job in range(24)]
    with EdgeServer() as edge:
        variables = worker_environment(edge.url, "local", "w0") | {
            "MODEL_NAMES": sources.split(";")[0],
            "SERVED_MODEL_NAMES": names.split(";")[0],
            "INFINITY_PORT": "0",
        }
        with (
            running(worker_command(), clean_environment(**variables)) as worker,
            ThreadPoolExecutor(len(jobs)) as threads,
        ):
            expected = list(threads.map(partial(embed, edge.url), jobs))
            asked = [threads.submit(embed, edge.url, job) for job in jobs]
            asked[0].result(BOUND_S)
            engine_below(worker.pid).kill()
            for job, right in zip(asked, expected, strict=True):
                assert np.allclose(job.result(LOAD_S), right, atol=1e-5)
            worker.terminate()
            edge.stop()
            assert worker.wait(BOUND_S) == 0
