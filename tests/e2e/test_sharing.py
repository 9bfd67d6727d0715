"""Jobs that share engine requests get what they would have got alone."""

import asyncio
import base64
import json
import random
import subprocess
from typing import Any

import aiohttp
import numpy as np
import pytest
from numpy.typing import NDArray

from e2e.conftest import Stack
from infinity_worker.demo.models import demo_settings
from infinity_worker.demo.shapes import all_captions
from infinity_worker.examples import picture
from processes import BOUND_S, ROOT, clean_environment

WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
]
# What one tokenizer alone says, for the models' own files: the reference.
REFERENCE = """
import json, sys
from transformers import AutoTokenizer
folder, limit, texts = json.load(sys.stdin)
tokenizer = AutoTokenizer.from_pretrained(folder)
print(json.dumps([len(tokenizer(t, truncation=True, max_length=limit).input_ids) for t in texts]))
"""
ODD_TEXTS = [
    "",
    " ",
    "hello world",
    "Ünïcödé 漢字 🔴",
    "a" * 300,
    "word " * 2_000,
    "two blue squares",
]


def some_jobs(count: int) -> list[dict[str, Any]]:
    """Jobs of one to forty items, for both models, some with images."""
    rng = random.Random(5)  # noqa: S311  # test data
    captions = all_captions()
    image = picture()
    jobs: list[dict[str, Any]] = []
    for _ in range(count):
        size = rng.choice([1, 1, 1, 2, 5, 40])
        if rng.random() < 0.3:
            items = [rng.choice([*captions, image]) for _ in range(min(size, 5))]
            jobs.append({"input": items, "model": "shapes-clip"})
        else:
            items = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(size)]
            jobs.append({"input": items, "model": "minilm"})
        jobs[-1]["encoding_format"] = "base64"
    return jobs


async def answers(stack: Stack, jobs: list[dict[str, Any]], *, at_once: int) -> list[Any]:
    turn = asyncio.Semaphore(at_once)
    timeout = aiohttp.ClientTimeout(total=2 * BOUND_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def answer(job: dict[str, Any]) -> Any:
            async with (
                turn,
                session.post(f"{stack.url}/v2/local/runsync", json={"input": job}) as reply,
            ):
                return (await reply.json())["output"]

        return await asyncio.gather(*map(answer, jobs))


def vectors(result: Any) -> NDArray[np.float32]:
    rows = [base64.b64decode(entry["embedding"]) for entry in result["data"]]
    return np.frombuffer(b"".join(rows), "<f4").reshape(len(rows), -1)


async def test_200_jobs_at_once_equal_the_same_jobs_alone(stack: Stack) -> None:
    jobs = some_jobs(200)
    together = await answers(stack, jobs, at_once=200)
    alone = await answers(stack, jobs, at_once=1)
    for one, other in zip(together, alone, strict=True):
        assert one["usage"] == other["usage"]
        assert np.allclose(vectors(one), vectors(other), atol=1e-5)


@pytest.mark.parametrize(("model", "limit"), [("minilm", 256), ("shapes-clip", 20)])
def test_usage_is_what_the_models_own_tokenizer_counts(
    stack: Stack, model: str, limit: int
) -> None:
    demo = demo_settings()
    names = demo["SERVED_MODEL_NAMES"].split(";")
    folder = dict(zip(names, demo["MODEL_NAMES"].split(";"), strict=True))[model]
    reference = subprocess.run(
        [str(ROOT / "engine/.venv/bin/python"), "-c", REFERENCE],
        input=json.dumps([folder, limit, ODD_TEXTS]),
        env=clean_environment(HF_HUB_OFFLINE="1"),
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=True,
    )
    expected = json.loads(reference.stdout)
    counted = [
        stack.runsync({"text": text, "model": model})["output"]["usage"]["prompt_tokens"]
        for text in ODD_TEXTS
    ]
    assert counted == expected
    # A large job is counted by the engine where that is exact.
    short = [text for text in ODD_TEXTS if len(text) < 20] * 10
    large = stack.runsync({"text": short, "model": model})["output"]["usage"]
    by_text = dict(zip(ODD_TEXTS, expected, strict=True))
    assert large["prompt_tokens"] == sum(by_text[text] for text in short)
    whole = stack.runsync({"text": ODD_TEXTS, "model": model})["output"]["usage"]
    assert whole == {"prompt_tokens": sum(expected), "total_tokens": sum(expected)}


def test_images_add_no_tokens(stack: Stack) -> None:
    alone = stack.runsync({"text": "a red star", "model": "shapes-clip"})["output"]["usage"]
    mixed = stack.runsync({"input": ["a red star", picture()], "model": "shapes-clip"})["output"]
    assert mixed["usage"] == alone | {"images": 1}
