"""A worker on the real RunPod SDK that streams its input's items; run it as a program.

With the variable `FAKE_FITNESS=bad` its fitness check fails.
"""

import os
from collections.abc import AsyncIterator
from typing import Any

import runpod


async def handler(job: dict[str, Any]) -> AsyncIterator[Any]:
    """One part for each item."""
    for item in job["input"]["items"]:
        yield item


def is_fit() -> None:
    """The fitness check."""
    if os.environ.get("FAKE_FITNESS") == "bad":
        raise RuntimeError("not fit")


if __name__ == "__main__":
    runpod.serverless.register_fitness_check(is_fit)
    runpod.serverless.start({"handler": handler, "return_aggregate_stream": True})
