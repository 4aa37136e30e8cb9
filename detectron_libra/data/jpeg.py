# SPDX-License-Identifier: Apache-2.0
"""JPEG by another library than Pillow: which files it gets, and what happens with those it cannot decode.

Pillow has read the header before, and with it format, number of pixels and size have been checked. The other library
decodes a JPEG with one or three components whose last bytes are the end of a JPEG. Where it tells of damage, or gives
another size than the header, and with every other file, Pillow decodes: the picture or the error that names the damage
is then the one that a run with Pillow alone would have had. A file goes the same way every time.

OpenCV does not tell of damage inside a file. Before it, Pillow decodes each file at an eighth of its size, for which
all of it is read; not where the check of the data sets has decoded every image already.
"""

from __future__ import annotations

import functools
import importlib
import io
from collections.abc import Callable
from types import ModuleType

import numpy as np
from PIL import Image

from detectron_libra.errors import UsageError

PILLOW = "pillow"
#: DATA.READER -> module, and the package that brings it.
PACKAGES = {"simplejpeg": ("simplejpeg", "simplejpeg"), "opencv": ("cv2", "opencv-python-headless")}
READERS = (PILLOW, *PACKAGES)
#: Readers that refuse what Pillow refuses.
TELL_OF_DAMAGE = ("simplejpeg",)
#: Parts of the full size that every decoder can give: 1/8, 1/4, 1/2 and all of it.
FRACTIONS = (8, 4, 2, 1)
#: Formats of Pillow's whose first picture is a JPEG, modes of one or three components, and the marker at the end.
_FORMATS, _MODES, _END = ("JPEG", "MPO"), ("RGB", "L"), b"\xff\xd9"


@functools.cache
def module_of(reader: str) -> ModuleType:
    """The library of a reader other than Pillow.

    Raises:
        UsageError: it is not installed.
    """
    module, package = PACKAGES[reader]
    try:
        return importlib.import_module(module)
    except ImportError as e:
        raise UsageError(
            f"DATA.READER: {reader} is not installed ({e}); pip install {package}, or set DATA.READER {PILLOW}"
        ) from e


def installed(reader: str) -> bool:
    """Whether the library of a reader other than Pillow is there."""
    try:
        module_of(reader)
    except UsageError:
        return False
    return True


def version_of(reader: str) -> str:
    """Name and version of what decodes: pixels may differ between versions."""
    package = Image if reader == PILLOW else module_of(reader)
    return f"{reader} {package.__version__}"


def fraction(size: tuple[int, int], wanted: tuple[int, int] | None) -> int:
    """The largest f of FRACTIONS so that 1/f of an image is not smaller than what is wanted; 1 for a small image.

    Args:
        size, wanted: two sides in pixels, in the same order; None wants all of them.

    Source: Pillow's JpegImageFile.draft.
    """
    if wanted is None:
        return 1
    times = min(size[0] // max(1, wanted[0]), size[1] // max(1, wanted[1]))
    return next((f for f in FRACTIONS if f <= times), 1)


def decode(image: Image.Image, reader: str, part: int, *, checked: bool = False) -> np.ndarray | None:
    """The pixels of an open image that is not loaded yet, by another library than Pillow.

    Args:
        reader: of PACKAGES.
        part: f of FRACTIONS; 1/f of the size is wanted.
        checked: the whole file was decoded before.

    Returns:
        (ceil(H / f), ceil(W / f), 3) uint8 RGB as stored, without EXIF; None where Pillow is to decode.
    """
    stream = getattr(image, "fp", None)
    if image.format not in _FORMATS or image.mode not in _MODES or stream is None:
        return None
    stream.seek(0)
    data = stream.read()
    if not data.endswith(_END) or not (checked or reader in TELL_OF_DAMAGE or _is_whole(data)):
        return None
    size = -(-image.height // part), -(-image.width // part)
    array = _DECODERS[reader](module_of(reader), data, size, part)
    return array if array is not None and array.shape == (*size, 3) else None


def _is_whole(data: bytes) -> bool:
    """Whether Pillow reads a JPEG without a complaint; at an eighth of the size it computes a part of the pixels."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            image.draft(None, (image.width // 8, image.height // 8))
            image.load()
    except Exception:  # whatever it is, Pillow will tell of it when it decodes the file
        return False
    return True


def _simplejpeg(library: ModuleType, data: bytes, size: tuple[int, int], _: int) -> np.ndarray | None:
    try:
        return library.decode_jpeg(data, "RGB", min_height=size[0], min_width=size[1])
    except ValueError:  # it warns of damage, or knows no such JPEG
        return None


def _opencv(library: ModuleType, data: bytes, _: tuple[int, int], part: int) -> np.ndarray | None:
    flag = library.IMREAD_COLOR_RGB if part == 1 else getattr(library, f"IMREAD_REDUCED_COLOR_{part}")
    try:
        array = library.imdecode(np.frombuffer(data, np.uint8), flag | library.IMREAD_IGNORE_ORIENTATION)
    except library.error:
        return None
    if array is None or part == 1:
        return array
    return np.ascontiguousarray(array[..., ::-1])  # BGR; cvtColor would start threads in every worker


_DECODERS: dict[str, Callable[[ModuleType, bytes, tuple[int, int], int], np.ndarray | None]] = {
    "simplejpeg": _simplejpeg,
    "opencv": _opencv,
}
