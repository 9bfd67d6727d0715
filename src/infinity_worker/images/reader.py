"""From what a caller sends to an image that the engine can be given, within bounds."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import pybase64

from infinity_worker.budget import Budget
from infinity_worker.images.decoding import Header, read_header, verified
from infinity_worker.images.fetching import Fetcher
from infinity_worker.images.sources import bytes_of, is_url

P = ParamSpec("P")
T = TypeVar("T")

# What images may take of the worker's memory at a time, from being decoded to being answered.
MEMORY_BYTES = 200_000_000
# More threads than this would only take memory: what is decoded then waits for the engine.
_MOST_THREADS = 4


@dataclass(frozen=True, slots=True)
class Image:
    """An image that the engine can decode.

    Attributes:
        uri: the image as a data URI.
        pixels: of the picture that the caller sent.
    """

    uri: str
    pixels: int


class ImageReader:
    """Fetches, decodes and verifies images, off the event loop.

    Args:
        fetcher: gets what is behind URLs.
        max_bytes: the most bytes of one image.
        max_pixels: the most pixels of one image.
    """

    def __init__(
        self,
        fetcher: Fetcher | None = None,
        *,
        max_bytes: int = 20_000_000,
        max_pixels: int = 50_000_000,
    ) -> None:
        self._fetcher = fetcher or Fetcher(max_bytes=max_bytes)
        self._max_bytes = max_bytes
        self._max_pixels = max_pixels
        self._memory = Budget(MEMORY_BYTES)
        self._threads = ThreadPoolExecutor(
            min(_MOST_THREADS, os.cpu_count() or 1), thread_name_prefix="image"
        )

    @asynccontextmanager
    async def read(self, source: str) -> AsyncIterator[Image]:
        """One image, verified; the memory set aside for it is free again on leaving.

        Raises:
            InvalidRequest: it cannot be had, is no image, or is damaged.
            RequestTooLarge: it has too many bytes or pixels.
        """
        async with AsyncExitStack() as held:
            # A download keeps its slot until there is memory to decode it: what has been fetched
            # and waits is then bounded too. Nothing that holds memory waits for a slot.
            async with AsyncExitStack() as fetching:
                if is_url(source):
                    raw = await fetching.enter_async_context(self._fetcher.fetched(source))
                    header = await self._in_thread(read_header, raw, self._max_pixels)
                else:
                    raw, header = await self._in_thread(self._inline, source)
                await held.enter_async_context(self._memory.hold(header.memory))
            uri = await self._in_thread(_data_uri, raw, header)
            del raw
            yield Image(uri, header.pixels)

    async def close(self) -> None:
        """End the fetcher's connections and the threads."""
        await self._fetcher.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _inline(self, source: str) -> tuple[bytes, Header]:
        raw = bytes_of(source, self._max_bytes)
        return raw, read_header(raw, self._max_pixels)

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **_kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)


def _data_uri(raw: bytes, header: Header) -> str:
    content, media_type = verified(raw, header)
    return f"data:{media_type};base64," + pybase64.b64encode_as_string(content)
