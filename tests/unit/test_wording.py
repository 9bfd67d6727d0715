import itertools
import re

import numpy as np
import pytest

from infinity_worker.demo.shapes import COLOURS, COUNTS, SHAPES, Scene, all_scenes, caption
from infinity_worker.demo.wording import (
    LABELS,
    OTHER,
    PROPERTIES,
    draw_captions,
    draw_labelled,
    draw_pair,
    draw_wording,
    filler,
    is_held_out,
    phrases,
    shared,
    training_scenes,
    words,
)

DRAWS = 300
NUMBERS = {"a": 1, "an": 1, "one": 1, "1": 1, "two": 2, "2": 2, "three": 3, "3": 3}


def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def read(text: str) -> list[Scene]:
    """Every scene that a text can mean, found without knowing how it was worded."""
    found = re.findall(r"[^\W_]+", text.lower())
    colours = {word for word in found if word in COLOURS}
    shapes = {s for s in SHAPES for word in found if re.fullmatch(f"{s}(e?s)?", word)}
    # "a photo of two stars": an article is a count only where there is no number.
    counts = {NUMBERS[word] for word in found if word in NUMBERS and word not in ("a", "an")}
    counts = counts or {NUMBERS[word] for word in found if word in ("a", "an")}
    return [Scene(*properties) for properties in itertools.product(colours, shapes, counts)]


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Scene("red", "star", 2), Scene("red", "star", 2), 3),
        (Scene("red", "star", 2), Scene("red", "star", 1), 2),
        (Scene("red", "star", 2), Scene("blue", "star", 1), 1),
        (Scene("red", "star", 2), Scene("blue", "cross", 2), 1),
        (Scene("red", "star", 2), Scene("blue", "cross", 3), 0),
    ],
)
def test_what_scenes_share(one: Scene, other: Scene, expected: int) -> None:
    assert shared(one, other) == shared(other, one) == expected


@pytest.mark.parametrize("scene", all_scenes()[::7], ids=caption)
def test_no_scene_shares_as_much_as_the_same_one(scene: Scene) -> None:
    assert [other for other in all_scenes() if shared(scene, other) == PROPERTIES] == [scene]


def test_one_scene_in_six_is_held_out_and_every_property_is_trained_on() -> None:
    training = training_scenes()
    held_out = [scene for scene in all_scenes() if is_held_out(scene)]
    assert set(training).isdisjoint(held_out)
    assert len(held_out) * 6 == len(held_out) + len(training) == len(all_scenes())
    for part in (training, held_out):
        assert {scene.colour for scene in part} == set(COLOURS)
        assert {scene.shape for scene in part} == set(SHAPES)
        assert {scene.count for scene in part} == set(COUNTS)
    assert {(scene.colour, scene.shape) for scene in training} == set(
        itertools.product(COLOURS, SHAPES)
    )


@pytest.mark.parametrize("scene", all_scenes()[::5], ids=caption)
def test_every_wording_says_what_the_scene_is_and_nothing_else(scene: Scene) -> None:
    assert phrases(scene)[0] == caption(scene)
    source = rng()
    for text in [*phrases(scene), *(draw_wording(scene, source) for _ in range(30))]:
        assert read(text) == [scene]


def test_filler_says_nothing() -> None:
    source = rng()
    texts = [filler(source, 9) for _ in range(DRAWS)]
    assert max(len(text.split()) for text in texts) == 9
    assert "" in texts
    known = {*COLOURS, *SHAPES, *NUMBERS}
    assert known.isdisjoint(word for text in texts for word in text.split())


def test_the_words_cover_every_wording() -> None:
    vocabulary = set(words())
    assert {*COLOURS, *SHAPES} < vocabulary
    for scene in all_scenes():
        for phrase in phrases(scene):
            assert vocabulary.issuperset(re.findall(r"\w+", phrase))


@pytest.mark.parametrize("draw", [draw_captions, draw_pair])
def test_a_pairs_relevance_is_the_part_that_its_texts_share(draw: type) -> None:
    source, scenes = rng(), training_scenes()
    pairs = [draw(scenes, source) for _ in range(DRAWS)]
    for pair in pairs:
        expected = [
            shared(query, document) / PROPERTIES
            for query in read(pair.query)
            for document in read(pair.document)
        ]
        assert [pair.relevance] == (expected or [0.0])
    assert {pair.relevance for pair in pairs} == {0, 1 / 3, 2 / 3, 1}


def test_pairs_are_about_scenes_to_train_on() -> None:
    source, scenes = rng(), training_scenes()
    for _ in range(DRAWS):
        pair = draw_pair(scenes, source)
        assert not any(map(is_held_out, [*read(pair.query), *read(pair.document)]))


def test_a_label_is_the_colour_that_its_text_names() -> None:
    source, scenes = rng(), training_scenes()
    drawn = [draw_labelled(scenes, source) for _ in range(DRAWS)]
    for one in drawn:
        named = set(COLOURS).intersection(re.findall(r"\w+", one.text.lower()))
        assert named == ({one.label} - {OTHER})
    assert {one.label for one in drawn} == set(LABELS)


def test_the_same_seed_draws_the_same() -> None:
    scenes = training_scenes()
    one, other = rng(), rng()
    assert [draw_pair(scenes, one) for _ in range(20)] == [
        draw_pair(scenes, other) for _ in range(20)
    ]
