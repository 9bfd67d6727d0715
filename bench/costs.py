"""What a request costs the real engine: milliseconds for each request, text and token.

The engine is asked for one request at a time, so that nothing waits; `infinity-worker plan` takes
the figures.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import aiohttp
import numpy as np
import orjson

from bench.processes import clean_environment
from infinity_worker.demo.models import TEXT_MODEL, demo_settings
from infinity_worker.engine import Engine
from infinity_worker.settings import Settings

# Texts in a request, and words in a text: far enough apart to tell the three costs apart.
_SHAPES = ((1, 6), (1, 100), (8, 30), (32, 6), (32, 60))
_REPEATS = 9


async def run_costs() -> Mapping[str, float]:
    """Measure.

    Returns:
        `request_ms`, `item_ms` and `token_ms`, and the largest relative error of their sum.

    Raises:
        EngineStartError: the engine does not come up.
    """
    source = demo_settings()["MODEL_NAMES"].split(";")[0]
    models = {"MODEL_NAMES": source, "SERVED_MODEL_NAMES": TEXT_MODEL}
    engine = Engine(Settings.from_env({**clean_environment(), **models, "INFINITY_PORT": "0"}))
    engine.start()
    try:
        await engine.ready()
        rows = [await _measure(engine.url, items, words) for items, words in _SHAPES]
    finally:
        await asyncio.to_thread(engine.stop)
    return fit(rows)


def write_costs(costs: Mapping[str, float], folder: Path) -> None:
    """Write `costs.toml` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {value:.4f}" for name, value in costs.items() if name.endswith("_ms")]
    text = "\n".join([f"[models.{TEXT_MODEL}]", *lines])
    (folder / "costs.toml").write_text(text + "\n", encoding="utf-8")


def fit(rows: Sequence[tuple[float, float, float]]) -> Mapping[str, float]:
    """Fit the three costs to measured requests, each as exact in proportion as the others.

    Args:
        rows: of each request its items, all its tokens, and its milliseconds.
    """
    table = np.array(rows)
    shapes = np.column_stack([np.ones(len(table)), table[:, 0], table[:, 1]])
    taken = table[:, 2]
    # Divided by what was taken, the error that is made small is the relative one.
    found = np.linalg.lstsq(shapes / taken[:, None], np.ones(len(table)), rcond=None)[0]
    costs = np.clip(found, 0.0, None)
    error = float(np.max(np.abs(shapes @ costs / taken - 1)))
    names = ("request_ms", "item_ms", "token_ms")
    return dict(zip(names, map(float, costs), strict=True)) | {"largest relative error": error}


async def _measure(url: str, items: int, words: int) -> tuple[float, float, float]:
    texts = [" ".join(["sentence"] * (words - 1) + [str(number)]) for number in range(items)]
    body = orjson.dumps({"model": TEXT_MODEL, "input": texts, "encoding_format": "base64"})
    headers = {"Content-Type": "application/json"}
    taken, tokens = [], 0.0
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(_REPEATS):
            began = time.perf_counter()
            async with session.post(f"{url}/embeddings", data=body) as response:
                answer = orjson.loads(await response.read())
            taken.append((time.perf_counter() - began) * 1e3)
            tokens = float(answer["usage"]["prompt_tokens"])
    return float(items), tokens, statistics.median(taken)
