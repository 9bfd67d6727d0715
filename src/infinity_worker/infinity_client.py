"""The Infinity server's HTTP API (infinity-emb 0.0.78) and its errors.

InfinityError
├── InfinityUnavailable  503  nothing answers, or the connection broke
├── InfinityTimeout      504  no answer in time
├── InfinityOverloaded   429  the engine's queue is full
├── InfinityRejected     400  the engine refused the input
└── InfinityBadResponse  502  the engine failed, or answered nonsense
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import ClassVar, Self

import aiohttp
import numpy as np
import orjson
import pybase64
from numpy.typing import NDArray

from infinity_worker.utils import Modality

# Limits of one engine request (measured: one more is answered with 422).
MAX_TEXTS_PER_REQUEST = 2_048
MAX_IMAGES_PER_REQUEST = 32
MAX_TEXT_CHARS = 122_880

_CONNECT_TIMEOUT_S = 5.0
# Less than the engine's own 5 s, so that it never closes a connection that is about to be used.
_KEEPALIVE_S = 4.0
# Holds the answer for 512 texts of 1,024 numbers: less makes aiohttp pause and resume reading.
_READ_BUFFER_BYTES = 4 << 20
_JSON = {"Content-Type": "application/json"}
# What the engine calls a capability, by what callers call the modality.
_CAPABILITY: Mapping[Modality, str] = {"text": "embed", "image": "image_embed"}


class InfinityError(Exception):
    """Root of what can go wrong between the worker and the engine.

    Attributes:
        item: the position of the input that is at fault, where that is known.
        param: the same in the caller's words, as in `input[3]`.
    """

    code: ClassVar[int] = 502
    type: ClassVar[str] = "engine_error"

    def __init__(self, message: str, item: int | None = None) -> None:
        super().__init__(message)
        self.item = item
        self.param: str | None = None


class InfinityUnavailable(InfinityError):
    """Nothing answers at the engine's address, or the connection broke."""

    code = 503
    type = "engine_unavailable"


class InfinityTimeout(InfinityError):
    """The engine did not answer in time."""

    code = 504
    type = "engine_timeout"


class InfinityOverloaded(InfinityError):
    """The engine's queue is full."""

    code = 429
    type = "rate_limit_error"


class InfinityRejected(InfinityError):
    """The engine refused the input."""

    code = 400
    type = "invalid_request_error"


class InfinityBadResponse(InfinityError):
    """The engine failed, or answered something that is not an embedding."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model that the engine serves.

    Attributes:
        name: what callers put into `model`.
        capabilities: the engine's words: `embed`, `image_embed`, `rerank`, `classify`, …
        created: Unix time in seconds at which the engine listed it.
    """

    name: str
    capabilities: frozenset[str]
    created: int = 0

    def takes(self, modality: Modality) -> bool:
        """Tell whether the model embeds this modality."""
        return _CAPABILITY[modality] in self.capabilities


@dataclass(frozen=True, slots=True)
class EmbeddingBatch:
    """The embeddings of one engine request, in the order of its inputs.

    Attributes:
        encoded: each embedding as base64 of little-endian float32, as the engine sent it.
        vectors: the same numbers, float32 of shape (inputs, dimensions); NaN may be among them.
        prompt_tokens: what the engine counted for the whole request.
    """

    encoded: Sequence[str]
    vectors: NDArray[np.float32]
    prompt_tokens: int


class InfinityClient:
    """Async client of one Infinity server: one HTTP session, kept alive.

    The session belongs to the event loop of the first request; `close()` ends it.
    """

    def __init__(self, url: str, *, timeout_s: float = 120.0, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self._models: Sequence[Model] = ()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the HTTP session; a later request opens a new one."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def models(self) -> Sequence[Model]:
        """The served models, in the engine's order; asked for once.

        Raises:
            InfinityError: the engine could not answer.
        """
        if not self._models:
            self._models = _parse_models(await self._request("GET", "/models"))
        return self._models

    async def get_embeddings(
        self, model: str, inputs: Sequence[str], modality: Modality = "text"
    ) -> EmbeddingBatch:
        """Embed inputs of one modality in one engine request.

        Args:
            model: a served name.
            inputs: at most `MAX_TEXTS_PER_REQUEST` texts or `MAX_IMAGES_PER_REQUEST` images.
            modality: what all the inputs are.

        Raises:
            InfinityError: the engine could not answer.
        """
        payload = {
            "model": model,
            "input": inputs,
            "modality": modality,
            # Base64 carries float32 exactly, at a third of the size of JSON numbers.
            "encoding_format": "base64",
        }
        return _parse_embeddings(await self._request("POST", "/embeddings", payload), len(inputs))

    async def _request(
        self, method: str, path: str, payload: Mapping[str, object] | None = None
    ) -> object:
        body = None if payload is None else orjson.dumps(payload)
        try:
            async with self._open_session().request(
                method, self.url + path, data=body, headers=_JSON if body else None
            ) as response:
                content = await response.read()
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise translate_transport_error(error) from error
        if status != 200:  # noqa: PLR2004  # HTTP OK
            raise _refusal(status)
        try:
            return orjson.loads(content)
        except orjson.JSONDecodeError as error:
            raise InfinityBadResponse("the engine's answer is not JSON") from error

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_READ_BUFFER_BYTES,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(
                    total=self._timeout_s, sock_connect=_CONNECT_TIMEOUT_S
                ),
            )
        return self._session


def translate_transport_error(error: Exception) -> InfinityError:
    """Turn any exception of the HTTP library into one of ours, without its text.

    Their texts name hosts, ports and sometimes payloads: none of the caller's business.
    """
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return InfinityUnavailable("the engine does not accept connections")
    if isinstance(error, TimeoutError):
        return InfinityTimeout("the engine did not answer in time")
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        return InfinityUnavailable("the engine is not reachable: it may be starting or restarting")
    return InfinityBadResponse("the engine's answer broke off or is no valid HTTP")


def _refusal(status: int) -> InfinityError:
    """Turn a status into an error. The engine's own text may echo the input, so it is not used."""
    if status == 429:  # noqa: PLR2004  # Too Many Requests
        return InfinityOverloaded("the engine's queue is full: try again later")
    if status in (401, 403):
        return InfinityBadResponse("the engine refused the worker's key: check INFINITY_API_KEY")
    if 400 <= status < 500:  # noqa: PLR2004  # client errors
        return InfinityRejected(f"the engine refused the input (HTTP {status})")
    return InfinityBadResponse(f"the engine failed (HTTP {status})")


def _parse_models(answer: object) -> Sequence[Model]:
    try:
        models = [
            Model(entry["id"], frozenset(entry["capabilities"]), entry.get("created", 0))
            for entry in answer["data"]  # type: ignore[index]  # checked by the except below
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InfinityBadResponse("the engine's list of models is malformed") from error
    if not models:
        raise InfinityBadResponse("the engine serves no models")
    return models


def _parse_embeddings(answer: object, expected: int) -> EmbeddingBatch:
    try:
        entries = answer["data"]  # type: ignore[index]  # checked by the except below
        encoded = [entry["embedding"] for entry in entries]
        vectors = _decode(encoded)
        prompt_tokens = int(answer["usage"]["prompt_tokens"])  # type: ignore[index]  # likewise
    except (LookupError, TypeError, ArithmeticError, ValueError, AttributeError) as error:
        raise InfinityBadResponse("the engine's embeddings are malformed") from error
    if len(encoded) != expected:
        raise InfinityBadResponse(
            f"the engine answered {len(encoded)} embeddings for {expected} inputs"
        )
    return EmbeddingBatch(encoded, vectors, prompt_tokens)


def _decode(encoded: Sequence[str]) -> NDArray[np.float32]:
    """Read base64 strings of equal length as rows of little-endian float32."""
    rows = b"".join([pybase64.b64decode(text, validate=True) for text in encoded])
    return np.frombuffer(rows, dtype="<f4").reshape(len(encoded), -1)


async def wait_for_models(client: InfinityClient, *, poll_s: float = 0.1) -> Sequence[Model]:
    """Wait until the engine listens, then embed one short text or tiny image with each model.

    A listening engine has loaded its models, but only an embedding shows that they work.

    Raises:
        InfinityError: the engine listens and a model does not answer as it should.
    """
    while True:
        try:
            models = await client.models()
            break
        except (InfinityUnavailable, InfinityTimeout):
            await asyncio.sleep(poll_s)
    for model in models:
        if model.takes("text"):
            await client.get_embeddings(model.name, ["ready?"], "text")
        elif model.takes("image"):
            await client.get_embeddings(model.name, [_PROBE_IMAGE], "image")
    return models


# A grey RGB picture of 8 × 8 pixels.
_PROBE_IMAGE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAFUlEQVR42mNs"
    "aGhgwAaYGHCAwSkBADAXAZDUexXGAAAAAElFTkSuQmCC"
)
