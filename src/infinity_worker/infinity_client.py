"""The Infinity server's HTTP API (infinity-emb 0.0.78) and its errors.

InfinityError
├── InfinityUnavailable  503  nothing answers, or the connection broke
├── InfinityTimeout      504  no answer in time
├── InfinityOverloaded   429  the engine's queue is full
├── InfinityRejected     400  the engine refused the input
├── InfinityBadResponse  502  the engine failed, or answered nonsense
└── InfinityCrashed      500  the engine ended or hung at this input, twice
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

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

# What a request may take beside its base (`ENGINE_TIMEOUT`), by what it carries: an image is asked
# for as a whole, a text by its length. Ten times what MiniLM takes on two cores.
_TEXT_S = 0.025
_CHAR_S = 0.000_1
_IMAGE_S = 1.0
# The list of models touches none of them.
_LIST_TIMEOUT_S = 10.0
_CONNECT_TIMEOUT_S = 5.0
# Less than the engine's own 5 s, so that it never closes a connection that is about to be used.
_KEEPALIVE_S = 4.0
# Holds the answer for 512 texts of 1,024 numbers: less makes aiohttp pause and resume reading.
_READ_BUFFER_BYTES = 4 << 20
_JSON = {"Content-Type": "application/json"}
# What the engine calls a capability, by what callers call the modality.
_CAPABILITY: Mapping[Modality, str] = {
    "text": "embed",
    "image": "image_embed",
    "audio": "audio_embed",
}


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


class InfinityCrashed(InfinityError):
    """The engine ended or hung each time that it was given this input."""

    code = 500
    type = "internal_error"


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

    def can(self, capability: str) -> bool:
        """Tell whether the model has a capability, in the engine's words."""
        return capability in self.capabilities

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

    Args:
        url: the server's.
        timeout_s: the base of every request's deadline; see `deadline_s`.
        api_key: sent as a bearer token.
    """

    def __init__(self, url: str, *, timeout_s: float = 60.0, api_key: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._answers: Counter[str] = Counter()
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
            timeout_s = min(self._timeout_s, _LIST_TIMEOUT_S)
            self._models = _parse_models(await self._request("GET", "/models", timeout_s))
        return self._models

    def answers(self, model: str) -> int:
        """How many requests for a model have been answered so far."""
        return self._answers[model]

    async def get_embeddings(
        self,
        model: str,
        inputs: Sequence[str],
        modality: Modality = "text",
        *,
        timeout_s: float | None = None,
    ) -> EmbeddingBatch:
        """Embed inputs of one modality in one engine request.

        Args:
            model: a served name.
            inputs: at most `MAX_TEXTS_PER_REQUEST` texts or `MAX_IMAGES_PER_REQUEST` images.
            modality: what all the inputs are.
            timeout_s: the deadline; None for one that suits the request's size.

        Raises:
            InfinityError: the engine could not answer.
        """
        if timeout_s is None:
            timeout_s = self.deadline_s(inputs, modality)
        payload = {
            "model": model,
            "input": inputs,
            "modality": modality,
            # Base64 carries float32 exactly, at a third of the size of JSON numbers.
            "encoding_format": "base64",
        }
        answer = await self._request("POST", "/embeddings", timeout_s, payload)
        batch = _parse_embeddings(answer, len(inputs))
        self._answers[model] += 1
        return batch

    async def ask(self, path: str, payload: Mapping[str, object], timeout_s: float) -> Any:
        """Post to one of the engine's other routes; the answer's JSON, whatever it is.

        Args:
            path: the route.
            payload: the request; its `model` is a served name.
            timeout_s: the deadline.

        Raises:
            InfinityError: the engine could not answer.
        """
        answer = await self._request("POST", path, timeout_s, payload)
        self._answers[str(payload["model"])] += 1
        return answer

    def deadline_s(self, inputs: Sequence[str], modality: Modality) -> float:
        """How many seconds a request with these inputs may take; see `deadline_s`."""
        return deadline_s(self._timeout_s, inputs, modality)

    async def _request(
        self,
        method: str,
        path: str,
        timeout_s: float,
        payload: Mapping[str, object] | None = None,
    ) -> object:
        body = None if payload is None else orjson.dumps(payload)
        try:
            async with self._open_session().request(
                method,
                self.url + path,
                data=body,
                headers=_JSON if body else None,
                timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=_CONNECT_TIMEOUT_S),
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
            )
        return self._session


def deadline_s(base_s: float, inputs: Sequence[str], modality: Modality) -> float:
    """How many seconds a request may take: the base, and an allowance for what it carries.

    For texts 25 ms each and 0.1 ms for each character, at most 51 s and 100 s in a request that the
    worker sends; for images and recordings 1 s each, at most 32 s.
    """
    if modality != "text":
        return base_s + _IMAGE_S * len(inputs)
    return base_s + _TEXT_S * len(inputs) + _CHAR_S * sum(map(len, inputs))


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
