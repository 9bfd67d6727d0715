"""Recordings: fetched or decoded, checked for size and kind, and handed on as they are."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pybase64

from infinity_worker.budget import Budget
from infinity_worker.errors import InvalidRequest
from infinity_worker.images.fetching import Fetcher
from infinity_worker.images.sources import bytes_of, is_url

# What recordings may take of the worker's memory at a time, from being read to being answered.
MEMORY_BYTES = 100_000_000
# The recording itself, its base64, and the request's body that carries it.
_COPIES = 5
# How files begin: FLAC, Ogg, MP3 with a tag; MP3 frames begin with eleven set bits.
_SIGNATURES = {b"fLaC": "flac", b"OggS": "ogg", b"ID3": "mpeg"}


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording for the engine.

    Attributes:
        uri: as a data URI.
        size: its bytes.
    """

    uri: str
    size: int


class AudioReader:
    """Fetches and checks recordings.

    Args:
        fetcher: gets what is behind URLs.
        max_bytes: the most bytes of one recording.
    """

    def __init__(self, fetcher: Fetcher | None = None, *, max_bytes: int = 20_000_000) -> None:
        self._fetcher = fetcher or Fetcher(max_bytes=max_bytes)
        self._max_bytes = max_bytes
        self._memory = Budget(MEMORY_BYTES)

    @asynccontextmanager
    async def read(self, source: str) -> AsyncIterator[Recording]:
        """One recording; the memory set aside for it is free again on leaving.

        Raises:
            InvalidRequest: it cannot be had, or is none.
            RequestTooLarge: it has too many bytes.
        """
        async with AsyncExitStack() as held:
            async with AsyncExitStack() as fetching:
                if is_url(source):
                    raw = await fetching.enter_async_context(self._fetcher.fetched(source))
                else:
                    raw = await asyncio.to_thread(bytes_of, source, self._max_bytes)
                kind = _kind(raw)
                await held.enter_async_context(self._memory.hold(_COPIES * len(raw)))
            coded = await asyncio.to_thread(pybase64.b64encode_as_string, raw)
            yield Recording(f"data:audio/{kind};base64,{coded}", len(raw))

    async def close(self) -> None:
        """End the fetcher's connections."""
        await self._fetcher.close()


def _kind(raw: bytes) -> str:
    if raw[:4] == b"RIFF" and raw[8:12] == b"WAVE":
        return "wav"
    for start, kind in _SIGNATURES.items():
        if raw.startswith(start):
            return kind
    if raw[:1] == b"\xff" and raw[1:2] >= b"\xe0":
        return "mpeg"
    raise InvalidRequest(
        f"this is not a recording ({len(raw):,} bytes; WAV, FLAC, Ogg and MP3 are accepted)"
    )
