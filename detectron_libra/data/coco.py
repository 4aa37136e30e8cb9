# SPDX-License-Identifier: Apache-2.0
"""A COCO-format data set in memory: boxes packed in a few arrays, images as light records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from detectron_libra.data import entries
from detectron_libra.data.annotations import read_annotations
from detectron_libra.data.faults import Faults
from detectron_libra.data.json_file import read_json
from detectron_libra.data.packed import Texts, pack_ids
from detectron_libra.errors import InputError

#: Keys that no box detector reads and that fill most of a file.
UNUSED = ("segmentation", "keypoints")


@dataclass(frozen=True)
class Record:
    """One image and its boxes.

    Attributes:
        image_id: as in the annotation file.
        file: path of the image.
        height, width: pixels of the image as displayed (see images.read_image).
        boxes: (G, 4) float32, x1 y1 x2 y2 in pixels of the original image, in the geometry's convention.
        classes: (G,) int64, 1..C-1.
        crowd: (G,) bool, regions of many objects.
        proposals: (P, 5) float32, boxes as above and score, or None where none are stored.
        source: where the image comes from, as the annotation file says; "" where it does not.
    """

    image_id: int | str
    file: str
    height: int
    width: int
    boxes: Tensor
    classes: Tensor
    crowd: Tensor
    proposals: Tensor | None = None
    source: str = ""


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """Records cut out of packed arrays when asked for: workers share the arrays, not objects per box.

    Attributes:
        ids, files, sources: one per image, see packed.pack_ids and packed.Texts.
        sizes: (N, 2) int64, height and width in pixels.
        starts: (N + 1,) int64, where the boxes of each image begin.
        boxes, classes, crowd: of all images, as in Record.
    """

    ids: Sequence[int | str]
    files: Sequence[str]
    sizes: Tensor
    starts: Tensor
    boxes: Tensor
    classes: Tensor
    crowd: Tensor
    sources: Sequence[str]

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]  # negative indices, IndexError
        first, end = self.starts[i : i + 2].tolist()
        height, width = self.sizes[i].tolist()
        cut = slice(first, end)
        return Record(
            self.ids[i],
            self.files[i],
            height,
            width,
            self.boxes[cut],
            self.classes[cut],
            self.crowd[cut],
            source=self.sources[i],
        )


@dataclass(frozen=True)
class VocSplit:
    """What PASCAL VOC's measure and files need to know about a data set.

    Attributes:
        name: of the list of images: ``test`` of ImageSets/Main/test.txt.
        eleven_points: the measure of 2007 to 2009, not that of 2010 and later.
    """

    name: str
    eleven_points: bool


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: as in the configuration.
        image_dir, annotation_file: paths.
        records: one per image, sorted by image id as Detectron does.
        class_names: categories in the order of the file; class c is ``class_names[c - 1]``.
        category_ids: the file's id of each class.
        problems: what was wrong with it; None when nobody looked.
        annotated: False where the file has no key ``annotations`` (test sets): nothing can be measured.
        voc: where the annotations are PASCAL VOC's, what its own measure needs to know; otherwise None.
    """

    name: str
    image_dir: str
    annotation_file: str
    records: Sequence[Record]
    class_names: tuple[str, ...]
    category_ids: tuple[int | str, ...]
    problems: Faults | None = field(default=None, compare=False)
    annotated: bool = True
    voc: VocSplit | None = None

    def report(self) -> None:
        """Log what is odd about it.

        Raises:
            InputError: for what is wrong with it; one line.
        """
        if self.problems is not None:
            self.problems.report()


def load_coco(
    name: str,
    image_dir: str,
    annotation_file: str,
    *,
    extent: float,
    class_names: tuple[str, ...] | None = None,
    need_boxes: bool = False,
    min_area: float = -1,
    file_prefix: str = "",
    strict: bool = True,
) -> Dataset:
    """Read a COCO-format data set. Images are opened only for a size that the file does not state.

    Args:
        name: of the data set, for messages and results.
        image_dir: folder of the images; ``file_name`` entries are relative to it.
        annotation_file: COCO JSON. ``iscrowd``, ``area``, ``segmentation``, ``info`` are optional.
        extent: of the geometry: 1 makes x2 = x1 + max(0, w - 1), 0 makes it x1 + w.
        class_names: those of the training set, which this set must have too; None takes what is there.
        need_boxes: refuse a file without a box to learn from (a training set).
        min_area: annotations of a smaller area (boxes.stated_area) are dropped, in square pixels; -1 drops none.
        file_prefix: put before every file name (see catalog.FILE_PREFIXES).
        strict: raise for faulty entries; False leaves them in ``problems``.

    Returns:
        Dataset; boxes are clipped to the image, and those without area or outside are dropped and counted.

    Raises:
        InputError: the file cannot be read as COCO; with ``strict``, or entries are faulty.

    Source: Detectron's datasets/json_dataset.py.
    """
    return from_content(
        read_json(annotation_file, leave_out=UNUSED),
        name,
        image_dir,
        annotation_file,
        extent=extent,
        class_names=class_names,
        need_boxes=need_boxes,
        min_area=min_area,
        file_prefix=file_prefix,
        strict=strict,
    )


def from_content(
    content: dict[str, Any],
    name: str,
    image_dir: str,
    annotation_file: str,
    *,
    extent: float,
    class_names: tuple[str, ...] | None = None,
    need_boxes: bool = False,
    min_area: float = -1,
    file_prefix: str = "",
    strict: bool = True,
    keep_all: bool = False,
) -> Dataset:
    """A data set from what a COCO file would hold; arguments as in load_coco, which reads it from one.

    Args:
        keep_all: of Faults.
    """
    faults = Faults(annotation_file, keep_all=keep_all)
    entries.require_keys(content, annotation_file, need_boxes)
    categories = entries.read_categories(content["categories"], faults, class_names)
    images = entries.read_images(content["images"], image_dir, file_prefix, faults)
    listed = content.get("annotations", [])
    boxes = read_annotations(listed, images, categories, faults, extent, min_area)
    if need_boxes and not faults.error_lines() and not (~boxes.crowd).any():
        faults.add("error", "no usable box in it: every annotation is a crowd or was dropped", "annotations")
    order = np.argsort(boxes.image, kind="stable")
    records = Records(
        ids=pack_ids(images.ids),
        files=Texts.of(images.files),
        sizes=torch.tensor(images.sizes, dtype=torch.int64).reshape(-1, 2),
        starts=torch.from_numpy(np.searchsorted(boxes.image[order], np.arange(len(images.ids) + 1))),
        boxes=torch.from_numpy(boxes.boxes[order]),
        classes=torch.from_numpy(boxes.classes[order]),
        crowd=torch.from_numpy(boxes.crowd[order]),
        sources=Texts.of(images.sources),
    )
    dataset = Dataset(
        name,
        image_dir,
        annotation_file,
        records,
        categories.names,
        categories.ids,
        faults,
        "annotations" in content,
    )
    if strict:
        dataset.report()
    return dataset


def read_class_names(annotation_file: str) -> tuple[str, ...]:
    """The categories of a COCO JSON, in its order. Raises InputError where it has none, or faulty ones."""
    listed = read_json(annotation_file).get("categories")
    faults = Faults(annotation_file)
    categories = entries.read_categories(listed if isinstance(listed, list) else [], faults, None)
    if faults.error_lines() or not categories.names:
        raise InputError(f"{annotation_file}: {'; '.join(faults.error_lines()) or 'no categories in it'}")
    return categories.names
