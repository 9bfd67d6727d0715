import base64
import io
import string
from typing import NoReturn, SupportsIndex

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from infinity_worker.utils import Modality, detect_modality


def picture(image_format: str, size: tuple[int, int] = (8, 8)) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(buffer, image_format)
    return base64.b64encode(buffer.getvalue()).decode()


def wrapped(text: str) -> str:
    return "\n".join(text[at : at + 76] for at in range(0, len(text), 76)) + "\n"


FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
CASES: list[tuple[str, Modality]] = [
    ("data:image/png;base64,iVBORw0KGgo=", "image"),
    ("DATA:IMAGE/JPEG;base64,AAAA", "image"),
    ("data:image/svg+xml,%3Csvg/%3E", "image"),
    ("https://example.com/cat.png", "image"),
    ("http://example.com/CAT.JPG", "image"),
    ("HTTPS://example.com/a/b/cat.jpeg?size=large&x=1", "image"),
    ("https://example.com/cat.webp#top", "image"),
    ("https://example.com:8080/cat.tiff", "image"),
    *((picture(name), "image") for name in FORMATS),
    *((picture(name, (200, 200)), "image") for name in FORMATS),
    (wrapped(picture("PNG", (64, 64))), "image"),
    (picture("GIF", (1, 1)), "image"),
    ("data:audio/wav;base64,UklGRg==", "audio"),
    ("https://example.com/a.mp3?x=1", "audio"),
    ("", "text"),
    ("   \n\t", "text"),
    ("hello world", "text"),
    ("see https://example.com/cat.png for a cat", "text"),
    ("https://example.com/cat.png is a cat", "text"),
    ("https://example.com/cat.png\nhttps://example.com/dog.png", "text"),
    ("https://example.com/page", "text"),
    ("https://example.com/page?img=cat.png", "text"),
    ("https://example.com/page#cat.png", "text"),
    ("https://cat.png", "text"),
    ("https:///cat.png", "text"),
    ("http://[::1/cat.png", "text"),
    ("ftp://example.com/cat.png", "text"),
    ("https://example.com/" + "a" * 9_000 + ".png", "text"),
    ("data:text/plain;base64,aGVsbG8=", "text"),
    ("data:,hello", "text"),
    ("data:imagery is not an image", "text"),
    (base64.b64encode(b"The quick brown fox jumps over the lazy dog").decode(), "text"),
    ("iVBORw0KGgo", "text"),  # a signature alone is no picture
    ("iVBORw0KGgo is how every PNG begins in base64, did you know?", "text"),
    ("/9j/" + "x" * 20, "text"),
    ("Qk" + "A" * 60, "text"),  # "BM" and no header of a BMP
    (base64.b64encode(b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(40)).decode(), "text"),
    ("R0lGODlh" + "é" * 60, "text"),
]


@pytest.mark.parametrize(("item", "expected"), CASES)
def test_modality_of(item: str, expected: Modality) -> None:
    assert detect_modality(item) == expected


@given(st.text(alphabet=string.ascii_letters + string.digits + " .,!?'", max_size=200))
def test_plain_words_are_text(item: str) -> None:
    starts = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR", "Qk", "SUkq", "TU0A")
    assert item.startswith(starts) or detect_modality(item) == "text"


@given(st.text())
def test_anything_has_a_modality(item: str) -> None:
    assert detect_modality(item) in ("text", "image")


@pytest.mark.parametrize("start", ["", "https://example.com/", "/9j/", "iVBORw0KGgo", "data:"])
def test_a_hostile_string_is_looked_at_in_part_only(start: str) -> None:
    """Its cost must not grow with its length: no slice or copy of it is made beyond a kilobyte."""
    looked_at = _Watched(start + "A" * 10_000_000)
    detect_modality(looked_at)
    assert looked_at.longest_slice <= 1_024


class _Watched(str):  # noqa: SLOT000  # it keeps a note
    """A string that remembers how much of it was asked for, and refuses to be walked."""

    longest_slice = 0

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        part = super().__getitem__(key)
        self.longest_slice = max(self.longest_slice, len(part))
        return part

    def __iter__(self) -> NoReturn:
        raise AssertionError("the whole string is walked")
