"""Embeddings in fewer bits, as sentence-transformers' `quantize_embeddings` and Cohere define them.

`binary` and `ubinary` hold the sign of eight numbers in a byte, the first in the highest bit;
`binary` is the same less 128. `int8` and `uint8` spread 256 steps over a range of values. That
range is fixed for each number of dimensions, so that vectors of different requests can be compared.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from infinity_worker.options import EmbeddingType

Numbers: TypeAlias = NDArray[np.float32] | NDArray[np.int8] | NDArray[np.uint8]

_STEPS = 255
_HALF = 128
# Numbers of a unit vector of d dimensions are spread by 1/√d: few lie beyond four times that.
_SPREAD = 4.0


def value_range(dimensions: int) -> float:
    """The largest number that `int8` and `uint8` tell from larger ones, for unit vectors."""
    return min(1.0, _SPREAD / float(np.sqrt(dimensions)))


def quantised(vectors: NDArray[np.float32], kind: EmbeddingType) -> Numbers:
    """Give embeddings another type.

    Args:
        vectors: float32 of shape (items, dimensions), of unit length.
        kind: `float` leaves them as they are.

    Returns:
        Of shape (items, dimensions), or (items, dimensions / 8 rounded up) for one bit each.
    """
    match kind:
        case "float":
            return vectors
        case "ubinary":
            return np.packbits(vectors > 0, axis=1)
        case "binary":
            return (np.packbits(vectors > 0, axis=1).astype(np.int16) - _HALF).astype(np.int8)
    limit = value_range(vectors.shape[1])
    steps: NDArray[np.float32] = np.clip((vectors + limit) * (_STEPS / (2 * limit)), 0, _STEPS)
    if kind == "uint8":
        return steps.astype(np.uint8)
    return (steps - _HALF).astype(np.int8)
