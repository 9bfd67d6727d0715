"""Images, good and hostile, made by a script: what each is, and what must become of it."""

import base64
import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from infinity_worker.demo.shapes import Scene, render

SIZE = 48


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        name: what it is.
        raw: its bytes.
        code: 200 for an embedding, else the code of the error; 0 where either is right, as long
            as it is an embedding or a named refusal.
        words: what the error says.
    """

    name: str
    raw: bytes
    code: int = 200
    words: str = ""


def picture(size: int = SIZE) -> Image.Image:
    """A red circle, RGB."""
    return render(Scene("red", "circle"), np.random.default_rng(1), size=size)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as a file."""
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def data_uri(raw: bytes, media_type: str = "image/png") -> str:
    """A file as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(raw).decode()}"


def modes() -> Iterator[tuple[str, Image.Image]]:
    """The same picture in each colour mode."""
    rgb = picture()
    rgba = rgb.convert("RGBA")
    rgba.putalpha(rgb.convert("L"))
    yield "RGB", rgb
    yield "RGBA", rgba
    yield "L", rgb.convert("L")
    yield "LA", rgba.convert("LA")
    yield "1", rgb.convert("1")
    yield "P", rgb.quantize(16)
    yield "PA", rgba.quantize(16)
    yield "CMYK", rgb.convert("CMYK")
    yield "YCbCr", rgb.convert("YCbCr")
    yield "I;16", Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)


def good() -> Iterator[Case]:
    """Each accepted format in each colour mode that it has, and what clients make of files."""
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        for mode, image in modes():
            try:
                yield Case(f"{kind} {mode}", encoded(image, kind))
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode
    rgb = picture()
    frames = [rgb, rgb.rotate(90), rgb.rotate(180)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        raw = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        yield Case(f"{kind} animated", raw)
    exif = Image.Exif()
    for orientation in range(1, 10):
        exif[0x0112] = orientation
        yield Case(f"JPEG EXIF orientation {orientation}", encoded(rgb, "JPEG", exif=exif))
    yield Case("JPEG progressive", encoded(rgb, "JPEG", progressive=True))
    damaged = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"
    yield Case("JPEG with damaged EXIF", encoded(rgb, "JPEG", exif=damaged))
    yield Case("PNG transparent colour", encoded(rgb, "PNG", transparency=(255, 0, 0)))
    yield Case("PNG 16 bits RGB", png(SIZE, SIZE, 16, 2, bytes((1 + SIZE * 6) * SIZE)))
    yield Case("TIFF LZW", encoded(rgb, "TIFF", compression="tiff_lzw"))
    yield Case("3 × 3", encoded(rgb.resize((3, 3)), "PNG"))
    yield Case("3 pixels high", encoded(rgb.resize((40, 3)), "PNG"))
    yield Case("3 pixels high, JPEG", encoded(rgb.resize((40, 3)), "JPEG"))
    yield Case("3 pixels wide", encoded(rgb.resize((3, 40)), "PNG"))
    yield Case("with bytes after its end", encoded(rgb, "PNG") + b"\0" * 1000)


def bad() -> Iterator[Case]:
    """What must be refused by name, and never reach the engine."""
    rgb = picture()
    png_raw = encoded(rgb, "PNG")
    yield Case("no bytes", b"", 400, "empty")
    yield Case("one byte", b"\x89", 400, "not an image")
    yield Case("1 × 1", encoded(rgb.resize((1, 1)), "PNG"), 400, "at least 3 × 3")
    yield Case("2 × 40", encoded(rgb.resize((2, 40)), "JPEG"), 400, "at least 3 × 3")
    yield Case("a strip", encoded(rgb.resize((10_000, 3)), "PNG"), 400, "long and narrow")
    yield Case("a web page", b"\n<!DOCTYPE html><html><p>404</p></html>", 400, "web page")
    yield Case("an SVG", b'<?xml version="1.0"?>\n<svg xmlns="x"/>', 400, "SVG")
    yield Case("a PDF", b"%PDF-1.7\n" + bytes(100), 400, "not an image")
    yield Case("an ICO", encoded(rgb, "ICO"), 400, "not an image")
    yield Case("numbers of 32 bits", encoded(rgb.convert("F"), "TIFF"), 400, "32 bits")
    yield Case("200 megapixels, no data", png(20_000, 10_000, 8, 2, None), 413, "200,000,000|×")
    yield Case("a bomb", png(30_000, 30_000, 1, 0, bytes(3_751 * 30_000)), 413, "×")
    yield Case(
        "a damaged checksum", png_raw[:40] + b"\0\0\0\0" + png_raw[44:], 400, "damaged|trunc"
    )
    yield Case("a header and zeros", png_raw[:33] + bytes(5_000), 400, "damaged|trunc")
    yield Case("too many bytes", encoded(rgb, "PNG") + bytes(20_000_001), 413, "20,000,000")
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        raw = encoded(rgb, kind)
        for tenth in range(1, 10):
            # What is cut may still be whole: some formats end in what nobody needs.
            yield Case(f"{kind} cut at {tenth}/10", raw[: len(raw) * tenth // 10], 0)


def png(width: int, height: int, depth: int, colours: int, pixels: bytes | None) -> bytes:
    """A PNG written by hand (RFC 2083), so that its header may say anything.

    Args:
        width: in pixels.
        height: in pixels.
        depth: bits of each number.
        colours: 0 is grey, 2 is RGB.
        pixels: each line with a filter byte before it; None for no data at all.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    data = b"" if pixels is None else _chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + data + _chunk(b"IEND", b"")


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
