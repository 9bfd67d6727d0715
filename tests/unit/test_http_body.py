"""Compressed bodies: all of what was sent, or an error of the contract, and never more memory."""

import asyncio
import gzip
import tracemalloc
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.errors import (
    InvalidRequest,
    RequestError,
    RequestTooLarge,
    RequestTooSlow,
    UnknownEncoding,
)
from infinity_worker.http_body import ENCODINGS, Message, inflate, read_json

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "zstd": zstd.compress}
LIMIT = 100_000


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(parts=st.lists(st.binary(max_size=2_000), min_size=1, max_size=4))
def test_whatever_was_compressed_comes_out(encoding: str, parts: list[bytes]) -> None:
    body = b"".join(map(COMPRESS[encoding], parts))
    assert inflate(body, encoding, LIMIT) == b"".join(parts)


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(junk=st.binary(min_size=1, max_size=200), keep=st.integers(0, 40))
def test_whatever_is_damaged_is_the_callers_fault(encoding: str, junk: bytes, keep: int) -> None:
    body = COMPRESS[encoding](b'{"input": "a text"}')[:keep] + junk
    try:
        inflate(body, encoding, LIMIT)
    except RequestError as error:
        assert error.code in {400, 413}  # noqa: PT017  # damage may also go unseen


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("size", "fits"), [(LIMIT - 1, True), (LIMIT, True), (LIMIT + 1, False)])
def test_the_limit_is_on_what_comes_out(encoding: str, size: int, *, fits: bool) -> None:
    body = COMPRESS[encoding](bytes(size))
    if fits:
        assert len(inflate(body, encoding, LIMIT)) == size
        return
    with pytest.raises(RequestTooLarge, match="100,000"):
        inflate(body, encoding, LIMIT)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_bomb_takes_no_more_memory_than_the_limit(encoding: str) -> None:
    bomb = COMPRESS[encoding](bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(RequestTooLarge):
        inflate(bomb, encoding, LIMIT)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * LIMIT


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_incomplete_body_is_refused(encoding: str) -> None:
    body = COMPRESS[encoding](b'{"input": "a text"}')
    with pytest.raises(InvalidRequest, match="incomplete"):
        inflate(body[:-4], encoding, LIMIT)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_in_countless_parts_is_refused(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match="parts"):
        inflate(COMPRESS[encoding](b"") * 1_000, encoding, LIMIT)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", ""])
def test_other_encodings_are_named_as_unknown(encoding: str) -> None:
    with pytest.raises(UnknownEncoding, match="gzip and zstd"):
        inflate(b"body", encoding, LIMIT)


@pytest.mark.parametrize("came", [[], [b'{"input"']], ids=["nothing", "half"])
async def test_a_body_that_does_not_come_is_not_waited_for_any_longer(came: list[bytes]) -> None:
    parts = iter(came)

    async def receive() -> Message:
        for part in parts:
            return {"type": "http.request", "body": part, "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(RequestTooSlow) as raised:
        await read_json({}, receive, LIMIT, read_s=0.01)
    assert raised.value.code == 408
