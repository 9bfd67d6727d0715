"""An engine that answers at once: Infinity's `/models` and `/embeddings`, embeddings precomputed.

Run as a program it prints its URL and serves until it is ended. `/stats` tells how many embedding
requests and inputs it has answered.
"""

import asyncio
from collections.abc import Sequence
from functools import cache

import orjson
import uvloop

from bench.allocator import keep_freed_memory
from bench.http1 import Connection, listen
from bench.vectors import MODELS, TOKENS_PER_TEXT, encoded, kinds_of

_CACHED_FROM = 64
_CACHE_SIZE = 32


class StandinEngine:
    """Answers requests and counts them."""

    def __init__(self) -> None:
        self._requests = 0
        self._inputs = 0
        # Of bulk requests: whole answers, by model and by which vectors they hold.
        self._answers: dict[tuple[str, bytes], bytes] = {}

    def handle(self, connection: Connection, target: str, chunks: list[bytes]) -> None:
        """Answer one request."""
        if target == "/embeddings":
            body = orjson.loads(chunks[0] if len(chunks) == 1 else b"".join(chunks))
            texts = body["input"]
            if isinstance(texts, str):
                texts = [texts]
            self._requests += 1
            self._inputs += len(texts)
            connection.answer_json(self._embed(body["model"], texts))
        elif target == "/stats":
            connection.answer_json(
                orjson.dumps({"requests": self._requests, "inputs": self._inputs})
            )
        elif target == "/models":
            connection.answer_json(_models())
        else:
            connection.answer_not_found()

    def _embed(self, model: str, texts: Sequence[str]) -> bytes:
        kinds = kinds_of(texts)
        if len(texts) < _CACHED_FROM:
            # Words are tokens here: as exact as the worker finds the real engine to be.
            return _answer(model, kinds, sum(text.count(" ") + 1 for text in texts))
        answer = self._answers.get((model, kinds))
        if answer is None:
            if len(self._answers) >= _CACHE_SIZE:
                self._answers.clear()
            answer = self._answers[model, kinds] = _answer(
                model, kinds, len(kinds) * TOKENS_PER_TEXT
            )
        return answer


def _answer(model: str, kinds: bytes, tokens: int) -> bytes:
    starts, ends = _starts(), _ends(MODELS[model])
    entries = [starts[index] + ends[kind] for index, kind in enumerate(kinds)]
    return b'{"object":"list","data":[%b],"model":"%b","usage":%b}' % (
        b",".join(entries),
        model.encode(),
        b'{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens),
    )


@cache
def _starts() -> tuple[bytes, ...]:
    """The front of each entry, for as many as one request may carry."""
    return tuple(
        b'{"object":"embedding","index":%d,"embedding":"' % index for index in range(2_048)
    )


@cache
def _ends(dimensions: int) -> tuple[bytes, ...]:
    return tuple(text.encode() + b'"}' for text in encoded(dimensions))


def _models() -> bytes:
    entries = [
        {"id": name, "object": "model", "created": 1_700_000_000, "capabilities": ["embed"]}
        for name in MODELS
    ]
    return orjson.dumps({"object": "list", "data": entries})


async def _serve() -> None:
    keep_freed_memory()
    for model in MODELS:
        _answer(model, b"\0", 0)
    _, url = await listen(StandinEngine().handle)
    print(url, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
