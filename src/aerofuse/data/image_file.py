"""Image files: which formats are read, which files below a folder are photos, and one guarded place to open them.

Decoders raise errors of any type for a damaged file. Here all of them become `UnreadablePhotoError` with a reason.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TypeVar

from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

try:
    import pillow_heif
except ImportError:
    _READS_HEIC = False
else:
    pillow_heif.register_heif_opener()
    _READS_HEIC = True

# A larger file may be a decompression bomb: a gigapixel needs 4 GB, whatever the size of the file.
MAX_PIXELS = 200_000_000
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit is below what telephones make
DAMAGED_METADATA = "its metadata is damaged: left out"
# Pillow decodes EPS and WMF with other programs, only recognises the next four, and the last is a thumbnail.
_NOT_READ = frozenset(("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "XVTHUMB"))
_HEIC_SUFFIXES = frozenset((".heic", ".heif", ".hif"))  # without pillow-heif, the reason says how to read them
_HEIC_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
# Olympus, Panasonic and Fujifilm; Canon's CR2 and CR3 have theirs at another place.
_RAW_SIGNATURES = (b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW")
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # with addresses of 32 and of 64 bits
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_RAW_PHOTOMETRIC = (32803, 34892)  # a colour filter array, and linear raw values
_SUBFILE_TYPE, _PHOTOMETRIC, _DNG_VERSION = 254, 262, 50706
_SHOWN_CHARACTERS = 200

Result = TypeVar("Result")
_Read = Callable[[ImageFile.ImageFile, list[str]], Result]


class UnreadablePhotoError(Exception):
    """Raised for a photo that cannot be used. The message is the reason, for a list with file names."""


@dataclass(frozen=True)
class FoundPhotos:
    """Photo files in and below a folder, sorted.

    `passed_over` are other files, and links to folders that are listed under another name. `problems` are folders that
    cannot be read, with the reason.
    """

    photos: tuple[Path, ...]
    passed_over: tuple[Path, ...]
    problems: tuple[tuple[Path, str], ...]


@cache
def readable_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read."""
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_READ)


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of files in these formats, in lower case, with the dot."""
    readable = {*readable_formats(), "MPO"}  # which Pillow opens as a JPEG
    return _HEIC_SUFFIXES | {suffix for suffix, name in Image.registered_extensions().items() if name in readable}


def find_photos(folder: Path) -> FoundPhotos:
    """Find the files in and below a folder that are photos by their suffix. Linked folders are followed once."""
    files: list[Path] = []
    repeated: list[Path] = []
    problems: list[tuple[Path, str]] = []
    seen: set[Path] = set()
    # Links come last, so that a photo has its own name where it has one.
    waiting = [folder]
    for start in waiting:
        if start.resolve() in seen:
            repeated.append(start)
            continue
        for place, folders, names in os.walk(
            start, onerror=lambda error: problems.append((Path(error.filename), _file_problem(error)))
        ):
            here = Path(place)
            seen.add(here.resolve())
            # Unlike Path's method, this one takes no exception at a folder that may be read and not entered.
            waiting += [here / name for name in folders if os.path.islink(here / name)]  # noqa: PTH114
            folders[:] = [name for name in folders if (here / name).resolve() not in seen]
            files += [here / name for name in names]
    photos = [path for path in files if path.suffix.lower() in suffixes()]
    others = [path for path in files if path.suffix.lower() not in suffixes()]
    return FoundPhotos(tuple(sorted(photos)), tuple(sorted(others + repeated)), tuple(problems))


def read_image_file(path: Path, read: _Read[Result]) -> Result:
    """Read a file as `read_image` does. Raises `UnreadablePhotoError`, also where it is missing or not allowed."""
    with _reasons():
        if not path.is_file():
            raise UnreadablePhotoError(_missing(path))
        if path.stat().st_size == 0:
            raise UnreadablePhotoError("the file is empty")
        # From a path, Pillow maps a simple file into memory, and then forgets to turn a TIFF.
        with path.open("rb") as stream:
            return read_image(stream, read)


def read_image(
    stream: IO[bytes], read: _Read[Result], formats: Sequence[str] | None = None, max_pixels: int = MAX_PIXELS
) -> Result:
    """Return what `read` makes of the opened image, and of a list to which it adds its remarks.

    `formats` are those that are taken, by default all that are read. Where metadata keeps a sound picture from being
    opened, `read` is called once more without it. Raises `UnreadablePhotoError` with the reason, whatever the decoder
    raises.
    """
    taken = [name for name in formats or readable_formats() if name in readable_formats()]

    def opened(stream: IO[bytes], remarks: list[str]) -> Result:
        if _is_raw(stream):
            raise UnreadablePhotoError("a raw file; export a JPEG")
        stream.seek(0)
        with Image.open(stream, formats=taken) as file:
            if file.width * file.height > max_pixels:
                raise UnreadablePhotoError(f"{file.width} x {file.height}, {_bomb(max_pixels)}")
            return read(file, remarks)

    with _reasons(max_pixels), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, and of sizes, which are checked here
        try:
            return opened(stream, [])
        except (UnreadablePhotoError, Image.DecompressionBombError, MemoryError):
            raise
        except Exception as error:
            for without in _without_metadata(stream):
                try:
                    return opened(without, [DAMAGED_METADATA])
                except UnreadablePhotoError:
                    raise
                except Exception:  # the picture itself is damaged
                    continue
            if isinstance(error, UnidentifiedImageError):
                here = f" that is taken here: {', '.join(taken)}" if formats else ""
                raise UnreadablePhotoError(_unidentified(_start(stream)) or f"not an image{here}") from None
            raise


@contextmanager
def _reasons(max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Turn whatever is raised into `UnreadablePhotoError` with its reason."""
    try:
        yield
    except UnreadablePhotoError:
        raise
    except Image.DecompressionBombError:
        raise UnreadablePhotoError(_bomb(max_pixels)) from None
    except MemoryError:
        raise UnreadablePhotoError("too large for the memory of this machine") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise UnreadablePhotoError(_file_problem(error)) from None
        shown = " ".join(str(error).split())[:_SHOWN_CHARACTERS] or type(error).__name__
        raise UnreadablePhotoError(f"damaged or truncated ({shown})") from None


def _bomb(max_pixels: int) -> str:
    return f"more than {max_pixels} pixels: a decompression bomb?"


def _file_problem(error: OSError) -> str:
    return f"cannot be read ({error.strerror})"


def _missing(path: Path) -> str:
    if path.is_dir():
        return "a folder, and no photo"
    if path.exists():
        return "a device or a pipe, and no file"
    if path.is_symlink():
        return f"a link to a file that is missing ({path.readlink()})"
    if path.parent.is_dir():
        near = [other.name for other in path.parent.iterdir() if other.name.casefold() == path.name.casefold()]
        if near:
            return f"no such file; there is {near[0]}"
    return "no such file"


def _start(stream: IO[bytes]) -> bytes:
    """The first 16 bytes, by which files of many formats are recognised."""
    stream.seek(0)
    return stream.read(16)


def _unidentified(start: bytes) -> str | None:
    """What a file is that no decoder takes, if it is known."""
    if start[4:8] == b"ftyp" and start[8:12] in _HEIC_BRANDS:
        if _READS_HEIC:
            return "damaged or truncated (a HEIC photo)"
        return "a HEIC photo; pip install 'aerofuse[heif]' reads it, or export a JPEG"
    if start[:4] in _TIFF_SIGNATURES:
        return "a TIFF of a kind that cannot be read; save it with 8 or 16 bits a channel, without floats"
    return None


def _is_raw(stream: IO[bytes]) -> bool:
    """Whether a file has raw sensor values, of which Pillow at best reads a thumbnail, its first picture."""
    start = _start(stream)
    is_tiff = start[:4] in _TIFF_SIGNATURES
    if start.startswith(_RAW_SIGNATURES) or start[4:12] == b"ftypcrx " or (is_tiff and start[8:10] == b"CR"):
        return True
    if is_tiff:
        with suppress(Exception):  # opening the picture says what is wrong with its tags
            tags = TiffImagePlugin.ImageFileDirectory_v2(start if b"+" in start[:4] else start[:8])
            stream.seek(tags.next)
            tags.load(stream)
            is_reduced = bool(tags.get(_SUBFILE_TYPE, 0) & 1)
            return is_reduced or _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in _RAW_PHOTOMETRIC
    return False


def _without_metadata(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    """Yield a PNG or a JPEG without its damaged metadata: with as much of the rest as possible first."""
    start = _start(stream)
    is_png = start.startswith(_PNG_SIGNATURE)
    if not is_png and not start.startswith(b"\xff\xd8"):
        return
    content = start + stream.read()
    tried = [content]
    # In a JPEG, 0xE1 has EXIF data, 0xE2 the colour profile and the place of a second picture.
    for png, jpeg in (((b"eXIf", b"iCCP"), (0xE1, 0xE2)), ((b"eXIf",), (0xE1,)), ((), ())):
        without = b"".join(_png_chunks(content, png) if is_png else _jpeg_segments(content, jpeg))
        if without not in tried:
            tried.append(without)
            yield io.BytesIO(without)


def _png_chunks(content: bytes, optional: Collection[bytes]) -> Iterator[bytes]:
    """Yield the chunks that make up the picture, and those of the optional kinds whose checksum is right."""
    yield _PNG_SIGNATURE
    place = len(_PNG_SIGNATURE)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + length]
        is_right = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])
        if kind[:1].isupper() or kind == b"tRNS" or (kind in optional and is_right):
            yield chunk
        place += len(chunk)


def _jpeg_segments(content: bytes, kept: Collection[int]) -> Iterator[bytes]:
    """Yield the segments before the pixels that do not hold metadata, or are among those kept, and then the rest."""
    yield content[:2]
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] not in (0xDA, 0xFF):
        kind, length = content[place + 1], int.from_bytes(content[place + 2 : place + 4])
        # 0xEE says how the colours are coded.
        if kind in kept or kind == 0xEE or not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            yield content[place : place + 2 + length]
        place += 2 + length
    yield content[place:]
