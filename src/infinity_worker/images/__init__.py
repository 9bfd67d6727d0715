"""Images that cannot hurt: fetched, fully decoded and made plain before the engine sees them.

One damaged picture makes Infinity hang for every later request (infinity#609), so no byte reaches
it that has not been decoded here. `reader.ImageReader` is what the rest of the worker uses.
"""

from infinity_worker.images.reader import Image, ImageReader

__all__ = ["Image", "ImageReader"]
