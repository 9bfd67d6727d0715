"""A small server that speaks Infinity's API and misbehaves on demand.

In a test: `async with FakeEngine() as engine`. As a process: `python fake_engine.py --port 0`. It
prints its URL; `POST /mode/NAME` changes how it behaves, and `GET /waiting`
says how many requests wait. The variable `FAKE_ENGINE_MODE` sets how
it starts: one of `MODES`, or `crash`
(ends at once, saying `FAKE_ENGINE_LAST_WORDS`), `flood` (prints megabytes first), `ignore-term` or
`parent` (starts a child that does nothing).

A text's embedding is made from its hash, so that equal texts have equal embeddings; its tokens are
its words. A document's score is the part of the query's words that it has; a text's labels are the
colours, scored by how often it names them. Images get embeddings too, and a token count as
meaningless as the real engine's.
"""

import argparse
import asyncio
import base64
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson
from aiohttp import web
from numpy.typing import NDArray

MODELS: Mapping[str, tuple[str, ...]] = {
    "fake-text": ("embed",),
    "fake-clip": ("embed", "image_embed"),
    "fake-rank": ("rerank",),
    "fake-class": ("classify",),
}
MODES = (
    "ok",
    "hang",  # never answers an embedding
    "wait",  # answers once the mode is another
    "reset",  # closes the connection without an answer
    "stumble",  # the same, once
    "half",  # breaks off in the middle of the answer
    "garbage",  # 200 with something that is not JSON
    "shapeless",  # 200 with JSON of another shape
    "nan",  # one number is not a number
    "short",  # one embedding too few
    "ragged",  # the last embedding has another length
    "full",
    "refuse",
    "fail",
    "locked",
    "mortal",  # ends at the text DEADLY, and never answers anything again after STALLING
)
DEADLY = "a text that ends the engine"
STALLING = "a text that stalls the engine"
# Each of them echoes the input, as the real engine does.
REFUSALS = {
    "full": (429, "queue full"),
    "refuse": (422, "Value error"),
    "fail": (500, "Internal Server Error"),
    "locked": (401, "Unauthorized"),
}


class FakeEngine:
    """One fake server.

    Attributes:
        mode: how it behaves from now on, one of `MODES`.
        requests: the bodies of the embedding requests so far.
        headers: those of the last embedding request.
        waiting: how many requests wait for the mode to change.
        stalled: a request with this text is never answered.
        asked: set once there was a request.
        abandoned: set once a client gave up a request that hung.
        url: where it listens, once entered.
    """

    def __init__(self, mode: str = "ok", *, dimensions: int = 8, port: int = 0) -> None:
        self.mode = mode
        self.dimensions = dimensions
        self.requests: list[dict[str, Any]] = []
        self.headers: Mapping[str, str] = {}
        self.url = ""
        self.waiting = 0
        self.stalled: str | None = None
        self.asked = asyncio.Event()
        self.abandoned = asyncio.Event()
        self._port = port
        self._runner: web.AppRunner | None = None
        self._released = asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=1 << 30)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/models", self._models),
                web.post("/embeddings", self._embeddings),
                web.post("/rerank", self._embeddings),
                web.post("/classify", self._embeddings),
                web.post("/mode/{mode}", self._set_mode),
                web.get("/waiting", self._count_waiting),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._released.set()
        if self._runner:
            await self._runner.cleanup()

    async def _health(self, _request: web.Request) -> web.Response:
        return _json({"unix": 1_700_000_000.0})

    async def _set_mode(self, request: web.Request) -> web.Response:
        self.mode = request.match_info["mode"]
        return _json({})

    async def _models(self, _request: web.Request) -> web.Response:
        entries = [
            {"id": name, "object": "model", "created": 1_700_000_000, "capabilities": can}
            for name, can in MODELS.items()
        ]
        return _json({"object": "list", "data": entries})

    async def _embeddings(self, request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        self.requests.append(body)
        self.asked.set()
        self.headers = request.headers
        answer = self._answer(request.path, body)
        texts = body["documents"] if request.path == "/rerank" else body["input"]
        if self.mode == "mortal":
            self._suffer(texts)
        if self.mode in REFUSALS:
            status, text = REFUSALS[self.mode]
            return _json({"detail": [{"msg": text, "input": texts}]}, status)
        if self.mode == "hang":
            await self._hang(request)
        if self.mode == "wait" and not await self._wait(request):
            return web.Response(status=503)
        if self.stalled in texts:
            await self._hang(request)
        if self.mode in {"reset", "stumble"}:
            self.mode = "ok" if self.mode == "stumble" else self.mode
            assert request.transport is not None
            request.transport.close()
        if self.mode == "half":
            return await _break_off(request, orjson.dumps(answer))
        if self.mode == "garbage":
            return web.Response(body=b"<html>not json", content_type="text/html")
        return _json({"data": "none"} if self.mode == "shapeless" else answer)

    def _suffer(self, texts: list[str]) -> None:
        if DEADLY in texts:
            os.kill(os.getpid(), signal.SIGSEGV)
        if STALLING in texts:
            self.mode = "hang"

    async def _hang(self, request: web.Request) -> None:
        while not self._released.is_set():
            if request.transport is None:
                self.abandoned.set()
                return
            await asyncio.sleep(0.01)

    async def _wait(self, request: web.Request) -> bool:
        self.waiting += 1
        try:
            # The mode is a plain attribute, which tests set as they like.
            while self.mode == "wait" and request.transport is not None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        finally:
            self.waiting -= 1
        return request.transport is not None

    def _ranking(self, body: Mapping[str, Any]) -> dict[str, Any]:
        scores = [relevance_of(body["query"], document) for document in body["documents"]]
        if self.mode == "nan":
            scores[-1] = None  # type: ignore[call-overload]  # what a broken engine answers
        results = [
            {"index": at, "relevance_score": score, "document": None}
            for at, score in enumerate(scores)
        ]
        if self.mode == "short":
            results.pop()
        return {
            "results": results[::-1],
            "usage": {"prompt_tokens": sum(len(each.split()) for each in body["documents"])},
        }

    def _classes(self, body: Mapping[str, Any]) -> dict[str, Any]:
        data = [
            [{"label": colour, "score": text.split().count(colour)} for colour in COLOURS]
            for text in body["input"]
        ]
        if self.mode == "short":
            data.pop()
        return {
            "data": data,
            "usage": {"prompt_tokens": sum(len(text.split()) for text in body["input"])},
        }

    async def _count_waiting(self, _request: web.Request) -> web.Response:
        return _json(self.waiting)

    def _answer(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if path == "/rerank":
            return self._ranking(body)
        if path == "/classify":
            return self._classes(body)
        vectors = [embedding_of(text, self.dimensions) for text in body["input"]]
        if self.mode == "nan":
            vectors[-1][0] = np.nan
        if self.mode == "short":
            vectors.pop()
        if self.mode == "ragged":
            vectors[-1] = vectors[-1][:-1]
        is_image = body.get("modality") == "image"
        tokens = 669 if is_image else sum(len(text.split()) for text in body["input"])
        return {
            "object": "list",
            "model": body["model"],
            "data": [
                {"object": "embedding", "index": index, "embedding": encode(vector)}
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


COLOURS = ("blue", "green", "red")


def relevance_of(query: str, document: str) -> float:
    """The part of the query's words that a document has."""
    words = query.split()
    return sum(word in document.split() for word in words) / max(1, len(words))


def embedding_of(text: str, dimensions: int = 8) -> NDArray[np.float32]:
    """The unit vector that stands for a text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dimensions)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def encode(vector: NDArray[np.float32]) -> str:
    """Base64 of little-endian float32, as the real engine writes it."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


async def _break_off(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(body))})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.close()
    return response


async def _serve(port: int, mode: str) -> None:
    if mode == "ignore-term":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if mode == "parent":
        subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])  # noqa: ASYNC220  # once
    async with FakeEngine(mode, port=port) as engine:
        print(engine.url, flush=True)  # noqa: T201  # the parent process reads it
        await asyncio.Event().wait()


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    # The real engine's other flags are taken and ignored.
    options, _ = parser.parse_known_args()
    mode = os.environ.get("FAKE_ENGINE_MODE", "ok")
    if mode == "flood":
        print("a line of the log that nobody asked for\n" * 50_000, flush=True)  # noqa: T201
    if mode == "crash":
        raise SystemExit(os.environ["FAKE_ENGINE_LAST_WORDS"])
    asyncio.run(_serve(options.port, mode))


if __name__ == "__main__":
    _main()
