# SPDX-License-Identifier: Apache-2.0
"""Small data sets and detections for the tests of the evaluation, of the real types."""

import json

import torch

from detectron_libra.data.coco import Dataset, Record
from detectron_libra.structures import Detections


def record(image_id, boxes=(), classes=(), crowd=None, *, file=None, size=(100, 100)) -> Record:
    crowd = [False] * len(classes) if crowd is None else crowd
    return Record(
        image_id=image_id,
        file=str(file or f"{image_id}.jpg"),
        height=size[0],
        width=size[1],
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        classes=torch.tensor(classes, dtype=torch.int64),
        crowd=torch.tensor(crowd, dtype=torch.bool),
    )


def dataset(records, class_names=("cat", "dog"), category_ids=None, annotation_file="") -> Dataset:
    ids = category_ids or tuple(range(1, len(class_names) + 1))
    return Dataset("scene", "", str(annotation_file), records, tuple(class_names), tuple(ids))


def found(*rows, dtype=torch.float32) -> Detections:
    """Rows of (class, score, (x1, y1, x2, y2))."""
    return Detections(
        boxes=torch.tensor([row[2] for row in rows], dtype=dtype).reshape(-1, 4),
        scores=torch.tensor([row[1] for row in rows], dtype=dtype),
        classes=torch.tensor([row[0] for row in rows], dtype=torch.int64),
    )


def json_dataset(file, images, annotations, categories):
    """A data set whose ground truth lies in a COCO file; its records hold no boxes."""
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    names, ids = zip(*((entry["name"], entry["id"]) for entry in categories), strict=True)
    return dataset([record(image["id"]) for image in images], names, ids, file)


def random_scene(seed: int, *, images: int = 30, classes: int = 3):
    """Records with crowds and without boxes; detections near and far from the boxes, scores with ties."""
    rng = torch.Generator().manual_seed(seed)
    uniform = lambda *shape: torch.rand(*shape, generator=rng)  # noqa: E731
    records, detections = [], {}
    for number in range(images):
        count = int(torch.randint(0, 7, (), generator=rng))
        corner, side = uniform(count, 2) * 60, 8 + uniform(count, 2) * 30
        boxes = torch.cat([corner, corner + side], dim=1)
        labels = torch.randint(1, classes + 1, (count,), generator=rng)
        crowd = uniform(count) < 0.15
        records.append(record(number, boxes.tolist(), labels.tolist(), crowd.tolist()))
        near = torch.cat([boxes, boxes]) + (uniform(2 * count, 4) - 0.5) * 12
        far = torch.cat([uniform(3, 2) * 50, 50 + uniform(3, 2) * 50], dim=1)
        every = torch.cat([near, far])
        scores = (uniform(len(every)) * 20).round() / 20
        labels = torch.cat([labels, labels, torch.randint(1, classes + 1, (3,), generator=rng)])
        detections[number] = Detections(every, scores, labels)
    return dataset(records, [f"class {k}" for k in range(1, classes + 1)]), detections
