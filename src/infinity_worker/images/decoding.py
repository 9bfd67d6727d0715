"""Pictures in any accepted format: what their header says, and their plain, verified form.

Everything here works on untrusted bytes and may take a while: it belongs in a thread.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import PIL.Image
from PIL import ImageOps

from infinity_worker.errors import InvalidRequest, RequestError, RequestTooLarge

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_ACCEPTED = "PNG, JPEG, WebP, GIF, BMP and TIFF are accepted"

# How files of each format begin.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"RIFF": "WEBP",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
# Infinity's own least.
_MIN_SIDE = 3
# Models scale the shorter side to theirs and keep the shape: a strip of 3 × 100,000 pixels would
# become one of 224 × 7,500,000, which no machine holds.
_MAX_ASPECT = 200
# A height of 3 looks like three channels to the models' processors (transformers 4.47,
# `infer_channel_dimension_format`), which then fail for the whole batch.
_CONFUSING_HEIGHT = 3
_ORIENTATION = 0x0112
_UPRIGHT = 1
# JPEG is decoded at an eighth of its size: every byte is read, for a fraction of time and memory.
_SCALE = 8
_PNG_BIT_DEPTH = 24
# The picture and its RGB form at first; then the file, its base64, and that in a request.
_BYTES_PER_PIXEL = 12
# The picture itself, its base64, and the request's body that carries it.
_COPIES = 5


@dataclass(frozen=True, slots=True)
class Header:
    """What is known of a picture before it is decoded.

    Attributes:
        format: one of `FORMATS`.
        width: in pixels.
        height: in pixels.
        is_plain: whether it can go to the engine as it is: RGB of 8 bits, upright, one frame.
        size: its bytes.
    """

    format: str
    width: int
    height: int
    is_plain: bool
    size: int

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def memory(self) -> int:
        """The bytes that it takes from being decoded to being answered, estimated from above."""
        decoding = 0 if self.is_plain and self.format == "JPEG" else 4 * self.pixels
        rewriting = 0 if self.is_plain else _BYTES_PER_PIXEL * self.pixels
        return _COPIES * self.size + max(decoding, rewriting)


def read_header(raw: bytes, max_pixels: int) -> Header:
    """Find out what a picture is, without decoding it.

    Raises:
        InvalidRequest: it is none, or none that is accepted.
        RequestTooLarge: it has more than `max_pixels` pixels.
    """
    with _opened(raw) as picture:
        width, height = picture.size
        name = "JPEG" if picture.format == "MPO" else str(picture.format)
        _check_shape(width, height, max_pixels)
        return Header(name, width, height, _is_plain(picture, raw), len(raw))


def verified(raw: bytes, header: Header) -> tuple[bytes, str]:
    """Decode a picture to its end.

    A plain one is returned byte for byte. Any other is written anew without loss: upright, its
    first frame, 8 bits of RGB, transparent parts over white.

    Returns:
        The bytes, and their media type.

    Raises:
        InvalidRequest: it is damaged, or its colours cannot be told.
    """
    with _opened(raw) as picture:
        if header.is_plain:
            if header.format == "JPEG":
                picture.draft("RGB", (header.width // _SCALE, header.height // _SCALE))
            picture.load()
            return raw, f"image/{header.format.lower()}"
        plain = _plain_rgb(picture)
    written = io.BytesIO()
    # Compressing it for a reader on the same machine does not pay. 12 megapixels on 2 cores,
    # seconds to write and to read: PNG 1.10 and 0.37, lossless WebP 0.71 and 0.57, BMP 0.04 and
    # 0.02; by way of the engine's API 0.57 s a picture instead of 1.67.
    plain.save(written, "BMP")
    return written.getvalue(), "image/bmp"


@contextmanager
def _opened(raw: bytes) -> Iterator[PIL.Image.Image]:
    """The picture, opened and not decoded; whatever a decoder does to it becomes a clear error."""
    try:
        # The pixel limit is checked here, before anything is decoded, not by Pillow's own.
        PIL.Image.MAX_IMAGE_PIXELS = None
        with PIL.Image.open(io.BytesIO(raw), formats=FORMATS) as picture:
            yield picture
    except RequestError:
        raise
    except MemoryError:
        raise RequestTooLarge("the image needs more memory than there is: send a smaller") from None
    except Exception as error:  # noqa: BLE001  # decoders raise anything at all on hostile bytes
        raise InvalidRequest(_what_is_wrong(raw, error)) from None


def _check_shape(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RequestTooLarge(
            f"the image has {width:,} × {height:,} pixels, at most {max_pixels:,} in all are "
            "accepted: scale it down (models see a few hundred pixels a side)"
        )
    if min(width, height) < _MIN_SIDE:
        raise InvalidRequest(
            f"the image has {width} × {height} pixels, at least {_MIN_SIDE} × {_MIN_SIDE} are "
            "needed"
        )
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise InvalidRequest(
            f"the image is too long and narrow ({width:,} × {height:,} pixels): one side may be "
            f"at most {_MAX_ASPECT} times the other"
        )


def _is_plain(picture: PIL.Image.Image, raw: bytes) -> bool:
    return (
        picture.mode == "RGB"
        and picture.height != _CONFUSING_HEIGHT
        and "transparency" not in picture.info
        and (picture.format == "MPO" or not _is_animated(picture))
        and not (picture.format == "PNG" and raw[_PNG_BIT_DEPTH] != 8)  # noqa: PLR2004  # bits
        and _orientation(picture) == _UPRIGHT
    )


def _is_animated(picture: PIL.Image.Image) -> bool:
    if picture.format != "TIFF":
        return getattr(picture, "n_frames", 1) > 1
    try:
        # Counting a TIFF's frames would walk through all of them.
        picture.seek(1)
    except EOFError:
        return False
    picture.seek(0)
    return True


def _orientation(picture: PIL.Image.Image) -> int:
    """The EXIF orientation; damaged EXIF data has none."""
    try:
        value = picture.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # noqa: BLE001  # its parser raises anything at all on hostile bytes
        return _UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else _UPRIGHT  # noqa: PLR2004  # EXIF


def _plain_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """The first frame as a model's processor expects it."""
    picture.load()
    if _orientation(picture) != _UPRIGHT:
        picture = ImageOps.exif_transpose(picture)
    picture = _rgb(picture)
    if picture.height == _CONFUSING_HEIGHT:
        # Twice the size shows the same.
        picture = picture.resize((2 * picture.width, 2 * picture.height), PIL.Image.Resampling.BOX)
    picture.info.clear()
    return picture


def _rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    if picture.mode.startswith("I;16"):
        upper = (np.asarray(picture) >> 8).astype(np.uint8)
        return PIL.Image.fromarray(upper).convert("RGB")
    if picture.mode in ("I", "F"):
        raise InvalidRequest(
            "the image has numbers of 32 bits, whose range cannot be told: save it with 8 or 16"
        )
    if picture.has_transparency_data:
        colours = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", colours.size, "white")
        white.alpha_composite(colours)
        return white.convert("RGB")
    return picture.convert("RGB")


def _what_is_wrong(raw: bytes, error: Exception) -> str:
    name = next((name for start, name in _SIGNATURES.items() if raw.startswith(start)), None)
    if name is None or (name == "WEBP" and raw[8:12] != b"WEBP"):
        return _not_an_image(raw)
    text = str(error).lower()
    is_short = any(word in text for word in ("truncated", "unexpected end", "not enough"))
    if name == "WEBP":
        # Its decoder says nothing; the container does (RFC 9649): 8 bytes and so many.
        is_short = len(raw) < 8 + int.from_bytes(raw[4:8], "little")
    return f"the image is {'truncated' if is_short else 'damaged'} ({name}, {len(raw):,} bytes)"


def _not_an_image(raw: bytes) -> str:
    """Say what the bytes are instead, where that is easy to see."""
    start = raw[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if b"<svg" in start:
        return f"SVG is not accepted: draw it first ({_ACCEPTED})"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return f"this is a web page, not an image ({len(raw):,} bytes)"
    if start[4:12] in (b"ftypavif", b"ftypheic", b"ftypheix", b"ftypmif1"):
        return f"AVIF and HEIC are not accepted: convert it ({_ACCEPTED})"
    return f"this is not an image ({len(raw):,} bytes; {_ACCEPTED})"
