"""The embeddings that the stand-in engine answers with, known to the engine and to the checks.

A text's last character chooses one of a few vectors: cheap to find, and an answer in the wrong
order or of the wrong text shows.
"""

import base64
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

MODELS = {"standin-384": 384, "standin-1024": 1024}
KINDS = 8
TOKENS_PER_TEXT = 12


def kinds_of(texts: Sequence[str]) -> bytes:
    """Which vector stands for each text, one byte a text."""
    return bytes([ord(text[-1]) % KINDS for text in texts])


@cache
def vectors(dimensions: int) -> NDArray[np.float32]:
    """The vectors: unit length, float32 of shape (`KINDS`, dimensions)."""
    drawn = np.random.default_rng(dimensions).standard_normal((KINDS, dimensions))
    unit: NDArray[np.float64] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit.astype(np.float32)


@cache
def encoded(dimensions: int) -> tuple[str, ...]:
    """The vectors as base64 of little-endian float32."""
    return tuple(base64.b64encode(row.tobytes()).decode() for row in vectors(dimensions))
