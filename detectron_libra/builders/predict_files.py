# SPDX-License-Identifier: Apache-2.0
"""Detections of image files, written as pictures and as a list: what `tools/infer_simple.py` does."""

import logging
from pathlib import Path

from PIL import Image

from detectron_libra.builders.predict import Predictor
from detectron_libra.builders.report import Found
from detectron_libra.builders.rules import geometry_of
from detectron_libra.builders.testing import detect_on
from detectron_libra.data.coco import Dataset, Record
from detectron_libra.data.folder import as_dataset, list_images, readable
from detectron_libra.data.images import read_image
from detectron_libra.errors import InputError
from detectron_libra.evaluation.pictures import draw, write_picture
from detectron_libra.evaluation.results import write_json
from detectron_libra.files import ensure_writable
from detectron_libra.structures import Detections

log = logging.getLogger(__name__)

#: Files that an error names; the log has all.
NAMED = 3


def predict_files(
    predictor: Predictor,
    place: str,
    output: str,
    *,
    extension: str = "",
    threshold: float = 0.7,
    picture_extension: str = "png",
    always: bool = False,
) -> dict[str, Detections]:
    """Detections of an image or of all images of a folder, written as pictures and as detections.json.

    An image that cannot be read is left out, and told at the end.

    Args:
        place: image or folder; extension: only files with this ending.
        output: folder of the results, made where it is missing.
        threshold: lowest score of a box that is drawn.
        picture_extension: png, jpg or pdf.
        always: write a picture even where nothing reaches the threshold.

    Returns:
        Detections by file.

    Raises:
        InputError: there is no image; or, after all the others are done, some could not be read.
    """
    folder = ensure_writable(output)
    files = list_images(place, extension)
    good, faults = readable(files)
    dataset, found, damaged = _detect(predictor, good)
    faults += damaged
    if not dataset.records:
        _tell(faults, len(files))
    drawn = [r for r in dataset.records if always or (found[r.image_id].scores >= threshold).any()]
    for record in drawn:
        picture = _draw(predictor, record, found, threshold)
        write_picture(folder / f"{Path(record.file).name}.{picture_extension}", picture)
    write_json(folder / "detections.json", [as_json(predictor, r, found) for r in dataset.records])
    log.info(
        "%d images; %d pictures with boxes of score >= %g, and detections.json, in %s",
        len(dataset.records),
        len(drawn),
        threshold,
        folder,
    )
    _tell(faults, len(files))
    return {str(file): detections for file, detections in found.items()}


def _draw(predictor: Predictor, record: Record, found: Found, threshold: float) -> Image.Image:
    return draw(
        read_image(record.file),
        found[record.image_id],
        None,
        predictor.class_names,
        threshold=threshold,
        extent=geometry_of(predictor.cfg).extent,
    )


def _detect(predictor: Predictor, files: list[str]) -> tuple[Dataset, Found, list[str]]:
    """The images, what was found in them, and what is wrong with those whose pixels turn out to be damaged."""
    faults: list[str] = []
    while files:
        dataset = as_dataset(files, predictor.class_names)
        try:
            found = detect_on(predictor.cfg, predictor.model, dataset, predictor.device)
            log.info("%.1f images/s", found.images_per_s)
            return dataset, found.detections, faults
        except InputError:
            # Only now, since it takes as long as reading all of them: which ones are damaged?
            files, damaged = readable(files, whole=True)
            if not damaged:
                raise
            faults += damaged
    return as_dataset([], predictor.class_names), {}, faults


def _tell(faults: list[str], count: int) -> None:
    """Log every file that could not be read, and raise where there is one.

    Raises:
        InputError: naming the first ones.
    """
    if not faults:
        return
    if count == 1:
        raise InputError(faults[0])
    for fault in faults:
        log.warning("left out: %s", fault)
    named = "; ".join(faults[:NAMED]) + (f"; and {len(faults) - NAMED} more" if len(faults) > NAMED else "")
    raise InputError(f"{len(faults)} of {count} images cannot be read and are left out: {named}")


def as_json(predictor: Predictor, record: Record, found: Found) -> dict:
    """Detections of one image in words: file, size, and class, score and box [x1, y1, x2, y2] of each."""
    detections = found[record.image_id]
    rows = zip(
        detections.classes.tolist(), detections.scores.tolist(), detections.boxes.tolist(), strict=True
    )
    objects = [{"class": predictor.class_names[c - 1], "score": score, "box": box} for c, score, box in rows]
    return {"file": record.file, "width": record.width, "height": record.height, "objects": objects}
