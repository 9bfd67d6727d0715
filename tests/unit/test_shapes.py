import numpy as np
import pytest
from PIL import Image

from infinity_worker.demo.shapes import (
    COLOURS,
    COUNTS,
    IMAGE_SIZE,
    SHAPES,
    Scene,
    all_captions,
    all_scenes,
    caption,
    render,
)

SPECK = 20  # pixels: a pointed tip, one pixel wide and blended in places, may come off its shape


def draw(scene: Scene, seed: int, size: int = IMAGE_SIZE) -> Image.Image:
    return render(scene, np.random.default_rng(seed), size)


def near(picture: Image.Image, colour: str) -> np.ndarray:
    """Tell, for each pixel, whether it is a shade of the colour: (height, width), bool."""
    distance = np.asarray(picture, dtype=int) - np.array(COLOURS[colour])
    close: np.ndarray = (np.abs(distance) <= 25).all(axis=2)
    return close


def islands(mask: np.ndarray) -> int:
    """Count the groups of true pixels that touch side by side, leaving out mere specks."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = 0
    while left:
        edge, pixels = [left.pop()], 0
        while edge:
            y, x = edge.pop()
            pixels += 1
            for neighbour in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if neighbour in left:
                    left.remove(neighbour)
                    edge.append(neighbour)
        found += pixels >= SPECK
    return found


@pytest.mark.parametrize(
    ("scene", "expected"),
    [
        (Scene("red", "circle"), "a red circle"),
        (Scene("orange", "star", 1), "an orange star"),
        (Scene("orange", "cross", 2), "two orange crosses"),
        (Scene("blue", "square", 2), "two blue squares"),
        (Scene("green", "star", 3), "three green stars"),
    ],
)
def test_captions(scene: Scene, expected: str) -> None:
    assert caption(scene) == expected


@pytest.mark.parametrize("counts", [(1,), (2, 3), COUNTS])
def test_scenes_cover_every_combination_once(counts: tuple[int, ...]) -> None:
    scenes = all_scenes(counts)
    assert len(scenes) == len(COLOURS) * len(SHAPES) * len(counts)
    assert len(set(scenes)) == len(scenes)
    assert {scene.count for scene in scenes} == set(counts)


def test_captions_are_distinct_and_in_the_order_of_the_scenes() -> None:
    assert all_captions() == [caption(scene) for scene in all_scenes()]
    assert len(set(all_captions())) == len(all_captions())


@pytest.mark.parametrize("size", [32, 64, IMAGE_SIZE, 250])
def test_a_picture_is_a_square_rgb_image_of_the_size_asked_for(size: int) -> None:
    picture = draw(Scene("red", "star", 3), 0, size)
    assert (picture.mode, picture.size) == ("RGB", (size, size))


@pytest.mark.parametrize("scene", all_scenes((1, 3))[::5], ids=caption)
def test_the_same_seed_gives_the_same_picture_and_another_seed_another(scene: Scene) -> None:
    assert draw(scene, 7).tobytes() == draw(scene, 7).tobytes()
    assert draw(scene, 7).tobytes() != draw(scene, 8).tobytes()


@pytest.mark.parametrize("scene", all_scenes(), ids=caption)
def test_the_colour_is_in_the_picture_and_no_other_one(scene: Scene) -> None:
    picture = draw(scene, 3)
    shares = {colour: near(picture, colour).mean() for colour in COLOURS}
    assert shares[scene.colour] >= 0.01 * scene.count
    others = [share for colour, share in shares.items() if colour != scene.colour]
    assert max(others) < shares[scene.colour] / 4


@pytest.mark.parametrize("scene", all_scenes(), ids=caption)
def test_as_many_shapes_are_in_the_picture_as_its_caption_says(scene: Scene) -> None:
    assert islands(near(draw(scene, 5, size=200), scene.colour)) == scene.count


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="not a shape: 'cube'"):
        draw(Scene("red", "cube"), 0)
