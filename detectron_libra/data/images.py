# SPDX-License-Identifier: Apache-2.0
"""Image file -> uint8 tensor: decoded by content, always RGB, upright where the annotations are."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from detectron_libra.data import jpeg
from detectron_libra.errors import InputError

#: Decoders that may run; Pillow has many more, some rarely looked after. A phone's MPO opens as JPEG.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
#: Pixels an image may have: where Pillow itself refuses (twice its warning limit).
MAX_PIXELS = 178_956_970
#: What decoders raise on damaged data.
DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    struct.error,
    zlib.error,
    OverflowError,
)

#: First and last bytes of formats that have an end of their own, and most bytes that are looked at.
_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND\xaeB`\x82", b"GIF8": b"\x00;"}
_START, _END = 8, 8

_ABSENT = "no such image file; check IM_DIR and the file_name entries"
_EXIF_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)

# An image over half of MAX_PIXELS is large, not wrong, and a damaged tag block leaves the picture whole.
warnings.simplefilter("ignore", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", "Corrupt EXIF data|Metadata Warning")


def read_image(
    file: str,
    *,
    draft_size: tuple[int, int] | None = None,
    size: tuple[int, int] | None = None,
    reader: str = jpeg.PILLOW,
    checked: bool = False,
) -> Tensor:
    """Decode an image file.

    Args:
        file: path.
        draft_size: (height, width) in pixels that the caller will resize to. A JPEG at least twice as large
            is decoded at 1/2, 1/4 or 1/8 (never below this size), which is faster and antialiased.
        size: (height, width) that the annotations state. Decides whether the EXIF orientation is applied:
            it is where the turned picture has this size, it is not where the stored one has. None applies it.
        reader: what decodes a JPEG, see jpeg.py; Pillow reads the header and every other format.
        checked: the whole file was decoded before and is known to be good.

    Returns:
        (3, H, W) uint8 RGB, a channels-last view.

    Raises:
        InputError: unreadable, damaged, too many pixels, or of another size than stated.
    """
    image = _open(file)
    with image:
        turn = _turn(image, file, size)
        wanted = draft_size if draft_size is None or turn in _SIDEWAYS else (draft_size[1], draft_size[0])
        try:
            array = _decode(image, file, wanted, reader, checked)
        except DAMAGED as e:
            raise InputError(
                f"{file}: the image is damaged ({_reason(e)}); replace it or remove its entry"
            ) from e
    if turn in _TURNS:
        array = np.array(Image.fromarray(array).transpose(_TURNS[turn]))
    return torch.from_numpy(array).permute(2, 0, 1)


def read_size(file: str) -> tuple[int, int]:
    """(height, width) in pixels as displayed, from the header alone.

    Raises:
        InputError: the header cannot be read.
    """
    check_plain(file)
    with _open(file) as image:
        return _sizes(image)[1]


def check_size(file: str, size: tuple[int, int]) -> None:
    """Read the header and compare it with the (height, width) that the annotations state.

    Raises:
        InputError: the header cannot be read, or neither the stored nor the displayed size is ``size``.
    """
    with _open(file) as image:
        _turn(image, file, size)


def check_plain(file: str) -> None:
    """Refuse a pipe or a device, from which a reader would wait for ever.

    Raises:
        InputError: the file is none that is plain, or is not there.
    """
    try:
        mode = os.stat(file).st_mode
    except FileNotFoundError as e:
        raise InputError(f"{file}: {_ABSENT}") from e
    except (OSError, ValueError) as e:
        raise InputError(f"{file}: cannot be opened ({_reason(e)})") from e
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise InputError(f"{file}: {kind}, not an image; remove its entry")


def check_end(file: str) -> None:
    """Look at the last bytes of a file; decode it where they are not the end of a whole image.

    A file that was cut short keeps its header, and a decoder tells only once it has come to the cut.

    Raises:
        InputError: the image is damaged.
    """
    try:
        with open(file, "rb") as stream:
            start = stream.read(_START)
            length = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, length - _END))
            end = stream.read()
    except OSError as e:
        raise InputError(f"{file}: cannot be opened ({_reason(e)})") from e
    if not _is_whole(start, end, length):
        read_image(file)


def _is_whole(start: bytes, end: bytes, length: int) -> bool:
    """Whether first and last bytes and the length in bytes are those of a whole file."""
    if start.startswith(b"RIFF"):
        return length == int.from_bytes(start[4:8], "little") + 8
    if start.startswith(b"BM"):
        return length == int.from_bytes(start[2:6], "little")
    return any(start.startswith(first) and end.endswith(last) for first, last in _ENDS.items())


def _open(file: str) -> Image.Image:
    try:
        image = Image.open(file, formats=FORMATS)
    except FileNotFoundError as e:
        raise InputError(f"{file}: {_ABSENT}") from e
    except Image.DecompressionBombError as e:
        raise InputError(f"{file}: over the limit of {MAX_PIXELS} pixels; make it smaller") from e
    except Image.UnidentifiedImageError as e:
        what = "the file is empty (0 bytes)" if os.path.getsize(file) == 0 else "not an image"
        raise InputError(f"{file}: {what}; known formats: {', '.join(FORMATS)}") from e
    except DAMAGED as e:
        raise InputError(f"{file}: cannot be opened ({_reason(e)})") from e
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise InputError(
            f"{file}: {image.width} x {image.height} pixels, over the limit of {MAX_PIXELS}; make it smaller"
        )
    return image


def _turn(image: Image.Image, file: str, size: tuple[int, int] | None) -> int:
    """The EXIF orientation to apply, 1 for none; checks the size."""
    stored, displayed = _sizes(image)
    if size is None or tuple(size) == displayed:
        return _orientation(image)
    if tuple(size) == stored:
        return 1
    turned = "" if stored == displayed else f" ({displayed[1]} x {displayed[0]} when turned by its EXIF tag)"
    raise InputError(
        f"{file}: the file is {stored[1]} x {stored[0]} pixels{turned}, annotated is {size[1]} x {size[0]} "
        "(width x height); correct the entry"
    )


def _sizes(image: Image.Image) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) as stored, and as displayed."""
    stored = (image.height, image.width)
    return stored, (stored[::-1] if _orientation(image) in _SIDEWAYS else stored)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; 1 for what is absent or nonsense. Pillow turns TIFF itself."""
    if image.format == "TIFF" or (image.format == "PNG" and "exif" not in image.info):
        return (
            1  # for a PNG without the tag in front, Pillow would decode everything to look for it at the end
        )
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # the tag block is damaged in many ways, the picture is not
        return 1
    return value if value in _TURNS else 1


def _decode(
    image: Image.Image, file: str, wanted: tuple[int, int] | None, reader: str, checked: bool
) -> np.ndarray:
    """(H, W, 3) uint8 as stored; ``wanted`` is (width, height)."""
    if reader != jpeg.PILLOW:
        array = jpeg.decode(image, reader, jpeg.fraction(image.size, wanted), checked=checked)
        if array is not None:
            return array
    if wanted is not None:
        image.draft(None, wanted)
    return _rgb(image, file)


def _rgb(image: Image.Image, file: str) -> np.ndarray:
    """(H, W, 3) uint8, writable."""
    image.load()
    if image.mode == "F":
        raise InputError(f"{file}: floating-point pixels have no fixed white; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.int64)
        if gray.min() < 0 or gray.max() > 65535:
            raise InputError(
                f"{file}: 32-bit pixels of {gray.min()}..{gray.max()}; save the image with 8 or 16 bits"
            )
        # Pillow's convert would clip everything over 255 to white.
        eight = ((gray + 128) // 257).astype(np.uint8)
        return np.repeat(eight[:, :, None], 3, axis=2)
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.array(image)


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
