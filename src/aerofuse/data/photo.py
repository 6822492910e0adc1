"""A photo: its image and labels, and how its file is read."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, ImageOps

from aerofuse.data.colours import as_8_bits, as_rgb
from aerofuse.data.image_file import DAMAGED_METADATA, read_image, read_image_file
from aerofuse.data.image_file import MAX_PIXELS as MAX_PIXELS
from aerofuse.data.image_file import UnreadablePhotoError as UnreadablePhotoError

LARGE_PIXELS = 32_000_000  # 128 MB once decoded, twice that with transparency
JPEG_SIDES, REDUCED_SIDES = 2, 4  # what a JPEG that is decoded smaller, and a large photo, keep of the model's side
MIN_SIDE_PX = 16
Fit = Literal["letterbox", "crop", "stretch"]  # how a photo becomes a square: see `fit_square`
PADDING_COLOUR = (124, 116, 104)  # ImageNet's mean, which is 0 once it is normalised
_ORIENTATION = 0x0112  # in EXIF data
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PLANES = 258, 284
_ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF")  # other files have pages, or what a camera made besides the photo


@dataclass(frozen=True, eq=False)
class Photo:
    """An RGB image `[H, W, 3]` and its labels. A label that is not known is `None`, never a guess."""

    image: npt.NDArray[np.uint8]
    filename: str
    typename: str | None
    airlinename: str | None
    clarity: float | None
    block: float | None
    registration: str | None


@dataclass(frozen=True)
class Box:
    """A box in pixels from the photo's upper left corner; the right and bottom edges lie outside of it."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True, eq=False)
class OpenedPhoto:
    """An RGB image, which may be smaller than the file's; `size` is the file's width and height as a viewer shows it.

    `remarks` say what was done to the image.
    """

    image: Image.Image
    size: tuple[int, int]
    remarks: tuple[str, ...]


def open_photo(
    file: Path | IO[bytes],
    side_px: int,
    *,
    banner_px: int = 0,
    large_at_a_time: AbstractContextManager[object] | None = None,
) -> OpenedPhoto:
    """Read a photo as RGB, turned as a viewer shows it.

    The short side has at least twice `side_px` where the file has that. The lowest `banner_px` rows are cut off.
    `large_at_a_time`, a lock that several processes share, is held while a photo with more than `LARGE_PIXELS` is
    decoded. Raises `UnreadablePhotoError` with the reason.
    """
    read = partial(_read, side_px=side_px, banner_px=banner_px, large_at_a_time=large_at_a_time or nullcontext())
    return read_image_file(file, read) if isinstance(file, Path) else read_image(file, read)


def fit_square(image: Image.Image, side_px: int, fit: Fit) -> npt.NDArray[np.uint8]:
    """Make an image a square `[side_px, side_px, 3]`.

    `letterbox` keeps all of it and its shape; the rest of the square has one colour. `crop` keeps the shape, and of the
    image only the square in the middle. `stretch` keeps all of the image, but not its shape.
    """
    if fit != "letterbox":
        square = _central_square(image) if fit == "crop" else image
        return np.asarray(square.resize((side_px, side_px), Image.Resampling.BICUBIC), dtype=np.uint8)
    if min(image.size) * 2 * side_px <= max(image.size):  # too narrow to be one pixel wide
        image = image.resize([max(length, max(image.size) // side_px) for length in image.size])
    fitted = ImageOps.pad(image, (side_px, side_px), Image.Resampling.BICUBIC, color=PADDING_COLOUR)
    return np.asarray(fitted, dtype=np.uint8)


def _central_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = ((edge - side) // 2 for edge in image.size)
    return image.crop((left, top, left + side, top + side))


def crop_to_box(photo: OpenedPhoto, box: Box, padding: float) -> Image.Image:
    """Return the part inside of a box, which is in pixels of the file, with `padding` times its sides around it.

    Raises `UnreadablePhotoError` for a box outside of the photo.
    """
    width, height = photo.size
    if box.left >= width or box.top >= height:
        raise UnreadablePhotoError(f"its box begins at {box.left:g}, {box.top:g}, outside of {width} x {height} pixels")
    margin_x, margin_y = padding * (box.right - box.left), padding * (box.bottom - box.top)
    scale_x, scale_y = photo.image.width / width, photo.image.height / height
    left, top = max(box.left - margin_x, 0) * scale_x, max(box.top - margin_y, 0) * scale_y
    right, bottom = min(box.right + margin_x, width) * scale_x, min(box.bottom + margin_y, height) * scale_y
    return photo.image.crop((int(left), int(top), max(round(right), int(left) + 1), max(round(bottom), int(top) + 1)))


def _read(
    file: ImageFile.ImageFile,
    remarks: list[str],
    *,
    side_px: int,
    banner_px: int,
    large_at_a_time: AbstractContextManager[object],
) -> OpenedPhoto:
    width, height = file.size
    if min(width, height - banner_px) < MIN_SIDE_PX:
        raise UnreadablePhotoError(f"{width} x {height} pixels: too small to show an aircraft")
    _refuse_deep_planes(file)
    if getattr(file, "n_frames", 1) > 1:
        if file.format in _ANIMATIONS:
            remarks.append("animated: the first frame is used")
        elif file.format == "TIFF":
            remarks.append("several pages: the first is used")
    # A JPEG can be decoded at a half, a quarter or an eighth, which saves most of the time of a large one.
    file.draft("RGB", (JPEG_SIDES * side_px, JPEG_SIDES * side_px))
    # A progressive JPEG is held whole, however small it is decoded.
    is_large = (width * height if "progressive" in file.info else file.width * file.height) > LARGE_PIXELS
    stream, profile = file.fp, file.info.get("icc_profile")
    with large_at_a_time if is_large else nullcontext():
        file.load()
        turn = _turn(file, remarks)
        image = as_8_bits(file, stream, remarks)
        image = _reduced(image, side_px) if is_large else image
    if turn is not None:
        remarks.append("turned as its EXIF data says")
        image = image.transpose(turn)
    if (width > height) != (image.width > image.height) and width != height:
        width, height = height, width
    scale = image.height / height
    image = as_rgb(image, profile, remarks)
    if banner_px:
        image = image.crop((0, 0, image.width, image.height - round(scale * banner_px)))
        height -= banner_px
    return OpenedPhoto(image, (width, height), tuple(remarks))


def _turn(file: Image.Image, remarks: list[str]) -> Image.Transpose | None:
    """How a viewer turns a photo; `None` where it leaves it, as for a value that EXIF does not have."""
    try:
        return _TURNS.get(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # Pillow raises many for damaged EXIF data
        if DAMAGED_METADATA not in remarks:
            remarks.append(DAMAGED_METADATA)
        return None


def _refuse_deep_planes(file: Image.Image) -> None:
    """Refuse a kind of TIFF that Pillow and OpenCV read wrongly: 16 bits with separate colour planes."""
    tags = getattr(file, "tag_v2", {})
    if tags.get(_TIFF_PLANES, 1) == 2 and max(tags.get(_TIFF_BITS, (1,))) > 8:
        raise UnreadablePhotoError(
            "a TIFF of more than 8 bits with its colours one after the other; save it interleaved"
        )


def _reduced(file: Image.Image, side_px: int) -> Image.Image:
    """A large image, as a mean over squares of pixels, with at least four times `side_px` on its short side."""
    factor = min(file.size) // (REDUCED_SIDES * side_px)
    return file.reduce(factor) if factor > 1 and file.mode in ("L", "RGB", "RGBA", "CMYK") else file
