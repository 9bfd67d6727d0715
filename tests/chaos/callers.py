"""How clients ask, and what each kind of answer means: by the queue, or over HTTP."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import aiohttp

# What an error may say: what the caller can do nothing about, and may try again.
_HONEST = (429, 500, 502, 503, 504)

Vectors = Sequence[Any]


class RefusalError(Exception):
    """The answer is an honest error.

    Attributes:
        code: its code.
    """

    def __init__(self, code: int) -> None:
        super().__init__(f"the answer is an error with the code {code}")
        self.code = code


class NonsenseError(Exception):
    """There is an answer, which no caller should ever get."""


class Caller(ABC):
    """Asks for the embeddings of texts.

    Args:
        session: whose base URL is that of a stack.
        model: a served name.
    """

    def __init__(self, session: aiohttp.ClientSession, model: str) -> None:
        self._session = session
        self._model = model

    @abstractmethod
    async def __call__(self, texts: Sequence[str]) -> Vectors:
        """The embeddings, in the order of the texts.

        Raises:
            RefusalError: there are none.
            NonsenseError: the answer is none that a caller should get.
            aiohttp.ClientError, OSError, TimeoutError, ValueError: there is no answer.
        """


class QueueCaller(Caller):
    """Sends jobs and waits for them, as RunPod's clients do."""

    async def __call__(self, texts: Sequence[str]) -> Vectors:
        """See `Caller`."""
        body = {"input": {"model": self._model, "text": list(texts)}}
        async with self._session.post("runsync?wait=300000", json=body) as response:
            envelope: dict[str, Any] = await response.json()
        if envelope["status"] == "FAILED":
            raise RefusalError(_honest_code(_parsed(envelope.get("error"))))
        if envelope["status"] != "COMPLETED":
            raise TimeoutError
        return _vectors(envelope["output"])


class HttpCaller(Caller):
    """Sends requests to the OpenAI route of a worker, whose statuses are what they say."""

    async def __call__(self, texts: Sequence[str]) -> Vectors:
        """See `Caller`."""
        body = {"model": self._model, "input": list(texts)}
        async with self._session.post("v1/embeddings", json=body) as response:
            content = await response.read()
        found = _parsed(content)
        if response.status == HTTPStatus.OK:
            return _vectors(found)
        error = found.get("error") if isinstance(found, Mapping) else None
        raise RefusalError(self._code(response.status, error))

    def _code(self, status: int, error: object) -> int:
        """The code of an answer that is not 200, where that is an honest error."""
        code = _honest_code(error)
        if code != status:
            raise NonsenseError
        return code


class BalancedCaller(HttpCaller):
    """Sends them to a load balancer, which has one thing to say for itself.

    Nothing is sent a second time: what a worker had when it was killed ends with the balancer's own
    502, whose error is a sentence.
    """

    def _code(self, status: int, error: object) -> int:
        if status == HTTPStatus.BAD_GATEWAY and isinstance(error, str):
            return status
        return super()._code(status, error)


def _honest_code(error: object) -> int:
    """The code of an error object."""
    if not isinstance(error, Mapping) or error.get("code") not in _HONEST:
        raise NonsenseError
    if not (error.get("message") and error.get("type")):
        raise NonsenseError
    return int(error["code"])


def _vectors(result: Any) -> Vectors:
    try:
        return [entry["embedding"] for entry in result["data"]]
    except (LookupError, TypeError):
        raise NonsenseError from None


def _parsed(content: Any) -> Any:
    try:
        return json.loads(content)
    except (ValueError, TypeError):
        raise NonsenseError from None
