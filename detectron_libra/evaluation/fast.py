# SPDX-License-Identifier: Apache-2.0
"""COCO's measure by hotcoco, a hundred times faster than pycocotools, as long as both agree on a sample."""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable, Sequence
from types import ModuleType

import numpy as np

from .coco_boxes import FoundBoxes, TrueBoxes
from .pycoco import LIMITS, Accumulated, by_pycocotools

log = logging.getLogger(__name__)

#: Images that both measure before hotcoco is believed, and the classes, those with most boxes in these images.
#: pycocotools needs time for every class, with boxes or without; so many cost about a tenth of a second.
SAMPLE, SAMPLE_CLASSES = 50, 8
#: Largest difference of a precision or a recall.
TOLERANCE = 1e-9

#: (true boxes, detections, image ids, class ids) -> precision and recall.
Measure = Callable[[TrueBoxes, FoundBoxes, Sequence[int], Sequence[int]], Accumulated]


def accumulate(
    truth: TrueBoxes, found: FoundBoxes, image_ids: Sequence[int], class_ids: Sequence[int]
) -> Accumulated:
    """Precision and recall of a data set, by hotcoco where it is installed and agrees with pycocotools on a sample.

    Args:
        truth, found: boxes.
        image_ids, class_ids: all of them, in ascending order.
    """
    hotcoco = installed()
    if hotcoco is None:
        return by_pycocotools(truth, found, image_ids, class_ids)
    measure = functools.partial(by_hotcoco, hotcoco)
    try:
        if agrees(measure, *sample_of(truth, found, image_ids, class_ids)):
            return measure(truth, found, image_ids, class_ids)
        reason = "it does not agree with pycocotools on a sample"
    except Exception as e:  # whatever a version of it may raise: pycocotools does without it
        reason = f"it fails ({type(e).__name__}: {' '.join(str(e).split())})"
    log.warning("hotcoco is not used, %s; pycocotools measures", reason)
    return by_pycocotools(truth, found, image_ids, class_ids)


@functools.cache
def installed() -> ModuleType | None:
    """The module, or None; says once which it is."""
    try:
        module = importlib.import_module("hotcoco")
    except ImportError as e:
        log.info("AP is computed by pycocotools; hotcoco is faster (pip install hotcoco): %s", e)
        return None
    log.info(
        "AP is computed by hotcoco %s, and by pycocotools on a sample", getattr(module, "__version__", "?")
    )
    return module


def by_hotcoco(
    module: ModuleType,
    truth: TrueBoxes,
    found: FoundBoxes,
    image_ids: Sequence[int],
    class_ids: Sequence[int],
) -> Accumulated:
    """Precision and recall as pycocotools' COCOeval has them; arguments as in ``accumulate``."""
    theirs = module.COCO.from_arrays(
        [{"id": int(i), "width": 0, "height": 0} for i in image_ids],
        [{"id": int(i), "name": str(i)} for i in class_ids],
        truth.images,
        truth.classes,
        truth.boxes,
        area=truth.areas,
        iscrowd=truth.crowd.astype(np.int64),
    )
    # the columns of pycocotools' loadNumpyAnnotations
    columns = (found.images[:, None], found.boxes, found.scores[:, None], found.classes[:, None])
    ours = theirs.load_res(np.concatenate(columns, axis=1, dtype=np.float64))
    evaluation = module.COCOeval(theirs, ours, "bbox")
    evaluation.params.max_dets = list(LIMITS)
    evaluation.evaluate()
    evaluation.accumulate()
    values = evaluation.eval
    return Accumulated(np.asarray(values["precision"]), np.asarray(values["recall"]))


def sample_of(
    truth: TrueBoxes, found: FoundBoxes, image_ids: Sequence[int], class_ids: Sequence[int]
) -> tuple[TrueBoxes, FoundBoxes, list[int], list[int]]:
    """Some of the images that have boxes, evenly spread, and the classes with most boxes there."""
    busy = np.unique(np.concatenate([truth.images, found.images]))
    images = busy[:: max(1, len(busy) // SAMPLE)] if len(busy) else np.asarray(image_ids[:1], np.int64)
    truth, found = (boxes.where(np.isin(boxes.images, images)) for boxes in (truth, found))
    there, counts = np.unique(np.concatenate([truth.classes, found.classes]), return_counts=True)
    most = there[np.argsort(-counts, kind="stable")[:SAMPLE_CLASSES]]
    classes = np.sort(most) if len(most) else np.asarray(class_ids[:1], np.int64)
    truth, found = (boxes.where(np.isin(boxes.classes, classes)) for boxes in (truth, found))
    return truth, found, images.tolist(), classes.tolist()


def agrees(
    measure: Measure,
    truth: TrueBoxes,
    found: FoundBoxes,
    image_ids: Sequence[int],
    class_ids: Sequence[int],
) -> bool:
    """Whether ``measure`` gives the precision and the recall that pycocotools gives."""
    ours, theirs = (f(truth, found, image_ids, class_ids) for f in (measure, by_pycocotools))
    return all(
        one.shape == other.shape and bool(np.allclose(one, other, rtol=0, atol=TOLERANCE))
        for one, other in zip(ours, theirs, strict=True)
    )
