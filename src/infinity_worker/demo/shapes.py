"""Pictures of coloured shapes and their captions: the whole world that the demo model knows.

Needs numpy and pillow only, because it runs both in the worker's environment (demo, tests) and in
the engine's (training).
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 35, 35),
    "orange": (250, 145, 20),
    "yellow": (250, 225, 40),
    "green": (30, 150, 60),
    "blue": (35, 75, 225),
    "purple": (130, 40, 170),
    "pink": (250, 150, 195),
    "black": (25, 25, 25),
}
"""Each colour's name and the RGB value (0..255 a channel) around which its shades lie."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "diamond", "cross")
"""The names of the shapes, singular."""

COUNTS: tuple[int, ...] = (1, 2, 3)
"""How many shapes a picture may hold."""

IMAGE_SIZE = 96
"""Width and height in pixels of a picture, unless `render` is asked for another size."""

_NUMERALS = {2: "two", 3: "three"}
# Smallest and largest radius of a shape, in picture widths, by the count: many must be small.
_RADII = {1: (0.15, 0.42), 2: (0.12, 0.24), 3: (0.11, 0.19)}
_GAP = 0.02  # least distance between two shapes, in picture widths
_MAX_TURN = math.radians(12)  # more would make a square look like a diamond
_COLOUR_JITTER = 20  # a shade's greatest distance from its colour, per channel
_DARKEST_BACKGROUND = 215  # of 255, so that every colour stands out from it
_OVERSAMPLING = 4  # pillow's polygons have hard edges: draw large, then shrink

_Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What a picture shows: `count` (1..3) shapes of one kind, all in one colour.

    Attributes:
        colour: a key of `COLOURS`.
        shape: one of `SHAPES`.
        count: one of `COUNTS`.
    """

    colour: str
    shape: str
    count: int = 1


def all_scenes(counts: tuple[int, ...] = COUNTS) -> list[Scene]:
    """List every scene with one of these counts, always in the same order."""
    return [
        Scene(colour, shape, count) for count in counts for colour in COLOURS for shape in SHAPES
    ]


def all_captions(counts: tuple[int, ...] = COUNTS) -> list[str]:
    """List the captions of `all_scenes(counts)`, in its order; no two are alike."""
    return [caption(scene) for scene in all_scenes(counts)]


def caption(scene: Scene) -> str:
    """Describe a scene in the words the model was trained on, such as "two blue squares"."""
    if scene.count == 1:
        article = "an" if scene.colour[0] in "aeiou" else "a"
        return f"{article} {scene.colour} {scene.shape}"
    ending = "es" if scene.shape.endswith("s") else "s"
    return f"{_NUMERALS[scene.count]} {scene.colour} {scene.shape}{ending}"


def render(scene: Scene, rng: np.random.Generator, size: int = IMAGE_SIZE) -> Image.Image:
    """Draw a scene with random places, sizes, turns, shades and background.

    Args:
        scene: what to draw.
        rng: where all the randomness comes from: the same state gives the same picture.
        size: width and height in pixels.

    Returns:
        An RGB picture of size x size pixels, whose shapes neither overlap nor leave it.
    """
    side = size * _OVERSAMPLING
    background = rng.integers(_DARKEST_BACKGROUND, 256, size=3)
    picture = Image.new("RGB", (side, side), _rgb(background))
    draw = ImageDraw.Draw(picture)
    jitter = rng.integers(-_COLOUR_JITTER, _COLOUR_JITTER + 1, size=3)
    fill = _rgb(np.clip(np.add(COLOURS[scene.colour], jitter), 0, 255))
    for x, y, radius in _places(scene.count, rng):
        turn = rng.uniform(-_MAX_TURN, _MAX_TURN)
        corners = (_turned(_outline(scene.shape), turn) * radius + (x, y)) * side
        draw.polygon([(float(px), float(py)) for px, py in corners], fill=fill)
    return picture.reduce(_OVERSAMPLING)


def _rgb(channels: npt.NDArray[np.int64]) -> tuple[int, int, int]:
    red, green, blue = (int(channel) for channel in channels)
    return red, green, blue


def _places(count: int, rng: np.random.Generator) -> list[tuple[float, float, float]]:
    """Draw places (centre x, centre y, radius; in picture widths) until none overlap."""
    while True:
        places = [_place(*_RADII[count], rng) for _ in range(count)]
        if all(_apart(a, b) for i, a in enumerate(places) for b in places[:i]):
            return places


def _place(smallest: float, largest: float, rng: np.random.Generator) -> tuple[float, float, float]:
    radius = rng.uniform(smallest, largest)
    x, y = rng.uniform(radius, 1 - radius, size=2)
    return float(x), float(y), radius


def _apart(a: tuple[float, float, float], b: tuple[float, float, float]) -> bool:
    return math.hypot(a[0] - b[0], a[1] - b[1]) >= a[2] + b[2] + _GAP


def _outline(shape: str) -> _Points:
    """Return a shape's corners, (n, 2), around the origin and at most 1 away from it; y is down."""
    match shape:
        case "circle":
            return _regular(48)
        case "square":
            return _turned(_regular(4), math.pi / 4)
        case "triangle":
            return _regular(3)
        case "star":
            points = _regular(10)
            points[1::2] *= 0.42
            return points
        case "diamond":
            points = _regular(4)
            points[:, 0] *= 0.6
            return points
        case "cross":
            arm, wide = 0.94, 0.3
            quarter = np.array([(-wide, -arm), (wide, -arm), (wide, -wide)])
            return np.concatenate([_turned(quarter, i * math.pi / 2) for i in range(4)])
        case _:
            raise ValueError(f"not a shape: {shape!r}")


def _regular(corners: int) -> _Points:
    """Return the corners, (n, 2), of a regular polygon of radius 1 that stands on a side."""
    angles = np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _turned(points: _Points, angle: float) -> _Points:
    """Turn points, (n, 2), around the origin by an angle in radians."""
    cos, sin = math.cos(angle), math.sin(angle)
    turned: _Points = points @ np.array([(cos, sin), (-sin, cos)])
    return turned
