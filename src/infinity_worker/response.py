"""What callers get back: OpenAI's response shapes."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import pybase64
from numpy.typing import NDArray

from infinity_worker.errors import InvalidRequest, RequestError
from infinity_worker.options import EmbeddingType, EncodingFormat
from infinity_worker.parts import Embeddings
from infinity_worker.quantise import quantised
from infinity_worker.schema import EmbeddingRequest
from infinity_worker.utils import JsonObject, create_error_response

# The embeddings of a request: as base64 strings, as rows of an array, or as objects by type.
Formatted: TypeAlias = (
    Sequence[str]
    | Sequence[JsonObject]
    | NDArray[np.float32]
    | NDArray[np.int8]
    | NDArray[np.uint8]
)


def embedding_response(
    request: EmbeddingRequest, model_name: str, embeddings: Embeddings
) -> JsonObject:
    """Build the answer to an embedding request.

    Each `embedding` is a base64 string, or an array that orjson writes as JSON numbers; where
    several types are asked for, an object of those by type. Images add no tokens; a response to a
    request with images says how many in `usage.images`.

    Raises:
        InvalidRequest: more dimensions are asked for than the model has.
    """
    usage = {"prompt_tokens": embeddings.text_tokens, "total_tokens": embeddings.text_tokens}
    if embeddings.images:
        usage["images"] = embeddings.images
    formatted = _of_all_types(request, embeddings) if embeddings.encoded else ()
    return {
        "object": "list",
        "data": _with_failures(formatted, embeddings.failures)
        if embeddings.failures
        else [
            {"object": "embedding", "index": index, "embedding": embedding}
            for index, embedding in enumerate(formatted)
        ],
        "model": model_name,
        "usage": usage,
    }


def _with_failures(formatted: Formatted, failures: Mapping[int, RequestError]) -> list[JsonObject]:
    """The entries of all items; one that failed has null for its embedding, and its error."""
    good = iter(formatted)
    data: list[JsonObject] = []
    for index in range(len(formatted) + len(failures)):
        entry: JsonObject = {"object": "embedding", "index": index, "embedding": None}
        if index in failures:
            error = failures[index]
            entry |= create_error_response(str(error), error.type, error.code, error.param)
        else:
            entry["embedding"] = next(good)
        data.append(entry)
    return data


def _of_all_types(request: EmbeddingRequest, embeddings: Embeddings) -> Formatted:
    own = embeddings.vectors.shape[1]
    wanted = request.dimensions or own
    if wanted > own:
        raise InvalidRequest(
            f"dimensions: {wanted} are asked for, the model has {own}",
            "dimensions",
        )
    if request.types == ("float",) and wanted == own:
        # Handed on as they came.
        return embeddings.encoded if request.encoding_format == "base64" else embeddings.vectors
    vectors = embeddings.vectors if wanted == own else shortened(embeddings.vectors, wanted)
    each = [_of_type(vectors, kind, request.encoding_format) for kind in request.types]
    if len(each) == 1:
        return each[0]
    return [dict(zip(request.types, values, strict=True)) for values in zip(*each, strict=True)]


def _of_type(
    vectors: NDArray[np.float32], kind: EmbeddingType, encoding: EncodingFormat
) -> Formatted:
    # The ranges of int8 and uint8 are those of unit vectors, which not every model's are.
    unit = shortened(vectors, vectors.shape[1]) if kind in ("int8", "uint8") else vectors
    values = quantised(unit, kind)
    if encoding == "float":
        return values
    return [pybase64.b64encode_as_string(row.tobytes()) for row in values]


def shortened(vectors: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Keep the leading numbers of each embedding and make it unit length again, as OpenAI does.

    Args:
        vectors: float32 of shape (items, all dimensions).
        dimensions: how many to keep.
    """
    kept = vectors[:, :dimensions]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.ascontiguousarray(kept / np.where(lengths == 0, 1, lengths), dtype="<f4")
