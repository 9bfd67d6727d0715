from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.errors import InvalidRequest
from infinity_worker.schema import EmbeddingRequest, Item

IMAGE = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    ("body", "items"),
    [
        ({"input": "hello"}, [Item("text", "hello")]),
        ({"input": ["a", IMAGE]}, [Item("text", "a"), Item("image", IMAGE)]),
        ({"input": ""}, [Item("text", "")]),
        ({"text": IMAGE}, [Item("text", IMAGE)]),
        ({"text": ["a", "b"]}, [Item("text", "a"), Item("text", "b")]),
        ({"image": "abc"}, [Item("image", "abc")]),
        ({"image": ["abc"]}, [Item("image", "abc")]),
        ({"input": "abc", "modality": "image"}, [Item("image", "abc")]),
        ({"input": IMAGE, "modality": "text"}, [Item("text", IMAGE)]),
        ({"input": "a", "modality": None, "text": None}, [Item("text", "a")]),
        ({"input": {"text": IMAGE}}, [Item("text", IMAGE)]),
        ({"texts": ["a", IMAGE]}, [Item("text", "a"), Item("text", IMAGE)]),
        ({"images": ["abc"]}, [Item("image", "abc")]),
        (
            {"inputs": ["a", {"content": [{"image_url": "abc"}]}]},
            [Item("text", "a"), Item("image", "abc")],
        ),
        ({"messages": [{"role": "user", "content": "a"}]}, [Item("text", "a")]),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
            [Item("text", "a")],
        ),
        ({"input": ["a", {"image": "abc"}]}, [Item("text", "a"), Item("image", "abc")]),
    ],
)
def test_standard_inputs(body: dict[str, Any], items: list[Item]) -> None:
    assert list(EmbeddingRequest.from_standard(body).items) == items


def test_options_are_read_and_unknown_ones_ignored() -> None:
    request = EmbeddingRequest.from_openai(
        {
            "input": "a",
            "model": "m",
            "encoding_format": "base64",
            "dimensions": 12,
            "user": "u",
            "anything": {"else": 1},
        }
    )
    assert (request.model, request.encoding_format, request.dimensions) == ("m", "base64", 12)


def test_null_options_count_as_absent() -> None:
    request = EmbeddingRequest.from_openai(
        {"input": "a", "model": None, "encoding_format": None, "dimensions": None, "user": None}
    )
    assert (request.model, request.encoding_format, request.dimensions) == (None, "float", None)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (None, "input", 'a text"}, not null'),
        ([], "input", "must be a JSON object such as"),
        ({}, "input", "`input` or `text` or `image` is missing"),
        ({"input": None}, "input", "missing"),
        ({"input": "a", "text": "b"}, "input", "more than one"),
        ({"input": []}, "input", "empty"),
        ({"input": 7}, "input", "not a number"),
        ({"input": {"a": 1}}, "input", "no text and no image"),
        ({"input": True}, "input", "not a boolean"),
        ({"input": ["a", None]}, "input[1]", "not null"),
        ({"input": ["a", 7]}, "input[1]", "not a number"),
        ({"text": ["a", {}]}, "text[1]", "no text and no image"),
        ({"input": [1, 2]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2], [3]]}, "input[0]", "check_embedding_ctx_length=False"),
        ({"input": ["fine", "half \ud83d"]}, "input[1]", "surrogate"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "dimensions": 0}, "dimensions", "greater than 0"),
        ({"input": "a", "dimensions": "12"}, "dimensions", "integer"),
        ({"input": "a", "dimensions": True}, "dimensions", "integer"),
        ({"input": "a", "model": 3}, "model", "string"),
        ({"input": "a", "modality": "video"}, "modality", "'text' or 'image'"),
        ({"text": "a", "modality": "image"}, "modality", "contradicts"),
    ],
)
def test_a_malformed_request_names_the_field(body: object, param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        EmbeddingRequest.from_standard(body)
    assert caught.value.param == param
    assert words in str(caught.value)


def test_bad_items_are_set_aside_for_who_wants_the_good_ones() -> None:
    items = ["good", 7, {"image": "abc"}, "half \ud83d", [1, 2]]
    request = EmbeddingRequest.from_standard({"input": items, "on_error": "null"})
    assert request.items == (Item("text", "good"), Item("image", "abc"))
    assert list(request.positions) == [0, 2]
    assert request.count == 5
    assert {at: error.param for at, error in request.failures.items()} == {
        1: "input[1]",
        3: "input[3]",
        4: "input[4]",
    }
    with pytest.raises(InvalidRequest, match=r"input\[1\]"):
        EmbeddingRequest.from_standard({"input": items})


def test_a_shape_that_contradicts_the_field_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"text\[0\]: its shape says image"):
        EmbeddingRequest.from_standard({"text": [{"image": "abc"}]})


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"messages": []}, "messages", "one message"),
        ({"messages": [{"content": "a"}, {"content": "b"}]}, "messages", "one message"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages", "only a user's"),
        ({"messages": [{"content": [{"text": "a"}, {"image": "b"}]}]}, "messages", "one embedding"),
        ({"input": "a", "truncate": "START"}, "truncate", "at their end"),
        ({"input": "a", "truncate": "MIDDLE"}, "truncate", "must be END"),
        ({"input": "a", "embedding_types": ["int4"]}, "embedding_types", "float"),
        ({"texts": ["a"], "images": ["b"]}, "texts", "more than one"),
        ({"images": ["a"], "modality": "text"}, "modality", "contradicts"),
    ],
)
def test_a_malformed_field_of_other_clients(body: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        EmbeddingRequest.from_openai(body)
    assert caught.value.param == param
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"types": ("float",), "encoding_format": "float", "dimensions": None, "cuts": True}),
        ({"output_dimension": 5}, {"dimensions": 5}),
        ({"dimensions": 4, "output_dimension": 5}, {"dimensions": 4}),
        ({"embedding_types": ["int8", "binary", "int8"]}, {"types": ("int8", "binary")}),
        ({"embedding_type": "ubinary"}, {"types": ("ubinary",)}),
        ({"embedding_type": ["float", "int8"]}, {"types": ("float", "int8")}),
        ({"output_dtype": "uint8"}, {"types": ("uint8",)}),
        ({"embedding_type": "base64"}, {"types": ("float",), "encoding_format": "base64"}),
        (
            {"embedding_types": ["base64", "int8"]},
            {"types": ("int8",), "encoding_format": "base64"},
        ),
        ({"truncate": False}, {"cuts": False}),
        ({"truncate": "none"}, {"cuts": False}),
        ({"truncate": "End"}, {"cuts": True}),
        ({"truncation": False}, {"cuts": False}),
        ({"input_type": "search_query"}, {"purpose": ("input_type", "search_query")}),
        (
            {"task": "retrieval.query", "prompt": "p"},
            {"purpose": ("task", "retrieval.query"), "prompt": "p"},
        ),
    ],
)
def test_the_options_of_many_clients(body: dict[str, Any], expected: dict[str, Any]) -> None:
    request = EmbeddingRequest.from_openai({"input": "a"} | body)
    assert {name: getattr(request, name) for name in expected} == expected


def test_only_input_is_read_on_the_openai_route() -> None:
    with pytest.raises(InvalidRequest, match="`input` is missing"):
        EmbeddingRequest.from_openai({"text": "a"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["input", "text", "image", "model", "on_error", "dimensions"]), JSON
    )
    | JSON
)
def test_any_json_is_read_or_refused(body: object) -> None:
    try:
        request = EmbeddingRequest.from_standard(body)
    except InvalidRequest:
        return
    assert request.count


@given(st.text(min_size=20, alphabet="äöüß€"))
def test_a_message_never_repeats_what_was_sent(secret: str) -> None:
    for body in (
        {"input": "a", "model": [secret]},
        {"input": "a", "encoding_format": secret},
        {"input": "a", "dimensions": secret},
        {"input": {"x": secret}},
        {"input": [{"x": secret}]},
    ):
        with pytest.raises(InvalidRequest) as caught:
            EmbeddingRequest.from_standard(body)
        assert secret not in str(caught.value)
