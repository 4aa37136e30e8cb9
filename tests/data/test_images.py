# SPDX-License-Identifier: Apache-2.0
"""Decoding: always RGB, by content, upright when the annotations are, never a damaged picture in silence."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from detectron_libra.data import images
from detectron_libra.data.images import read_image, read_size
from detectron_libra.errors import InputError
from tests.data.coco_files import write_image


def pixels(file, **options):
    image = read_image(str(file), **options)
    assert image.dtype == torch.uint8 and image.shape[0] == 3
    return image.permute(1, 2, 0).numpy()


def test_rgb_is_exact_and_content_decides_not_the_suffix(tmp_path):
    want = write_image(tmp_path / "a.jpg", 20, 30, format="PNG")
    assert np.array_equal(pixels(tmp_path / "a.jpg"), want)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    gray = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (16, 1)))
    file = tmp_path / ("x.tiff" if mode == "CMYK" else "x.png")
    gray.convert("RGB").convert(mode).save(file)
    got = pixels(file).astype(int)
    assert got.shape == (16, 64, 3)
    assert abs(got[..., 0] - got[..., 2]).max() <= 2 and got[:, :8].mean() < 60 and got[:, -8:].mean() > 200


def test_16_bits_are_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    assert pixels(tmp_path / "deep.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_float_pixels_are_refused_by_name(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(InputError, match=r"float.tiff.*8 or 16 bits"):
        read_image(str(tmp_path / "float.tiff"))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_cut_file_is_refused_by_name(tmp_path, suffix):
    file = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 6 // 10])
    with pytest.raises(InputError, match=rf"cut.{suffix}"):
        read_image(str(file))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"])
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"x.jpg: (the file is empty|not an image)"):
        read_image(str(tmp_path / "x.jpg"))


def test_missing_files_and_folders_are_refused_by_name(tmp_path):
    for name in ("no.jpg", "", "n" * 300):
        with pytest.raises(InputError, match=tmp_path.name):
            read_image(str(tmp_path / name))


def test_too_many_pixels_are_refused_before_decoding(tmp_path, monkeypatch):
    write_image(tmp_path / "big.png", 40, 50)
    monkeypatch.setattr(images, "MAX_PIXELS", 1999)
    with pytest.raises(InputError, match=r"big.png: 50 x 40 pixels.*1999"):
        read_image(str(tmp_path / "big.png"))


def test_draft_halves_a_large_jpeg_and_never_goes_below_the_wanted_size(tmp_path):
    file = tmp_path / "a.jpg"
    want = write_image(file, 240, 320, quality=95)
    assert pixels(file, draft_size=(121, 160)).shape == (240, 320, 3)
    half = pixels(file, draft_size=(120, 160))
    assert half.shape == (120, 160, 3)
    mean = want.reshape(120, 2, 160, 2, 3).mean(axis=(1, 3))
    assert abs(half - mean).mean() < 2


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_is_applied_as_pillow_does(tmp_path, orientation):
    file = tmp_path / "turned.png"
    write_image(file, 20, 30, exif=exif(orientation))
    want = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    assert np.array_equal(pixels(file), want)
    assert read_size(str(file)) == want.shape[:2]


def test_the_annotated_size_decides_whether_exif_is_applied(tmp_path):
    file = tmp_path / "turned.jpg"
    write_image(file, 20, 30, exif=exif(6), quality=95)
    assert pixels(file, size=(30, 20)).shape == (30, 20, 3)
    assert pixels(file, size=(20, 30)).shape == (20, 30, 3)
    with pytest.raises(InputError, match=r"turned.jpg.*30 x 20 pixels \(20 x 30 when turned.*11 x 10"):
        read_image(str(file), size=(10, 11))


def test_draft_of_a_sideways_image_has_the_turned_size(tmp_path):
    file = tmp_path / "turned.jpg"
    write_image(file, 160, 320, exif=exif(6), quality=95)
    assert pixels(file, draft_size=(160, 80)).shape == (160, 80, 3)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_nonsense_exif_is_ignored(tmp_path):
    write_image(tmp_path / "a.jpg", 20, 30, exif=exif(99))
    write_image(tmp_path / "b.jpg", 20, 30, exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff" + b"\x13" * 30)
    assert pixels(tmp_path / "a.jpg").shape == pixels(tmp_path / "b.jpg").shape == (20, 30, 3)
