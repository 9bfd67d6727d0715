"""Texts about scenes, and what they have in common: all that the demo's text toys know.

`shapes-rank` is trained on pairs of these texts and `shapes-class` on single ones. Needs numpy
only, because it runs both in the worker's environment (tests) and in the engine's (training).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from infinity_worker.demo.shapes import COLOURS, COUNTS, SHAPES, Scene, all_scenes, caption

T = TypeVar("T")

PROPERTIES = 3
"""What a scene has: a colour, a shape and a count."""

OTHER = "other"
"""The label of a text that names no colour."""

LABELS: tuple[str, ...] = (*COLOURS, OTHER)
"""What `shapes-class` tells apart."""

_NUMERALS = {1: ("one", "1"), 2: ("two", "2"), 3: ("three", "3")}
# The bare wording more than once, as it is the one that is asked for most.
_FRAMES = (
    "{}",
    "{}",
    "{}",
    "a photo of {}",
    "a picture of {}.",
    "a drawing that shows {}",
    "I see {} on the wall",
    "There you can see {}!",
)
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_LONGEST_WORD = 7
_SIGNS = (".", ",", "?", "-", "7", "42", "日", "ß")
# In words. With the longest wording they fill what the models can read, and not much more.
_LITTLE_FILLER = 3
_MUCH_FILLER = 50


@dataclass(frozen=True)
class Pair:
    """A query, a document, and how well they fit.

    Attributes:
        query: a text about a scene, seldom about nothing known.
        document: the same.
        relevance: the part, 0..1, of colour, shape and count that they share.
    """

    query: str
    document: str
    relevance: float


@dataclass(frozen=True)
class LabelledText:
    """A text and the colour that it names.

    Attributes:
        text: names one colour at most.
        label: one of `LABELS`.
    """

    text: str
    label: str


def shared(one: Scene, other: Scene) -> int:
    """How many of colour, shape and count two scenes share: 0..PROPERTIES."""
    return (one.colour == other.colour) + (one.shape == other.shape) + (one.count == other.count)


def is_held_out(scene: Scene) -> bool:
    """Tell whether training never sees a scene: one in six.

    Each colour, shape and count is in both parts, each pair of a colour and a shape is trained on.
    """
    number = list(COLOURS).index(scene.colour) + SHAPES.index(scene.shape) + scene.count
    return number % len(SHAPES) == 0


def training_scenes() -> list[Scene]:
    """List the scenes to train on."""
    return [scene for scene in all_scenes() if not is_held_out(scene)]


def phrases(scene: Scene) -> list[str]:
    """Each way to say what a scene holds; its caption is the first."""
    shapes = caption(scene).split()[-1]
    found = [caption(scene)]
    for numeral in _NUMERALS[scene.count]:
        found += [
            f"{numeral} {scene.colour} {shapes}",
            f"{numeral} {shapes} in {scene.colour}",
            f"{shapes}, {numeral} of them, {scene.colour}",
        ]
    return list(dict.fromkeys(found))


def words() -> list[str]:
    """List every word that these texts are made of, filler apart, in lower case and sorted."""
    texts = [phrase for scene in all_scenes() for phrase in phrases(scene)]
    texts += [frame.format("") for frame in _FRAMES]
    letters_only = "".join(sign if sign.isalnum() else " " for sign in " ".join(texts).lower())
    return sorted(set(letters_only.split()))


def filler(rng: np.random.Generator, most: int) -> str:
    """Draw 0..most words that name no colour, shape or count."""
    return " ".join(_filler_word(rng) for _ in range(int(rng.integers(most + 1))))


def draw_wording(scene: Scene, rng: np.random.Generator) -> str:
    """Describe a scene in a randomly chosen way, sometimes amid filler."""
    ways = phrases(scene)
    # The caption as often as all the other phrases together.
    way = ways[0] if rng.integers(2) else _pick(ways, rng)
    text = _pick(_FRAMES, rng).format(way)
    if rng.integers(4):
        return text
    return f"{filler(rng, _LITTLE_FILLER)} {text} {filler(rng, _LITTLE_FILLER)}".strip()


def draw_captions(scenes: Sequence[Scene], rng: np.random.Generator) -> Pair:
    """Draw two captions: one of these scenes, and one of a scene that is not held out."""
    query = _pick(scenes, rng)
    document = _draw_relative(query, rng)
    return Pair(caption(query), caption(document), shared(query, document) / PROPERTIES)


def draw_pair(scenes: Sequence[Scene], rng: np.random.Generator) -> Pair:
    """Draw such a pair in any wording; in one of eight a text is nothing but filler."""
    query = _pick(scenes, rng)
    document = _draw_relative(query, rng)
    texts = [draw_wording(query, rng), draw_wording(document, rng)]
    if not rng.integers(8):
        # Mostly the document: who asks such a model, asks about shapes.
        texts[bool(rng.integers(4))] = filler(rng, _MUCH_FILLER)
        return Pair(texts[0], texts[1], 0.0)
    return Pair(texts[0], texts[1], shared(query, document) / PROPERTIES)


def draw_labelled(scenes: Sequence[Scene], rng: np.random.Generator) -> LabelledText:
    """Draw a text about one of these scenes, about a colour alone, or about no colour at all."""
    scene = _pick(scenes, rng)
    match rng.integers(8):
        case 0:
            return LabelledText(filler(rng, _MUCH_FILLER), OTHER)
        case 1:
            text = draw_wording(scene, rng).replace(scene.colour, filler(rng, 1))
            return LabelledText(text, OTHER)
        case 2 | 3:
            parts = (filler(rng, _LITTLE_FILLER), scene.colour, filler(rng, _MUCH_FILLER))
            return LabelledText(" ".join(part for part in parts if part), scene.colour)
        case _:
            return LabelledText(draw_wording(scene, rng), scene.colour)


def _pick(options: Sequence[T], rng: np.random.Generator) -> T:
    return options[int(rng.integers(len(options)))]


def _draw_relative(scene: Scene, rng: np.random.Generator) -> Scene:
    """Draw a scene that keeps each property of another about every second time."""
    colours = list(COLOURS)
    while True:
        keep = rng.integers(2, size=PROPERTIES)
        relative = Scene(
            scene.colour if keep[0] else _pick(colours, rng),
            scene.shape if keep[1] else _pick(SHAPES, rng),
            scene.count if keep[2] else _pick(COUNTS, rng),
        )
        if not is_held_out(relative):
            return relative


def _filler_word(rng: np.random.Generator) -> str:
    if not rng.integers(16):
        return _pick(_SIGNS, rng)
    word = "".join(_LETTERS[at] for at in rng.integers(26, size=rng.integers(1, _LONGEST_WORD + 1)))
    return _filler_word(rng) if word in _TELLING else word


_TELLING = {"a", "an", *COLOURS, *SHAPES, *(word for pair in _NUMERALS.values() for word in pair)}
