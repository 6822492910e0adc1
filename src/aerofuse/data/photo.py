"""A photo: its image and labels, and how its file is read."""

from __future__ import annotations

import struct
import warnings
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

# A larger file may be a decompression bomb: a gigapixel needs 4 GB, whatever the size of the file.
MAX_PIXELS = 200_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit is below what telephones make
LARGE_PIXELS = 32_000_000  # 128 MB once decoded, twice that with transparency
JPEG_SIDES, REDUCED_SIDES = 2, 4  # what a JPEG that is decoded smaller, and a large photo, keep of the model's side
MIN_SIDE_PX = 16
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"))
PADDING_COLOUR = (124, 116, 104)  # ImageNet's mean, which is 0 once it is normalised
_ORIENTATION = 0x0112  # in EXIF data
_TIFF_BITS, _TIFF_PLANES = 258, 284


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


class UnreadablePhotoError(Exception):
    """Raised for a photo that cannot be used. The message is the reason, for a list with file names."""


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


def photos_below(folder: Path) -> list[Path]:
    """Return the files in and below a folder that are photos by their suffix, in no order."""
    return [path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]


def open_photo(
    path: Path, side_px: int, *, banner_px: int = 0, large_at_a_time: AbstractContextManager[object] | None = None
) -> OpenedPhoto:
    """Read a photo as RGB, turned as a viewer shows it.

    The short side has at least twice `side_px` where the file has that. The lowest `banner_px` rows are cut off.
    `large_at_a_time`, a lock that several processes share, is held while a photo with more than `LARGE_PIXELS` is
    decoded. Raises `UnreadablePhotoError` with the reason.
    """
    if not path.is_file():
        raise UnreadablePhotoError(_missing(path))
    if path.stat().st_size == 0:
        raise UnreadablePhotoError("the file is empty")
    try:
        # From a path, Pillow maps a simple file into memory, and then forgets to turn a TIFF.
        with warnings.catch_warnings(), path.open("rb") as stream, Image.open(stream) as file:
            warnings.simplefilter("ignore")  # of odd metadata, and of sizes, which are checked here
            return _read(file, side_px, banner_px, large_at_a_time or nullcontext())
    except UnidentifiedImageError:
        with path.open("rb") as stream:
            is_tiff = stream.read(4) in (b"II*\0", b"MM\0*")
        tiff = "a TIFF of a kind that cannot be read; save it with 8 or 16 bits a channel, without floats"
        raise UnreadablePhotoError(tiff if is_tiff else "not an image") from None
    except Image.DecompressionBombError:
        raise UnreadablePhotoError(f"more than {MAX_PIXELS:,} pixels: a decompression bomb?") from None
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, struct.error) as error:
        raise UnreadablePhotoError(f"damaged or truncated ({error})") from None


def fit_square(image: Image.Image, side_px: int) -> npt.NDArray[np.uint8]:
    """Fit the whole image into a square `[side_px, side_px, 3]`: its shape is kept, the rest has one colour."""
    fitted = ImageOps.pad(image, (side_px, side_px), Image.Resampling.BICUBIC, color=PADDING_COLOUR)
    return np.asarray(fitted, dtype=np.uint8)


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


def _missing(path: Path) -> str:
    if path.is_dir():
        return "a folder, and no photo"
    if path.parent.is_dir():
        near = [other.name for other in path.parent.iterdir() if other.name.casefold() == path.name.casefold()]
        if near:
            return f"no such file; there is {near[0]}"
    return "no such file"


def _read(
    file: Image.Image, side_px: int, banner_px: int, large_at_a_time: AbstractContextManager[object]
) -> OpenedPhoto:
    width, height = file.size
    if width * height > MAX_PIXELS:
        raise UnreadablePhotoError(f"{width} x {height} pixels: a decompression bomb?")
    if min(width, height - banner_px) < MIN_SIDE_PX:
        raise UnreadablePhotoError(f"{width} x {height} pixels: too small to show an aircraft")
    _refuse_deep_planes(file)
    remarks: list[str] = []
    if getattr(file, "n_frames", 1) > 1:
        file.seek(0)
        remarks.append("animated: the first frame is used")
    # A JPEG can be decoded at a half, a quarter or an eighth, which saves most of the time of a large one.
    file.draft("RGB", (JPEG_SIDES * side_px, JPEG_SIDES * side_px))
    # A progressive JPEG is held whole, however small it is decoded.
    is_large = (width * height if "progressive" in file.info else file.width * file.height) > LARGE_PIXELS
    with large_at_a_time if is_large else nullcontext():
        file.load()
        is_turned = file.getexif().get(_ORIENTATION, 1) != 1
        image = _reduced(file, side_px) if is_large else file
    scale = image.height / height
    if is_turned:
        remarks.append("turned as its EXIF data says")
        image.getexif()[_ORIENTATION] = file.getexif()[_ORIENTATION]
        image = ImageOps.exif_transpose(image)
    if (width > height) != (image.width > image.height) and width != height:
        width, height = height, width
    image = _as_rgb(image, remarks)
    if banner_px:
        image = image.crop((0, 0, image.width, image.height - round(scale * banner_px)))
        height -= banner_px
    return OpenedPhoto(image, (width, height), tuple(remarks))


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


def _as_rgb(image: Image.Image, remarks: list[str]) -> Image.Image:
    if image.mode in ("I;16", "I;16L", "I;16B", "I;16N", "I", "F"):
        remarks.append("more than 8 bits a channel")
        return Image.fromarray(_in_8_bits(np.asarray(image))).convert("RGB")
    if image.mode == "CMYK":
        remarks.append("CMYK")
    elif image.mode in ("L", "1"):
        remarks.append("grey")
    if image.has_transparency_data:
        remarks.append("transparent: put on white")
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _in_8_bits(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Grey values of any depth as 8 bits. Floats range from 0 to 1."""
    deep = values.astype(np.float64)
    if not np.isfinite(deep).all():
        raise UnreadablePhotoError("its values are no numbers")
    largest = 1.0 if np.issubdtype(values.dtype, np.floating) else 65535.0
    return np.round(np.clip(deep / largest, 0, 1) * 255).astype(np.uint8)
