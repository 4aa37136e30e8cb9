# SPDX-License-Identifier: Apache-2.0
"""What depends on the size of a data set."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from detectron_libra.builders.growth.curve import OBJECTS, Axis, Work
from detectron_libra.builders.growth.sets import content_of, detections_in, index
from detectron_libra.data.coco import UNUSED, Dataset
from detectron_libra.data.image_sampling import RepeatFactor
from detectron_libra.data.json_file import read_json
from detectron_libra.data.loader import build_train_loader
from detectron_libra.data.plan import TrainPlan
from detectron_libra.evaluation.results import detections_pickle, results_dict
from detectron_libra.structures import Detections

ANNOTATIONS = (100, 1000, 10_000, 100_000, 1_000_000)
#: Annotations of an image, about COCO's number, and classes.
PER_IMAGE, CLASSES = 7, 80
#: As in classes.py; share of images that a class should be in.
THRESHOLD, IOU, SHARE = 0.5, 0.5, 0.1
IMAGES_PER_STEP, LATER_STEPS, SCALES = 8, 1000, (600, 700, 800)


def data_axis() -> Axis:
    """Annotations of a data set; images and detections grow with them."""
    works = {
        "reading the annotation file": reading,
        "index and check of annotations": checking,
        "the same, all of them faulty": checking_faulty,
        "building the training loader": loader,
        "planning an epoch": planning,
        "1,000 steps in its middle": later_steps,
        "repeat factors of images": sampler,
        "evaluation": evaluation,
        "detections.pkl": pickle,
    }
    return Axis(
        "data",
        "annotations",
        tuple(Work(name, prepare, ANNOTATIONS, memory=OBJECTS) for name, prepare in works.items()),
    )


def reading(annotations: int) -> Callable[[], object]:
    """JSON to Python objects."""
    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name) / "instances.json"
    file.write_text(json.dumps(_content(annotations)))

    def run() -> object:
        assert folder.name  # it stays as long as this function
        return read_json(str(file), leave_out=UNUSED)

    return run


def checking(annotations: int) -> Callable[[], object]:
    """Python objects to packed records: what DATA.CHECK says of annotations comes from here."""
    content = _content(annotations)
    return lambda: index(content)


def checking_faulty(annotations: int) -> Callable[[], object]:
    """The same where there is something to note of every annotation."""
    content = _content(annotations, outside=True)
    return lambda: index(content)


def loader(annotations: int) -> Callable[[], object]:
    """All that comes before the first batch."""
    dataset = _dataset(annotations)
    return lambda: build_train_loader(
        [dataset],
        scales=SCALES,
        max_size=1333,
        images_per_batch=IMAGES_PER_STEP,
        flip_x=True,
        aspect_grouping=True,
        stride=32,
        extent=0.0,
        resize_in_float=False,
        workers=0,
        seed=0,
        max_iter=LATER_STEPS,
        keep_empty=True,
    )


def planning(annotations: int) -> Callable[[], object]:
    """The order of the images of an epoch, with a step in its middle."""
    images = _images(annotations)

    def run() -> object:
        plan = _plan(images)
        return plan.batch(plan.batches_per_epoch // 2)

    return run


def later_steps(annotations: int) -> Callable[[], object]:
    """Steps once their epoch is planned."""
    plan = _plan(_images(annotations))
    middle, steps = plan.batches_per_epoch // 2, plan.batches_per_epoch - plan.batches_per_epoch // 2
    plan.batch(middle)
    return lambda: [plan.batch(middle + k % steps) for k in range(LATER_STEPS)]


def sampler(annotations: int) -> Callable[[], object]:
    """How often an epoch has each image."""
    dataset = _dataset(annotations)
    return lambda: RepeatFactor(SHARE)(dataset.records)


def evaluation(annotations: int) -> Callable[[], object]:
    """Everything that is measured of a test with as many detections as annotations."""
    dataset = _dataset(annotations)
    found = _found(annotations)
    return lambda: results_dict(dataset, found, extent=0.0, threshold=THRESHOLD, iou=IOU)


def pickle(annotations: int) -> Callable[[], object]:
    """The file of those detections."""
    dataset = _dataset(annotations)
    found = _found(annotations)
    return lambda: detections_pickle(dataset, found, config_text="")


def _plan(images: int) -> TrainPlan:
    wide = [k % 3 > 0 for k in range(images)]
    return TrainPlan(
        range(images),
        wide,
        images_per_batch=IMAGES_PER_STEP,
        scales=SCALES,
        flip_x=True,
        flip_y=False,
        group_by_aspect=True,
        seed=0,
    )


def _images(annotations: int) -> int:
    return max(1, annotations // PER_IMAGE)


def _content(annotations: int, *, outside: bool = False) -> dict:
    return content_of(images=_images(annotations), annotations=annotations, classes=CLASSES, outside=outside)


@lru_cache(maxsize=1)
def _dataset(annotations: int) -> Dataset:
    """Several works share it, which follow one another at each size; it is never changed."""
    return index(_content(annotations))


@lru_cache(maxsize=1)
def _found(annotations: int) -> dict[int | str, Detections]:
    return detections_in(_dataset(annotations), annotations)
