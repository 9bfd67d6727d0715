"""Job inputs that no honest client sends, as hypothesis strategies."""

import json
import math
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

from corpus import data_uri, encoded, picture

IMAGE = data_uri(encoded(picture(), "PNG"))
DEEP = 700

VALID: list[dict[str, Any]] = [
    {"input": "a text"},
    {"input": ["a", "b"], "model": "fake-text", "encoding_format": "base64", "dimensions": 4},
    {"text": ["a", ""], "modality": "text", "on_error": "null"},
    {"image": IMAGE, "model": "fake-clip"},
    {"input": ["a", IMAGE, {"image": IMAGE}], "model": "fake-clip", "on_error": "null"},
    {"input": [{"type": "image_url", "image_url": {"url": IMAGE}}], "model": "fake-clip"},
    {"input": [{"content": [{"type": "text", "text": "a"}]}]},
    {"openai_route": "/v1/embeddings", "openai_input": {"input": ["a", "b"], "user": "u"}},
    {"openai_route": "/v1/models", "openai_input": {}},
    {"query": "a", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True},
    {"openai_route": "/v1/classify", "openai_input": {"input": ["a", "b"], "raw_scores": True}},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}]},
    {"texts": ["a"], "embedding_types": ["float", "int8", "binary"], "input_type": "search_query"},
]


def nested(depth: int) -> Any:
    """Lists in lists."""
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(
        [
            "",
            "\0",
            "half a pair \ud83d",
            "data:image/png;base64,",
            "data:,",
            "http://127.0.0.1:1/a.png",
            "http://[::1/a.png",
            10**400,
            -(2**63) - 1,
            math.nan,
            -math.inf,
            1e308,
        ]
    )
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=8)
            | st.sampled_from(["input", "text", "image", "url", "type", "content", "error", "id"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
) | st.sampled_from(
    [nested(DEEP), [0] * 20_000, ["a"] * 20_000, [None] * 500, {str(at): at for at in range(2_000)}]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value, as the keys that lead to it."""
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            yield from places(inner, (*path, at))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The value with something else at one place."""
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@st.composite
def hostile_input(draw: st.DrawFn) -> Any:
    """A valid job input with anything at all at one or two places, or a field too many."""
    value = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 2))):
        if isinstance(value, dict) and draw(st.booleans()):
            field = draw(st.sampled_from(["input", "text", "model", "on_error", "x", "dimensions"]))
            value = {**value, field: draw(ANYTHING)}
        else:
            path = draw(st.sampled_from(list(places(value))))
            value = replaced(value, path, draw(ANYTHING))
    return value


@st.composite
def hostile_body(draw: st.DrawFn, wrapped: bool = True) -> bytes:  # noqa: FBT001, FBT002  # hypothesis passes them on
    """An HTTP body: JSON of such an input, with keys twice, or cut, or no JSON at all."""
    value = draw(hostile_input())
    text = json.dumps({"input": value} if wrapped else value)
    match draw(st.integers(0, 9)):
        case 0:
            text = text[: draw(st.integers(0, len(text)))]
        case 1 if text.startswith("{"):
            text = '{"input": ' + json.dumps(draw(SCALARS)) + ", " + text[1:]
        case 2:
            at = draw(st.integers(0, len(text)))
            return text[:at].encode() + draw(st.binary(max_size=4)) + text[at:].encode()
    return text.encode()
