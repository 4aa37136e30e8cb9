# SPDX-License-Identifier: Apache-2.0
"""Other decoders than Pillow: the same limits, errors and sizes, and which files they get."""

import importlib.util
import io
import sys

import numpy as np
import PIL
import pytest
from PIL import Image

from detectron_libra.data import images, jpeg
from detectron_libra.data.images import read_image
from detectron_libra.errors import InputError, UsageError
from tests.data.coco_files import write_image
from tests.fuzzing import fuzz, mutant

OTHERS = tuple(jpeg.PACKAGES)
#: Levels by which a pixel may differ: versions of libjpeg round differently.
CLOSE = 3


@pytest.fixture(params=OTHERS)
def reader(request):
    if importlib.util.find_spec(jpeg.PACKAGES[request.param][0]) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


class Library:
    """Stands for a library; counts its calls and gives a plain picture."""

    def __init__(self):
        self.calls = 0

    def decode_jpeg(self, data, colours, *, min_height, min_width):
        self.calls += 1
        if data.count(b"\xff\xd9") > 1:
            raise ValueError("damaged")
        return np.full((min_height, min_width, 3), 77, np.uint8)


@pytest.fixture
def library(monkeypatch):
    library = Library()
    monkeypatch.setattr(jpeg, "module_of", lambda reader: library)
    return library


def pixels(file, **options):
    return read_image(str(file), **options).permute(1, 2, 0).numpy()


def saved(folder, kind="RGB", name="a.jpg", **options):
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = Image.fromarray(noise).resize((67, 45), Image.Resampling.BICUBIC).convert(kind)
    picture.save(folder / name, **options)
    return folder / name


def test_the_fraction_is_the_one_that_pillow_takes(tmp_path):
    file = tmp_path / "a.jpg"
    for height, width in ((480, 641), (333, 1000), (8, 9)):
        write_image(file, height, width)
        for wanted in ((240, 321), (240, 320), (60, 80), (1, 1), (0, 0), (500, 700), (100, 125), (41, 125)):
            with Image.open(file) as image:
                part = jpeg.fraction((height, width), wanted)
                if 0 not in wanted:
                    image.draft(None, wanted[::-1])
                    assert image.size == (-(-width // part), -(-height // part))
            assert part in jpeg.FRACTIONS
    assert jpeg.fraction((480, 640), None) == 1


@pytest.mark.parametrize("draft_size", [None, (46, 60), (20, 30), (10, 15), (5, 8)])
@pytest.mark.parametrize("kind", ["RGB", "L"])
def test_pixels_are_pillows_at_every_fraction(tmp_path, reader, kind, draft_size):
    for options in ({"progressive": True}, {"subsampling": 0}, {"quality": 95}):
        file = saved(tmp_path, kind, **options)
        theirs = pixels(file, reader=reader, draft_size=draft_size)
        ours = pixels(file, draft_size=draft_size)
        assert theirs.shape == ours.shape and theirs.dtype == np.uint8
        assert abs(theirs.astype(int) - ours).max() <= CLOSE


def test_of_several_pictures_all_readers_take_the_first(tmp_path, reader):
    Image.open(saved(tmp_path)).save(
        tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (20, 30))]
    )
    theirs, ours = pixels(tmp_path / "phone.jpg", reader=reader), pixels(tmp_path / "phone.jpg")
    assert theirs.shape == (45, 67, 3) and abs(theirs.astype(int) - ours).max() <= CLOSE


@pytest.mark.parametrize("orientation", [3, 6])
def test_exif_turns_as_with_pillow_and_only_once(tmp_path, reader, orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    file = saved(tmp_path, exif=tags)
    for options in ({}, {"draft_size": (33, 22)}, {"size": (45, 67)}):
        theirs, ours = pixels(file, reader=reader, **options), pixels(file, **options)
        assert theirs.shape == ours.shape and abs(theirs.astype(int) - ours).max() <= CLOSE


@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_a_cut_file_is_the_error_that_it_is_with_pillow(tmp_path, reader, share):
    file = saved(tmp_path, quality=95)
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    texts = set()
    for name in (jpeg.PILLOW, reader):
        with pytest.raises(
            InputError, match=r"a\.jpg: (the image is damaged|cannot be opened|not an image)"
        ) as e:
            read_image(str(file), reader=name)
        texts.add(str(e.value))
    assert len(texts) == 1


def test_damaged_files_are_read_or_refused_as_with_pillow(tmp_path, reader):
    """Every mutant gives a picture of the size of its header with both readers, or the same error with both."""
    rng, place = np.random.default_rng(5), tmp_path / "mutant.jpg"
    whole = saved(tmp_path, quality=90).read_bytes()

    def read(data):
        place.write_bytes(data)
        try:
            shape = pixels(place).shape
        except InputError as e:
            with pytest.raises(InputError) as other:
                pixels(place, reader=reader)
            assert str(other.value) == str(e)
            raise
        assert pixels(place, reader=reader).shape == shape

    def damaged(_):
        data = mutant(rng, whole, [whole[:200]], head=len(whole))
        return data if rng.integers(2) else data + b"\xff\xd9"

    results = fuzz(read, damaged, 400)
    assert results["read"] > 20 and results["refused"] > 20


def test_a_whole_jpeg_is_decoded_by_the_library_at_its_fraction(tmp_path, library):
    file = saved(tmp_path)
    assert (pixels(file, reader="simplejpeg") == 77).all() and library.calls == 1
    half = pixels(file, reader="simplejpeg", draft_size=(22, 33))
    assert half.shape == (23, 34, 3) and (half == 77).all()


@pytest.mark.parametrize(
    ("kind", "name"), [("CMYK", "a.jpg"), ("RGB", "a.png"), ("RGB", "a.webp"), ("L", "a.bmp")]
)
def test_what_is_no_jpeg_of_one_or_three_colours_goes_to_pillow(tmp_path, library, kind, name):
    file = saved(tmp_path, kind, name)
    assert np.array_equal(pixels(file, reader="simplejpeg"), pixels(file)) and library.calls == 0


def test_of_a_file_with_several_pictures_the_first_is_decoded(tmp_path, library):
    second = Image.new("RGB", (20, 30))
    first = Image.open(saved(tmp_path))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    got = pixels(tmp_path / "phone.jpg", reader="simplejpeg")
    assert got.shape == (45, 67, 3) and library.calls == 1  # the library told of damage: two ends of a JPEG
    assert np.array_equal(got, pixels(tmp_path / "phone.jpg"))


def test_a_file_that_does_not_end_as_a_jpeg_goes_to_pillow(tmp_path, library):
    file = saved(tmp_path)
    file.write_bytes(file.read_bytes() + b"more")
    assert np.array_equal(pixels(file, reader="simplejpeg"), pixels(file)) and library.calls == 0


def test_where_the_library_tells_of_damage_pillow_decides(tmp_path, library):
    file = saved(tmp_path)
    file.write_bytes(file.read_bytes() + b"\xff\xd9")
    assert np.array_equal(pixels(file, reader="simplejpeg"), pixels(file)) and library.calls == 1


def test_another_size_than_the_headers_is_not_taken(tmp_path, library, monkeypatch):
    file = saved(tmp_path)
    monkeypatch.setattr(
        library, "decode_jpeg", lambda *a, **k: np.zeros((45, 66, 3), np.uint8), raising=False
    )
    assert np.array_equal(pixels(file, reader="simplejpeg"), pixels(file))


def test_limits_stay_pillows(tmp_path, library, monkeypatch):
    file = saved(tmp_path)
    with pytest.raises(InputError, match="annotated is 10 x 10"):
        read_image(str(file), reader="simplejpeg", size=(10, 10))
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(InputError, match="over the limit of 1000"):
        read_image(str(file), reader="simplejpeg")
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9)).save(buffer, "PPM")
    file.write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match="known formats"):
        read_image(str(file), reader="simplejpeg")
    assert library.calls == 0


def test_opencv_gets_a_file_once_pillow_has_read_all_of_it(tmp_path, library, monkeypatch):
    """The library would accept this file, whose picture is damaged in the middle."""
    monkeypatch.setitem(jpeg._DECODERS, "opencv", jpeg._simplejpeg)
    file = saved(tmp_path, quality=95)
    assert (pixels(file, reader="opencv") == 77).all()
    data = file.read_bytes()
    file.write_bytes(data[:1000] + b"\xff" * 5 + data[1000:])
    with pytest.raises(InputError, match="damaged"):
        pixels(file, reader="opencv")
    assert library.calls == 1
    assert (pixels(file, reader="opencv", checked=True) == 77).all()


@pytest.mark.parametrize("name", OTHERS)
def test_a_library_that_is_missing_is_named_with_its_package(monkeypatch, name):
    module, package = jpeg.PACKAGES[name]
    jpeg.module_of.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"DATA.READER: {name} is not installed.*pip install {package}"):
        jpeg.module_of(name)
    jpeg.module_of.cache_clear()


def test_the_version_names_what_decodes(reader):
    assert jpeg.version_of(jpeg.PILLOW) == f"pillow {PIL.__version__}"
    assert jpeg.version_of(reader).startswith(f"{reader} ")
