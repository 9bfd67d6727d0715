"""`infinity-worker request`: embed texts and pictures from the shell, and compare them.

It speaks the OpenAI route only, so it works with the local edge, with RunPod, and with any other
server of that API.
"""

import argparse
import asyncio
import base64
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import numpy as np
import orjson
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from infinity_worker.settings import api_key_from_process
from infinity_worker.utils import IMAGE_EXTENSIONS, detect_modality

T = TypeVar("T", bound=BaseModel)

DEFAULT_URL: Final = "http://127.0.0.1:8000/v2/local/openai/v1"
_TIMEOUT = aiohttp.ClientTimeout(total=300, sock_connect=10)
_LABEL_CHARS = 40
_SHOWN_NUMBERS = 4
_MIME_SUBTYPES = {"jpg": "jpeg", "tif": "tiff"}
_CHECK_URL = "check --url, which ends in /openai/v1 on RunPod and here"
# The word with which Infinity says that a model takes images.
_TAKES_IMAGES = "image_embed"


class RequestFailed(Exception):
    """There is no result; the message says why, and what to do about it."""


class Embedding(BaseModel):
    """One entry of the reply's `data`."""

    index: int
    embedding: list[float]


class Usage(BaseModel):
    """What the reply says was counted; `images` is this project's own."""

    prompt_tokens: int = 0
    images: int = 0


class EmbeddingReply(BaseModel):
    """What is read of OpenAI's embedding response."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    data: list[Embedding]
    usage: Usage = Usage()

    def similarities(self) -> NDArray[np.float64]:
        """The cosine of each embedding with each, in the order of the request: shape (n, n)."""
        ordered = sorted(self.data, key=lambda entry: entry.index)
        vectors = np.array([entry.embedding for entry in ordered])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit = vectors / np.maximum(norms, np.finfo(np.float64).tiny)
        cosines: NDArray[np.float64] = unit @ unit.T
        return cosines


class ServedModel(BaseModel):
    """One entry of `/models`; only Infinity and this project say what a model is capable of."""

    id: str
    capabilities: frozenset[str] = frozenset()


class ModelList(BaseModel):
    """What is read of the response of `/models`."""

    data: list[ServedModel]


def register(commands: Any) -> None:
    """Add `request` to the subparsers of the command line."""
    parser = commands.add_parser("request", help="embed texts and pictures, and compare them")
    parser.add_argument(
        "items", nargs="+", metavar="item", help="a text, a picture's file, or a picture's URL"
    )
    parser.add_argument("--model", help="default: the first served model that takes the items")
    parser.add_argument("--url", default=DEFAULT_URL, help="base URL of the OpenAI route")
    parser.add_argument("--api-key", help="better in RUNPOD_API_KEY, where nobody sees it")
    parser.add_argument("--json", action="store_true", help="print the reply, with similarities")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Send the request and print what comes back; the result is the exit status."""
    try:
        inputs = [read_item(item) for item in arguments.items]
        key = arguments.api_key or api_key_from_process()
        body = asyncio.run(_embed(arguments.url, key, arguments.model, inputs))
        reply = _parsed(EmbeddingReply, body)
        _check_shape(reply, len(inputs))
    except RequestFailed as error:
        print(f"infinity-worker: {error}", file=sys.stderr)
        return 1
    similarities = reply.similarities()
    if arguments.json:
        whole = orjson.loads(body) | {"similarities": similarities.round(6).tolist()}
        print(orjson.dumps(whole).decode())
    else:
        print(report(reply, similarities, [label(item) for item in arguments.items]))
    return 0


def read_item(argument: str) -> str:
    """Turn an argument into an input: a picture's file becomes a data URI, all else stays.

    Raises:
        RequestFailed: it names a picture's file that is not there or cannot be read.
    """
    if not _names_a_picture(argument):
        return argument
    path = Path(argument)
    extension = path.suffix[1:].lower()
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestFailed(f"{argument}: {error.strerror}") from None
    subtype = _MIME_SUBTYPES.get(extension, extension)
    return f"data:image/{subtype};base64,{base64.b64encode(content).decode()}"


def choose_model(served: Sequence[ServedModel], inputs: Sequence[str]) -> str:
    """The first served model, or the first that takes images if there are any.

    Raises:
        RequestFailed: there is no such model.
    """
    if not any(detect_modality(item) == "image" for item in inputs):
        if served:
            return served[0].id
        raise RequestFailed("no models are served there")
    for model in served:
        if _TAKES_IMAGES in model.capabilities:
            return model.id
    names = ", ".join(model.id for model in served)
    raise RequestFailed(f"no model there says that it takes images: choose by --model of: {names}")


def explain(status: int, content: bytes) -> str | None:
    """Say what went wrong, by a response's HTTP status and body; None if nothing did.

    A refused request is a completed job, so its error comes with status 200 on the platform.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return f"HTTP {status} with something that is not JSON: {_CHECK_URL}"
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict) and error.get("message"):
        return str(error["message"])
    if error or status != HTTPStatus.OK:
        said = error or (body.get("detail") if isinstance(body, dict) else None)
        return f"HTTP {status}{f', {said}' if said else ''}: {_CHECK_URL}"
    return None


def report(reply: EmbeddingReply, similarities: NDArray[np.float64], labels: Sequence[str]) -> str:
    """What is printed: a line about the reply, and the table of similarities.

    Args:
        reply: what came back.
        similarities: each with each, shape (n, n).
        labels: n short names of the items.
    """
    dimensions = len(reply.data[0].embedding)
    head = (
        f"{reply.model}: {len(labels)} embeddings of {dimensions} numbers, "
        f"{reply.usage.prompt_tokens} tokens, {reply.usage.images} images"
    )
    if len(labels) == 1:
        numbers = ", ".join(f"{value:.4f}" for value in reply.data[0].embedding[:_SHOWN_NUMBERS])
        return f"{head}\n{labels[0]}: {numbers}, …"
    width = max(map(len, labels))
    places = len(str(len(labels)))
    columns = "".join(f"{number:>7}" for number in range(1, len(labels) + 1))
    rows = [
        f"{number:>{places}} {name:{width}}" + "".join(f"{value:7.3f}" for value in row)
        for number, (name, row) in enumerate(zip(labels, similarities, strict=True), 1)
    ]
    return "\n".join([head, " " * (places + 1 + width) + columns, *rows])


def label(argument: str) -> str:
    """An argument on one line, short enough for a table; of a path, its name."""
    name = Path(argument).name if _names_a_picture(argument) else " ".join(argument.split())
    shown = name or '""'
    return shown if len(shown) <= _LABEL_CHARS else f"{shown[: _LABEL_CHARS - 1]}…"


def _names_a_picture(argument: str) -> bool:
    """A file's name is one word with an image's extension, or a file that is there."""
    is_picture = argument.lower().endswith(IMAGE_EXTENSIONS)
    if not is_picture or argument.lower().startswith(("http://", "https://")):
        return False
    return len(argument.split()) == 1 or Path(argument).is_file()


async def _embed(url: str, key: str | None, model: str | None, inputs: Sequence[str]) -> bytes:
    """Ask for the embeddings, and before that for a model where none is named.

    Raises:
        RequestFailed: there is no good answer.
    """
    if not url.startswith(("http://", "https://")):
        raise RequestFailed("--url must start with http:// or https://")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with aiohttp.ClientSession(
            f"{url.rstrip('/')}/", headers=headers, timeout=_TIMEOUT
        ) as session:
            if model is None:
                served = _parsed(ModelList, await _answer(session, "GET", "models"))
                model = choose_model(served.data, inputs)
            return await _answer(session, "POST", "embeddings", {"model": model, "input": inputs})
    except aiohttp.ClientConnectorError:
        raise RequestFailed(
            f"nothing answers at {url}: start it with `make serve`, or say where it is by --url"
        ) from None
    except TimeoutError:
        raise RequestFailed(f"no answer within {_TIMEOUT.total:.0f} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise RequestFailed(f"the request failed: {type(error).__name__}") from None


async def _answer(
    session: aiohttp.ClientSession, method: str, path: str, body: object = None
) -> bytes:
    async with session.request(method, path, json=body) as response:
        content = await response.read()
        problem = explain(response.status, content)
        if problem:
            raise RequestFailed(problem)
        return content


def _parsed(kind: type[T], content: bytes) -> T:
    try:
        return kind.model_validate_json(content)
    except ValidationError:
        raise RequestFailed(f"the answer is not what OpenAI's API says: {_CHECK_URL}") from None


def _check_shape(reply: EmbeddingReply, count: int) -> None:
    lengths = {len(entry.embedding) for entry in reply.data}
    if len(reply.data) != count or len(lengths) != 1:
        raise RequestFailed("the answer has not one embedding of equal length for each item")
