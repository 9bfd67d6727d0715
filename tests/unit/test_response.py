import base64
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from fakes.fake_engine import embedding_of, encode
from infinity_worker.errors import InvalidRequest
from infinity_worker.options import EmbeddingType, EncodingFormat
from infinity_worker.parts import Embeddings
from infinity_worker.quantise import quantised
from infinity_worker.response import embedding_response, shortened
from infinity_worker.schema import EmbeddingRequest, Item


def embeddings_of(*texts: str, images: int = 0) -> Embeddings:
    vectors = np.stack([embedding_of(text) for text in texts])
    return Embeddings([encode(vector) for vector in vectors], vectors, 5, images)


def request(encoding: EncodingFormat = "float", dimensions: int | None = None) -> EmbeddingRequest:
    return EmbeddingRequest(
        (Item("text", "a"), Item("text", "b")), encoding_format=encoding, dimensions=dimensions
    )


def over_the_wire(response: object) -> Any:
    return orjson.loads(orjson.dumps(response, option=orjson.OPT_SERIALIZE_NUMPY))


def test_openais_response_shape() -> None:
    answer = over_the_wire(embedding_response(request(), "m", embeddings_of("a", "b")))
    assert answer == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": pytest.approx(embedding_of("a"))},
            {"object": "embedding", "index": 1, "embedding": pytest.approx(embedding_of("b"))},
        ],
        "model": "m",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
    }


def test_images_are_counted_apart_from_tokens() -> None:
    answer = embedding_response(request(), "m", embeddings_of("a", "b", images=1))
    assert answer["usage"] == {"prompt_tokens": 5, "total_tokens": 5, "images": 1}


def test_base64_is_handed_on_as_it_came() -> None:
    embeddings = embeddings_of("a", "b")
    answer = over_the_wire(embedding_response(request("base64"), "m", embeddings))
    assert [entry["embedding"] for entry in answer["data"]] == list(embeddings.encoded)


@given(
    npst.arrays(
        np.float32, (2, 5), elements=st.floats(allow_nan=False, allow_infinity=False, width=32)
    )
)
def test_floats_are_exact_to_the_bit(vectors: NDArray[np.float32]) -> None:
    embeddings = Embeddings([encode(vector) for vector in vectors], vectors, 0, 0)
    answer = over_the_wire(embedding_response(request(), "m", embeddings))
    received = np.array([entry["embedding"] for entry in answer["data"]], np.float64)
    assert received.astype(np.float32).tobytes() == vectors.tobytes()


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_dimensions_cut_and_make_unit_length_again(encoding: EncodingFormat) -> None:
    answer = over_the_wire(embedding_response(request(encoding, 3), "m", embeddings_of("a", "b")))
    embedding = answer["data"][1]["embedding"]
    if encoding == "base64":
        embedding = np.frombuffer(base64.b64decode(embedding), "<f4")
    expected = embedding_of("b")[:3] / np.linalg.norm(embedding_of("b")[:3])
    assert np.allclose(embedding, expected)


def test_all_dimensions_change_nothing() -> None:
    embeddings = embeddings_of("a", "b")
    answer = over_the_wire(embedding_response(request("base64", 8), "m", embeddings))
    assert answer["data"][0]["embedding"] == embeddings.encoded[0]


def test_more_dimensions_than_there_are_is_a_clear_error() -> None:
    with pytest.raises(InvalidRequest, match="9 are asked for, the model has 8") as caught:
        embedding_response(request(dimensions=9), "m", embeddings_of("a", "b"))
    assert caught.value.param == "dimensions"


def test_a_zero_vector_stays_zero() -> None:
    assert not shortened(np.zeros((1, 4), np.float32), 2).any()


@pytest.mark.parametrize("kind", ["int8", "uint8", "binary", "ubinary"])
def test_one_type_is_the_embedding_and_several_are_an_object(kind: EmbeddingType) -> None:
    embeddings = embeddings_of("a", "b")
    expected = quantised(embeddings.vectors, kind)
    one = EmbeddingRequest((Item("text", "a"), Item("text", "b")), types=(kind,))
    answer = over_the_wire(embedding_response(one, "m", embeddings))
    assert [entry["embedding"] for entry in answer["data"]] == expected.tolist()
    coded = over_the_wire(
        embedding_response(replace(one, encoding_format="base64"), "m", embeddings)
    )
    raw = base64.b64decode(coded["data"][1]["embedding"])
    assert raw == expected[1].tobytes()
    both = over_the_wire(embedding_response(replace(one, types=("float", kind)), "m", embeddings))
    assert both["data"][0]["embedding"]["float"] == pytest.approx(embeddings.vectors[0])
    assert both["data"][0]["embedding"][kind] == expected[0].tolist()


def test_ranges_are_those_of_unit_vectors() -> None:
    embeddings = embeddings_of("a")
    longer = Embeddings(embeddings.encoded, embeddings.vectors * 20, 1, 0)
    request = EmbeddingRequest((Item("text", "a"),), types=("int8",))
    answers = [
        over_the_wire(embedding_response(request, "m", each)) for each in (embeddings, longer)
    ]
    first, second = (np.array(each["data"][0]["embedding"]) for each in answers)
    assert np.abs(first - second).max() <= 1
