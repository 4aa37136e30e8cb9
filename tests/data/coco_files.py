# SPDX-License-Identifier: Apache-2.0
"""Small real data sets for the tests of this folder."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


def shared(path: str) -> Path:
    """A path of the data beside the checkout; skips the test visibly where it is not at hand."""
    if not (SHARED / path).exists():
        pytest.skip(f"{SHARED / path} is not at hand")
    return SHARED / path


def write_image(file: Path, height: int, width: int, seed: int = 0, **options) -> np.ndarray:
    """Save random smooth pixels; (H, W, 3) uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.save(file, **options)
    return np.asarray(image)


def coco(count: int = 4, *, height: int = 48, width: int = 64) -> dict:
    """A good data set: two boxes per image; every second image is taller than wide."""
    images, annotations = [], []
    for k in range(count):
        h, w = (height, width) if k % 2 == 0 else (width, height)
        images.append({"id": k + 1, "file_name": f"img_{k}.png", "height": h, "width": w})
        for bbox, category in (([4, 6, 20, 10], 1), ([10, 12, 8, 24], 2)):
            ident = len(annotations) + 1
            annotations.append({"id": ident, "image_id": k + 1, "category_id": category, "bbox": bbox})
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }


def write(folder: Path, content: dict, *, with_images: bool = True) -> tuple[str, str]:
    """(image folder, annotation file) of a data set on disk."""
    (folder / "images").mkdir(exist_ok=True)
    for k, image in enumerate(content["images"] if with_images else ()):
        write_image(folder / "images" / image["file_name"], image["height"], image["width"], k)
    file = folder / "train.json"
    file.write_text(json.dumps(content))
    return str(folder / "images"), str(file)
