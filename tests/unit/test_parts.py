import re
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.errors import InvalidRequest, RequestTooLarge
from infinity_worker.infinity_client import (
    MAX_TEXT_CHARS,
    EmbeddingBatch,
    InfinityBadResponse,
    Model,
)
from infinity_worker.parts import PartAnswer, check_count, merge, split, unfit
from infinity_worker.schema import EmbeddingRequest, Item
from infinity_worker.utils import Modality

ITEMS = st.lists(st.builds(Item, st.sampled_from(["text", "image"]), st.just("x")), max_size=200)


TEXT = Model("reader", frozenset({"embed"}))
BOTH = Model("viewer", frozenset({"embed", "image_embed"}))


@given(ITEMS)
def test_every_item_is_in_one_part_of_its_modality(items: list[Item]) -> None:
    places = range(100, 100 + len(items))
    parts = split(items, places)
    assert sorted(at for part in parts for at in part.positions) == list(places)
    for part in parts:
        assert {items[at - 100].modality for at in part.positions} == {part.modality}
        assert [items[at - 100].content for at in part.positions] == part.contents


def answer(modality: Modality, positions: Sequence[int], dimensions: int = 2) -> PartAnswer:
    """Embeddings that tell which position they belong to."""
    vectors = np.repeat(np.array(positions, np.float32)[:, None], dimensions, axis=1)
    batch = EmbeddingBatch([str(at) for at in positions], vectors, 100)
    return PartAnswer(modality, positions, batch, tokens=3 if modality == "text" else 0)


@given(ITEMS, st.sets(st.integers(0, 199)))
def test_answers_come_back_in_the_callers_order(items: list[Item], bad: set[int]) -> None:
    good = [at for at in range(len(items)) if at not in bad]
    parts = split([items[at] for at in good], good)
    failures = {at: InvalidRequest("bad") for at in bad if at < len(items)}
    merged = merge([answer(part.modality, part.positions) for part in parts], failures)
    assert list(merged.encoded) == [str(at) for at in good]
    assert len(merged.vectors) == len(good)
    assert merged.images == sum(items[at].modality == "image" for at in good)
    assert merged.text_tokens == 3 * any(items[at].modality == "text" for at in good)
    assert merged.failures == failures


def test_answers_of_different_dimensions_are_an_engine_error() -> None:
    with pytest.raises(InfinityBadResponse, match="dimensions"):
        merge([answer("text", [0], 2), answer("image", [1], 3)], {})


def test_too_many_items_are_refused() -> None:
    two = EmbeddingRequest((Item("text", "a"), Item("text", "b")))
    check_count(two, max_items=2)
    with pytest.raises(RequestTooLarge, match="2 items, at most 1") as caught:
        check_count(two, max_items=1)
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("model", "items", "expected"),
    [
        (TEXT, [Item("text", "a" * MAX_TEXT_CHARS)], {}),
        (BOTH, [Item("text", "a"), Item("image", "b")], {}),
        (
            BOTH,
            [Item("text", "a"), Item("text", "a" * (MAX_TEXT_CHARS + 1)), Item("image", "b")],
            {1: (RequestTooLarge, r"input\[1\]: 122,881 characters")},
        ),
        (
            TEXT,
            [Item("image", "b"), Item("text", "a"), Item("image", "b")],
            {
                0: (InvalidRequest, r"input\[0\]: the model reader does not embed images.*viewer"),
                2: (InvalidRequest, r"input\[2\]: .*: viewer$"),
            },
        ),
        # However long an image is, its characters are not those of a text.
        (BOTH, [Item("image", "b" * (MAX_TEXT_CHARS + 1))], {}),
    ],
)
def test_what_a_model_does_not_take(
    model: Model, items: list[Item], expected: dict[int, tuple[type[Exception], str]]
) -> None:
    failures = unfit(EmbeddingRequest(tuple(items)), model, [TEXT, BOTH])
    assert failures.keys() == expected.keys()
    for at, (kind, words) in expected.items():
        assert isinstance(failures[at], kind)
        assert re.search(words, str(failures[at]))
        assert failures[at].param == f"input[{at}]"
