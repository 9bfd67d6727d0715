import io
import re

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import Case, bad, encoded, good, picture, png
from infinity_worker.errors import RequestError
from infinity_worker.images.decoding import read_header, verified
from infinity_worker.images.sources import checked

MAX_BYTES, MAX_PIXELS = 20_000_000, 50_000_000
GOOD = list(good())


def by_name(case: Case) -> str:
    return case.name


def checked_image(raw: bytes) -> tuple[bytes, str]:
    return verified(checked(raw, MAX_BYTES), read_header(raw, MAX_PIXELS))


def as_the_engine_opens(raw: bytes) -> PIL.Image.Image:
    """Infinity opens lazily; the processor converts to RGB, and decodes, in a batch with others."""
    opened = PIL.Image.open(io.BytesIO(raw))
    assert min(opened.size) >= 3
    assert opened.height != 3
    return opened.convert("RGB")


@pytest.mark.parametrize("case", GOOD, ids=by_name)
def test_every_accepted_picture_becomes_one_that_the_engine_decodes(case: Case) -> None:
    content, media_type = checked_image(case.raw)
    opened = PIL.Image.open(io.BytesIO(content))
    assert opened.mode == "RGB"
    assert f"image/{opened.format}".lower() == media_type
    as_the_engine_opens(content)


@pytest.mark.parametrize("case", list(bad()), ids=by_name)
def test_every_other_is_refused_by_name(case: Case) -> None:
    try:
        content, _ = checked_image(case.raw)
    except RequestError as error:
        assert case.code in (0, error.code)  # noqa: PT017  # either way may be right
        assert re.search(case.words, str(error))  # noqa: PT017  # likewise
    else:
        assert case.code == 0
        as_the_engine_opens(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_plain_picture_is_handed_on_byte_for_byte(kind: str) -> None:
    raw = encoded(picture(), kind)
    assert checked_image(raw) == (raw, f"image/{kind.lower()}")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_without_loss(orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    raw = encoded(picture().resize((48, 30)), "JPEG", exif=exif)
    stored = PIL.Image.open(io.BytesIO(raw))
    turned = {
        2: [PIL.Image.Transpose.FLIP_LEFT_RIGHT],
        3: [PIL.Image.Transpose.ROTATE_180],
        4: [PIL.Image.Transpose.FLIP_TOP_BOTTOM],
        5: [PIL.Image.Transpose.TRANSPOSE],
        6: [PIL.Image.Transpose.ROTATE_270],
        7: [PIL.Image.Transpose.TRANSVERSE],
        8: [PIL.Image.Transpose.ROTATE_90],
    }.get(orientation, [])
    expected: PIL.Image.Image = stored
    for step in turned:
        expected = expected.transpose(step)
    content, _ = checked_image(raw)
    assert np.array_equal(np.asarray(as_the_engine_opens(content)), np.asarray(expected))


def test_transparent_parts_are_white() -> None:
    colours = np.zeros((8, 8, 4), np.uint8)
    colours[:4] = (255, 0, 0, 255)
    colours[4:6] = (255, 0, 0, 128)
    content, _ = checked_image(encoded(PIL.Image.fromarray(colours), "PNG"))
    seen = np.asarray(as_the_engine_opens(content))
    assert [seen[row, 0].tolist() for row in (0, 5, 7)] == [
        [255, 0, 0],
        [255, 127, 127],
        [255, 255, 255],
    ]


def test_16_bits_keep_the_upper_ones() -> None:
    lines = b"".join(b"\0" + (1000 * row).to_bytes(2, "big") * 8 for row in range(8))
    content, _ = checked_image(png(8, 8, 16, 0, lines))
    seen = np.asarray(as_the_engine_opens(content))
    assert seen[:, 0, 0].tolist() == [1000 * row // 256 for row in range(8)]


def test_the_first_frame_counts() -> None:
    frames = [picture(), PIL.Image.new("RGB", (48, 48), "blue")]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        raw = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        content, _ = checked_image(raw)
        difference = np.asarray(as_the_engine_opens(content), int) - np.asarray(frames[0], int)
        assert np.abs(difference).mean() < 5, kind


def test_a_picture_of_three_rows_is_doubled() -> None:
    original = picture().resize((40, 3))
    content, _ = checked_image(encoded(original, "PNG"))
    seen = np.asarray(as_the_engine_opens(content))
    assert np.array_equal(seen[::2, ::2], np.asarray(original))
    assert seen.shape == (6, 80, 3)


@settings(max_examples=1_000, deadline=None)
@given(st.data())
def test_whatever_comes_is_refused_or_decodes(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from(GOOD)).raw)
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(raw)))
        stop = data.draw(st.integers(at, min(len(raw), at + 40)))
        raw[at:stop] = data.draw(st.binary(max_size=40))
    try:
        content, _ = checked_image(bytes(raw))
    except RequestError as error:
        assert error.code in (400, 413)  # noqa: PT017  # either way is right
    else:
        as_the_engine_opens(content)
