"""The workers: which ones the edge has heard of, and what connects one to it."""

import time
from collections.abc import Callable

WORKER_SEEN_S = 30.0
"""A worker not heard of for this long counts as gone."""


class Workers:
    """The workers that asked for a job, or pinged, a short while ago.

    Args:
        clock: Seconds that never go backwards.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}

    def seen(self, worker_id: str) -> None:
        """Marks a worker as alive now."""
        self._seen[worker_id] = self._clock()

    def counts(self, is_busy: Callable[[str], bool]) -> dict[str, int]:
        """How many workers there are, in the words of `/health`."""
        since = self._clock() - WORKER_SEEN_S
        self._seen = {worker: at for worker, at in self._seen.items() if at > since}
        running = sum(map(is_busy, self._seen))
        return {
            "idle": len(self._seen) - running,
            "initializing": 0,
            "ready": len(self._seen),
            "running": running,
            "throttled": 0,
        }


def worker_environment(base_url: str, endpoint_id: str, worker_id: str) -> dict[str, str]:
    """The variables that make the real RunPod SDK work for an edge.

    Args:
        base_url: The edge's own URL, without a path.
        endpoint_id: The endpoint whose jobs the worker takes.
        worker_id: What the worker is to be called; one name for each worker.

    Returns:
        Only `RUNPOD_*` variables: what else the process needs is its starter's to add.
    """
    api = f"{base_url.rstrip('/')}/v2/{endpoint_id}"
    # The SDK appends its own parameters with `&`: every URL must carry a `?` already.
    return {
        "RUNPOD_WEBHOOK_GET_JOB": f"{api}/job-take/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{api}/job-done/$RUNPOD_POD_ID/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{api}/job-stream/$RUNPOD_POD_ID/$ID?gpu=cpu",
        "RUNPOD_WEBHOOK_PING": f"{api}/ping/$RUNPOD_POD_ID?gpu=cpu",
        "RUNPOD_PING_INTERVAL": "5000",
        # Without a key the SDK sends no pings; the edge reads none.
        "RUNPOD_AI_API_KEY": "local",
        "RUNPOD_POD_ID": worker_id,
        "RUNPOD_ENDPOINT_ID": endpoint_id,
        # At its own default, DEBUG, the SDK prints every result.
        "RUNPOD_LOG_LEVEL": "INFO",
        # Both checks dial out or look for a GPU.
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "RUNPOD_SKIP_GPU_CHECK": "true",
    }
