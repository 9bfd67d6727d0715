"""Against the definition of sentence-transformers 3.4 (`quantize_embeddings`)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.options import EmbeddingType
from infinity_worker.quantise import quantised, value_range


@given(st.integers(0, 2**32), st.integers(1, 70))
def test_bits_are_the_signs(seed: int, dimensions: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((3, dimensions)).astype(np.float32)
    packed = quantised(vectors, "ubinary")
    signs = np.unpackbits(packed.view(np.uint8), axis=1)[:, :dimensions]
    assert np.array_equal(signs.astype(bool), vectors > 0)
    assert np.array_equal(quantised(vectors, "binary"), packed.astype(int) - 128)


@pytest.mark.parametrize(("kind", "low", "high"), [("int8", -128, 127), ("uint8", 0, 255)])
def test_the_range_is_cut_at_its_ends(kind: EmbeddingType, low: int, high: int) -> None:
    limit = value_range(4)
    vectors = np.array([[-9, -limit, limit, 9]], np.float32)
    assert quantised(vectors, kind).tolist() == [[low, low, high, high]]


def test_few_numbers_of_unit_vectors_are_cut() -> None:
    vectors = np.random.default_rng(1).standard_normal((200, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (np.abs(vectors) > value_range(384)).mean() < 1e-3
    # What is lost is little: the order of similarities stays.
    coarse = quantised(vectors, "int8").astype(np.float32)
    exact, rough = vectors @ vectors.T, coarse @ coarse.T
    assert np.corrcoef(exact.ravel(), rough.ravel())[0, 1] > 0.999
