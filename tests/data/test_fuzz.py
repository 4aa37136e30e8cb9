# SPDX-License-Identifier: Apache-2.0
"""Whatever an annotation file or an image holds: a data set, a picture, or an error that names the file."""

import copy
import io
import json

import numpy as np
import pytest
from PIL import Image

from detectron_libra.data.coco import load_coco
from detectron_libra.data.images import check_size, read_image, read_size
from detectron_libra.errors import InputError
from tests.data.coco_files import coco, write
from tests.fuzzing import fuzz, mutant

JSON_TOKENS = [
    *(b"null", b"-1", b"1e999", b"NaN", b"-Infinity", b"[]", b"{}", b'""', b"[[", b'"\\ud800"', b"9" * 400),
    *(b"\\u0000", b"true", b"0.5", b"[" * 3000, b'{"a":' * 2000, b"\xff", b"\xef\xbb\xbf", b"1" * 5000),
]
#: What takes the place of a value, anywhere in a file that stays JSON.
VALUES = [None, True, -1, 0, 0.5, 1e308, 10**400, float("nan"), "", "x", "1", [], [1], {}, {"id": 1}, [[]]]
SIZE = (24, 36)


def replaced(rng: np.random.Generator, content: dict) -> bytes:
    """A file whose values, here and there, are of another type or missing."""
    tree = json.loads(json.dumps(content))
    for _ in range(rng.integers(1, 4)):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = keys[rng.integers(len(keys))]
            if isinstance(node[key], (dict, list)) and rng.random() < 0.85:
                node = node[key]
            elif rng.random() < 0.2:
                del node[key]
                break
            else:
                node[key] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
                break
    return json.dumps(tree).encode()


def fuzz_json(folder, count, seed):
    """Half of the files have damaged bytes, half have damaged values."""
    images, file = write(folder, coco(3))
    content, rng = coco(3), np.random.default_rng(seed)
    whole, place = json.dumps(content).encode(), folder / "mutant.json"

    def read(data):
        place.write_bytes(data)
        load_coco("mutant", images, str(place), extent=1.0, need_boxes=True)

    return fuzz(read, lambda k: replaced(rng, content) if k % 2 else mutant(rng, whole, JSON_TOKENS), count)


def fuzz_images(folder, count, seed):
    """Headers of every format that is decoded, and of one that is not; the size is stated as in a training."""
    rng, place = np.random.default_rng(seed), folder / "mutant.img"
    picture = Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))
    seeds = []
    for kind in ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        seeds.append(buffer.getvalue())
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=exif)
    seeds.append(buffer.getvalue())

    def read(data):
        place.write_bytes(data)
        (height, width), stated = read_size(str(place)), bool(rng.integers(2))
        check_size(str(place), (height, width))
        if height * width < 10_000_000:  # what is announced and not there is allocated nevertheless
            image = read_image(str(place), size=(height, width) if stated else None)
            assert image.shape == (3, height, width)

    return fuzz(read, lambda k: mutant(rng, seeds[k % len(seeds)], seeds, head=120), count)


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PCX", "SGI", "EPS", "PDF", "JPEG2000", "DDS"])
def test_a_format_outside_the_list_is_refused_whatever_its_suffix(tmp_path, kind):
    """Pillow decodes dozens of formats, some by starting other programs; here those of a list are decoded."""
    place = tmp_path / "picture.jpg"
    Image.new("1" if kind == "MSP" else "RGB", (64, 64)).save(place, kind)  # MSP has black and white only
    with pytest.raises(InputError, match="picture.jpg: not an image; known formats: JPEG"):
        read_image(str(place))


def test_damaged_annotation_files(tmp_path):
    results = fuzz_json(tmp_path, 1500, seed=0)
    assert results["read"] > 30 and results["refused"] > 300


@pytest.mark.filterwarnings("ignore")
def test_damaged_image_headers(tmp_path):
    results = fuzz_images(tmp_path, 1500, seed=0)
    assert results["read"] > 100 and results["refused"] > 300


@pytest.mark.slow
def test_ten_thousand_damaged_annotation_files(tmp_path):
    results = fuzz_json(tmp_path, 10_000, seed=1)
    print(dict(results))
    assert sum(results.values()) == 10_000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_damaged_image_headers(tmp_path):
    results = fuzz_images(tmp_path, 10_000, seed=1)
    print(dict(results))
    assert sum(results.values()) == 10_000
