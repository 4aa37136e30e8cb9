# SPDX-License-Identifier: Apache-2.0
"""Generated pictures of shapes with exact boxes: a data set where nothing can be downloaded.

Class imbalance and crowding are options, so that what balancing does can be seen in minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from detectron_libra.errors import RunError, UsageError

#: Changes whenever the pictures do, so that an older folder is not taken for a new one.
VERSION = 1
#: Side of a shape as a share of the image's short side: smallest, largest.
SIDE_SHARE = (0.14, 0.5)
#: Smallest distance of a shape's colour from the background's, of 255 per channel (Euclidean).
CONTRAST = 90.0
#: Shapes of which less is left visible than this share of their pixels are left out.
VISIBLE_SHARE = 0.4
PLACES_TRIED = 12

# Masks on a square of -1..1 in x (u) and y (v).
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda u, v: u * u + v * v <= 1,
    "square": lambda u, v: (abs(u) <= 1) & (abs(v) <= 1),
    "triangle": lambda u, v: abs(u) <= (v + 1) / 2,
    "ring": lambda u, v: (u * u + v * v <= 1) & (u * u + v * v >= 0.3),
    "cross": lambda u, v: (abs(u) <= 0.3) | (abs(v) <= 0.3),
    "diamond": lambda u, v: abs(u) + abs(v) <= 1,
}


def make_shapes(
    folder: str | os.PathLike,
    *,
    images: int,
    split: str = "",
    size: tuple[int, int] = (160, 160),
    classes: Sequence[str] = ("circle", "square", "triangle"),
    imbalance: float = 1.0,
    crowding: float = 0.0,
    max_objects: int = 6,
    seed: int = 0,
) -> str:
    """Write ``folder/split`` with ``images/`` and COCO annotations, or find it there already.

    Args:
        folder: path.
        images: number of images.
        split: name of a folder below; empty for ``folder`` itself. Folders of different names
            (``train``, ``val``) get different pictures from the same seed.
        size: (height, width) of an image in pixels.
        classes: names out of ``SHAPES``.
        imbalance: each class is this many times rarer than the one before; 1 makes them equally frequent.
        crowding: 0..1, the share of a new shape that may lie over earlier ones.
        max_objects: most shapes in an image; the number is uniform from 1.
        seed: same arguments, same files.

    Returns:
        The annotation file; the images lie in ``images`` beside it.

    Raises:
        UsageError: arguments out of range, or ``folder/split`` holds something else.
        RunError: the folder cannot be written.
    """
    target = os.path.abspath(os.path.join(folder, split))
    parent, name = os.path.split(target)
    parameters = {
        "version": VERSION,
        "images": int(images),
        "split": name,
        "size": [int(s) for s in size],
        "classes": list(classes),
        "imbalance": float(imbalance),
        "crowding": float(crowding),
        "max_objects": int(max_objects),
        "seed": int(seed),
    }
    _check(parameters)
    annotations = os.path.join(folder, split, "instances.json")
    if _is_there(target, parameters):
        return annotations
    try:
        os.makedirs(parent, exist_ok=True)
        draft = tempfile.mkdtemp(prefix=f".{name}-", dir=parent)
        try:
            _write(draft, parameters)
            if os.path.isdir(target):
                shutil.rmtree(target)
            os.rename(draft, target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as e:
        if not _is_there(target, parameters):  # else another process was faster, with the same pictures
            raise RunError(f"{target}: the shapes cannot be written: {e.strerror or e}") from e
    return annotations


def draw_shapes(
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    classes: Sequence[str],
    frequencies: np.ndarray,
    crowding: float,
    max_objects: int,
) -> tuple[np.ndarray, list[tuple[int, list[int], int]]]:
    """Draw one picture.

    Args:
        rng: source of everything random.
        size: (height, width) in pixels.
        classes: names out of ``SHAPES``; frequencies: their shares, summing to 1.
        crowding, max_objects: as in make_shapes.

    Returns:
        picture (H, W, 3) uint8, and per shape: class from 0, [x, y, width, height] of its visible pixels,
        their number.
    """
    height, width = size
    base = rng.uniform(40, 215, 3)
    picture = base + _texture(rng, size, 28.0)
    owner = np.zeros(size, dtype=np.int32)  # 0 is background, k the k-th shape
    drawn: list[tuple[int, int]] = []  # class, pixels
    for _ in range(int(rng.integers(1, max_objects + 1))):
        kind = int(rng.choice(len(classes), p=frequencies))
        for _ in range(PLACES_TRIED):
            spot, mask = _place(rng, size, SHAPES[classes[kind]])
            if (owner[spot][mask] > 0).mean() <= crowding:
                break
        else:
            continue
        drawn.append((kind, int(mask.sum())))
        owner[spot][mask] = len(drawn)
        colour = _colour(rng, base)
        shade = _texture(rng, mask.shape, 14.0)
        picture[spot][mask] = (colour + shade)[mask]
    picture += rng.normal(0, 5, (height, width, 1))
    found = [(kind, *_extent(owner == k), pixels) for k, (kind, pixels) in enumerate(drawn, 1)]
    seen = [(kind, box, left) for kind, box, left, pixels in found if left >= VISIBLE_SHARE * pixels]
    return np.clip(picture, 0, 255).astype(np.uint8), seen


def _write(folder: str, parameters: dict[str, Any]) -> None:
    classes = parameters["classes"]
    shares = float(parameters["imbalance"]) ** -np.arange(len(classes), dtype=np.float64)
    height, width = parameters["size"]
    listed: list[dict] = []
    annotations: list[dict] = []
    os.mkdir(os.path.join(folder, "images"))
    for k in range(parameters["images"]):
        key = (parameters["seed"], zlib.crc32(parameters["split"].encode()), k)
        picture, shapes = draw_shapes(
            np.random.default_rng(np.random.SeedSequence(key)),
            size=(height, width),
            classes=classes,
            frequencies=shares / shares.sum(),
            crowding=parameters["crowding"],
            max_objects=parameters["max_objects"],
        )
        name = f"{k:06d}.jpg"
        Image.fromarray(picture).save(os.path.join(folder, "images", name), quality=92)
        listed.append({"id": k + 1, "file_name": name, "width": width, "height": height})
        for kind, box, area in shapes:
            entry = {"id": len(annotations) + 1, "image_id": k + 1, "category_id": kind + 1, "bbox": box}
            annotations.append({**entry, "area": area, "iscrowd": 0})
    categories = [{"id": c, "name": name} for c, name in enumerate(classes, 1)]
    content = {"images": listed, "annotations": annotations, "categories": categories}
    for name, data in (("instances.json", content), ("parameters.json", parameters)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as stream:
            json.dump(data, stream)


def _place(
    rng: np.random.Generator, size: tuple[int, int], shape: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[tuple[slice, slice], np.ndarray]:
    """A random spot, and the mask of the shape there, clipped to the picture."""
    height, width = size
    short = min(size)
    side = short * np.exp(rng.uniform(*np.log(SIDE_SHARE)))
    aspect = np.exp(rng.uniform(-0.3, 0.3))
    h, w = (max(4, min(round(s), short)) for s in (side / aspect, side * aspect))
    y, x = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    v, u = np.meshgrid((np.arange(h) + 0.5) / h * 2 - 1, (np.arange(w) + 0.5) / w * 2 - 1, indexing="ij")
    return (slice(y, y + h), slice(x, x + w)), shape(u, v)


def _colour(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    while True:
        colour = rng.uniform(0, 255, 3)
        if np.linalg.norm(colour - base) >= CONTRAST:
            return colour


def _texture(rng: np.random.Generator, size: tuple[int, ...], strength: float) -> np.ndarray:
    """(H, W, 3) float64, smooth and random, about +-strength."""
    coarse = rng.uniform(-strength, strength, (8, 8, 3)) + 128
    small = Image.fromarray(coarse.astype(np.uint8))
    return np.asarray(small.resize((size[1], size[0]), Image.Resampling.BICUBIC)) - 128.0


def _extent(mask: np.ndarray) -> tuple[list[int], int]:
    """[x, y, width, height] of the true pixels, and their number; zeros where there are none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return [0, 0, 0, 0], 0
    y, x = int(rows[0]), int(columns[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1], int(mask.sum())


def _is_there(target: str, parameters: dict[str, Any]) -> bool:
    """Whether the folder has these very pictures; refuses one that holds something else."""
    if not os.path.isdir(target) or not os.listdir(target):
        return False
    try:
        with open(os.path.join(target, "parameters.json"), encoding="utf-8") as stream:
            return json.load(stream) == parameters
    except (OSError, ValueError) as e:
        raise UsageError(f"{target} holds something else than generated shapes; choose another folder") from e


def _check(parameters: dict[str, Any]) -> None:
    unknown = [c for c in parameters["classes"] if c not in SHAPES]
    for wrong, key, remedy in (
        (unknown or not parameters["classes"], "classes", f"known are {', '.join(SHAPES)}"),
        (parameters["images"] < 1, "images", "want 1 or more"),
        (
            len(parameters["size"]) != 2 or min(parameters["size"]) < 16,
            "size",
            "want two sides of 16 or more",
        ),
        (not parameters["imbalance"] > 0, "imbalance", "want a positive ratio"),
        (not 0 <= parameters["crowding"] <= 1, "crowding", "want 0..1"),
        (parameters["max_objects"] < 1, "max_objects", "want 1 or more"),
        (parameters["seed"] < 0, "seed", "want 0 or more"),
    ):
        if wrong:
            raise UsageError(f"shapes: {key} is {parameters[key]!r}; {remedy}")
