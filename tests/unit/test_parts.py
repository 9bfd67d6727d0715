import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.infinity_client import (
    MAX_TEXT_CHARS,
    EmbeddingBatch,
    InfinityBadResponse,
)
from infinity_worker.parts import check_sizes, merge, split
from infinity_worker.schema import EmbeddingRequest, Item, RequestTooLarge

ITEMS = st.lists(st.builds(Item, st.sampled_from(["text", "image"]), st.just("x")), max_size=200)


@given(ITEMS.filter(bool))
def test_every_item_is_in_one_part_of_its_modality(items: list[Item]) -> None:
    parts = split(items)
    assert sorted(at for part in parts for at in part.positions) == list(range(len(items)))
    for part in parts:
        assert {items[at].modality for at in part.positions} == {part.modality}
        assert [items[at].content for at in part.positions] == part.contents


def answer(positions: list[int], dimensions: int = 2) -> EmbeddingBatch:
    """Embeddings that tell which position they belong to."""
    vectors = np.repeat(np.array(positions, np.float32)[:, None], dimensions, axis=1)
    return EmbeddingBatch([str(at) for at in positions], vectors, 100)


@given(ITEMS.filter(bool))
def test_answers_come_back_in_the_callers_order(items: list[Item]) -> None:
    parts = split(items)
    merged = merge(parts, [answer(list(part.positions)) for part in parts], 7)
    assert list(merged.encoded) == [str(at) for at in range(len(items))]
    assert merged.vectors[:, 0].tolist() == list(range(len(items)))
    assert merged.images == sum(item.modality == "image" for item in items)
    assert merged.text_tokens == 7


def test_answers_of_different_dimensions_are_an_engine_error() -> None:
    parts = split([Item("text", "a"), Item("image", "b")])
    with pytest.raises(InfinityBadResponse, match="dimensions"):
        merge(parts, [answer([0], 2), answer([1], 3)], 0)


def request(*texts: str) -> EmbeddingRequest:
    return EmbeddingRequest(tuple(Item("text", text) for text in texts))


def test_too_many_items_are_refused() -> None:
    check_sizes(request("a", "b"), max_items=2)
    with pytest.raises(RequestTooLarge, match="3 items, at most 2") as caught:
        check_sizes(request("a", "b", "c"), max_items=2)
    assert caught.value.param == "input"


def test_a_text_over_the_engines_limit_is_refused_by_name() -> None:
    check_sizes(request("a" * MAX_TEXT_CHARS), max_items=2)
    with pytest.raises(RequestTooLarge, match=r"input\[1\]: 122,881 characters") as caught:
        check_sizes(request("a", "a" * (MAX_TEXT_CHARS + 1)), max_items=2)
    assert caught.value.param == "input[1]"
