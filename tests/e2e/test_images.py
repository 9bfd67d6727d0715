"""Pictures good and hostile, through the whole stack, on the real engine."""

import asyncio
import base64
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpus import Case, bad, data_uri, encoded, good, picture
from e2e.conftest import Stack
from fakes.image_host import ImageHost
from processes import BOUND_S

GOOD_IMAGE = data_uri(encoded(picture(), "PNG"))
CORPUS = list(good())
# What a body of `/runsync` cannot carry is fetched instead, below.
INLINE_BYTES = 10_000_000


class Answer(NamedTuple):
    """What came back: the entries, or the error."""

    data: list[dict[str, Any]]
    error: dict[str, Any] | None = None


Ask = Callable[..., Answer]


def over_queue(stack: Stack, images: list[str], **options: str) -> Answer:
    job = stack.runsync({"images": images, "model": "shapes-clip", **options})
    if job["status"] == "COMPLETED":
        return Answer(job["output"]["data"])
    return Answer([], json.loads(job["error"]))


def over_http(url: str, images: list[str], **options: str) -> Answer:
    body = {"images": images, "model": "shapes-clip", **options}
    reply = httpx.post(f"{url}/v1/embeddings", json=body, timeout=BOUND_S)
    if reply.status_code == 200:
        return Answer(reply.json()["data"])
    error = reply.json()["error"]
    assert error["code"] == reply.status_code
    return Answer([], error)


@pytest.fixture(scope="module", params=["queue", "http"])
def ask(request: pytest.FixtureRequest, stack: Stack) -> Ask:
    """Embeds images with `shapes-clip`, through either kind of endpoint."""
    if request.param == "queue":
        return partial(over_queue, stack)
    return partial(over_http, request.getfixturevalue("http_url"))


def embedding_of_the_good_image(ask: Ask) -> list[float]:
    (entry,) = ask([GOOD_IMAGE]).data
    embedding: list[float] = entry["embedding"]
    return embedding


def assert_right(embedding: list[float], expected: list[float]) -> None:
    # Batches differ in their sizes, and sums in their order.
    assert np.allclose(embedding, expected, atol=1e-4)


def test_each_of_the_corpus_is_embedded_or_refused_by_name(ask: Ask) -> None:
    expected = embedding_of_the_good_image(ask)
    for case in [*CORPUS, *bad()]:
        if len(case.raw) > INLINE_BYTES:
            continue
        data, error = ask([GOOD_IMAGE, data_uri(case.raw)])
        if error is None:
            assert case.code in (0, 200), case.name
            assert np.isfinite(data[1]["embedding"]).all(), case.name
        else:
            assert error["code"] in ((400,) if case.code == 0 else (case.code,)), case.name
            assert error["param"] == "images[1]", case.name
            assert error["message"].startswith("images[1]: "), case.name
        assert_right(embedding_of_the_good_image(ask), expected)


@pytest.mark.parametrize("name", ["PNG L", "PNG P", "JPEG CMYK", "PNG I;16", "GIF RGB"])
def test_colour_modes_show_the_same(stack: Stack, name: str) -> None:
    """A picture's embedding is near that of the same colours in RGB, in whatever mode it comes."""
    raw = next(case.raw for case in CORPUS if case.name == name)
    grey_or_colour = picture().convert("L" if name in ("PNG L", "PNG I;16") else "RGB")
    plain = encoded(grey_or_colour.convert("RGB"), "PNG")
    data = over_queue(stack, [data_uri(raw), data_uri(plain)]).data
    first, second = (np.array(entry["embedding"]) for entry in data)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert cosine > 0.97


def mutated(case: Case, cuts: list[tuple[float, int, bytes]]) -> bytes:
    raw = bytearray(case.raw)
    for place, length, content in cuts:
        at = int(place * len(raw))
        raw[at : at + length] = content
    return bytes(raw)


MUTATED = st.builds(
    mutated,
    st.sampled_from(CORPUS),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 40), st.binary(max_size=40)),
        min_size=1,
        max_size=4,
    ),
)


@settings(
    max_examples=110, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.binary(max_size=200) | MUTATED, min_size=20, max_size=20))
def test_nothing_that_is_sent_hurts_what_travels_with_it(ask: Ask, raws: list[bytes]) -> None:
    """110 jobs of 20 pictures, random bytes or damaged, and a good one last."""
    images = [base64.b64encode(raw).decode() for raw in raws]
    data, error = ask([*images, GOOD_IMAGE], on_error="null")
    assert error is None
    *others, last = data
    assert last["embedding"] is not None
    for entry in others:
        if entry["embedding"] is None:
            assert entry["error"]["code"] in (400, 413)
            assert entry["error"]["param"] == f"images[{entry['index']}]"
        else:
            assert np.isfinite(entry["embedding"]).all()


async def test_pictures_from_the_web(stack: Stack) -> None:
    raw = encoded(picture(), "PNG")
    async with ImageHost(raw) as host:
        items = [f"{host.url}/ok.png", {"image_url": {"url": f"{host.url}/ok"}}, GOOD_IMAGE] * 2
        job = await asyncio.to_thread(
            stack.runsync, {"input": items, "model": "shapes-clip", "encoding_format": "base64"}
        )
        embeddings = {entry["embedding"] for entry in job["output"]["data"]}
        assert len(embeddings) <= 2  # as many as there are sizes of batches
        assert sorted(host.requests) == ["/ok", "/ok.png"]


async def test_pictures_that_are_too_large_or_not_there(stack: Stack) -> None:
    large = next(case.raw for case in bad() if case.name == "too many bytes")
    async with ImageHost(large) as host:
        urls = [f"{host.url}/ok", f"{host.url}/status/404", "http://169.254.169.254/latest/"]
        answer = await asyncio.to_thread(over_queue, stack, urls, on_error="null")
        errors = [entry["error"] for entry in answer.data]
    assert [error["code"] for error in errors] == [413, 400, 400]
    assert "20,000,000" in errors[0]["message"]
    assert "404" in errors[1]["message"]
    assert "public address" in errors[2]["message"]
    await asyncio.to_thread(embedding_of_the_good_image, partial(over_queue, stack))
