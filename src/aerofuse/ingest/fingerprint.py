"""Perceptual hashes: copies of an image differ in a few bits of 256, other photos in about half.

The bits are the signs of the low frequencies of a small grey version of the image (a discrete cosine transform, as in
ImageHash's `phash`).
"""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image, ImageOps

_SIDE = 16
NUM_BITS = _SIDE * _SIDE


def fingerprint(image: Image.Image) -> bytes:
    """Return the 256 bits of an image, packed, followed by those of its mirror image."""
    small = image.convert("L").resize((8 * _SIDE, 8 * _SIDE), Image.Resampling.BOX)
    both = (imagehash.phash(view, hash_size=_SIDE).hash for view in (small, ImageOps.mirror(small)))
    return b"".join(np.packbits(bits).tobytes() for bits in both)
