# SPDX-License-Identifier: Apache-2.0
"""Imbalance of a user's data and model: what `tools/measure_imbalance.py` does."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from detectron_libra.analysis.advice import Advice
from detectron_libra.analysis.data import describe_boxes, reading_faults, suspicious_boxes
from detectron_libra.analysis.inventory import Inventory, take_inventory, told_apart
from detectron_libra.analysis.model import Measured, measure_model
from detectron_libra.analysis.numbers import number
from detectron_libra.analysis.objective import box_gradients, equalising_weights
from detectron_libra.analysis.page import imbalance_page
from detectron_libra.builders import session
from detectron_libra.builders.check import calmed
from detectron_libra.builders.data import count_classes, load_train_datasets, train_loader
from detectron_libra.builders.detector import build_detector, loss_weights
from detectron_libra.builders.imbalance import NEGATIVE_SAMPLERS, counts_of_classes
from detectron_libra.builders.measure_advice import advise
from detectron_libra.builders.measure_anchors import AnchorRecall, measure_anchors
from detectron_libra.builders.predict import find_weights
from detectron_libra.builders.regions import FAST_RCNN_SMOOTH_L1_BETA
from detectron_libra.builders.rules import geometry_of
from detectron_libra.builders.settings import apply_settings
from detectron_libra.builders.weights import class_names_of, put_into, read_weights
from detectron_libra.config import Config, infer, with_values
from detectron_libra.data.coco import Dataset
from detectron_libra.errors import InputError, UsageError
from detectron_libra.evaluation.files import write_whole
from detectron_libra.evaluation.results import write_json
from detectron_libra.files import ensure_writable
from detectron_libra.weights.contents import Weights

log = logging.getLogger(__name__)

NAME = "imbalance"
#: What the report says of a detector without weights.
RANDOM = (
    "The detector has random weights: hard negatives, features and gradients are those of a training's first step. "
    "Measure again with --weights once it is trained."
)


def measure_imbalance(cfg: Config, *, weights: str = "", images: int = 200) -> Path:
    """Measure the imbalance of TRAIN.DATASETS and of the detector on them; nothing is trained.

    Args:
        cfg: as loaded.
        weights: path or address of the detector's weights, or the output folder of a run; "" takes TRAIN.WEIGHTS, as
            the training would begin, and without those random ones.
        images: how many images of the training the detector is measured on; whole batches.

    Returns:
        OUTPUT_DIR/imbalance/imbalance.html; imbalance.json lies beside it.

    Raises:
        UsageError: a key or option that cannot be. InputError: data or weights cannot be read, or do not fit.
        RunError: a loss is not finite, or the disk refuses the files.
    """
    if images < 1:
        raise UsageError(f"--images: {images}; give at least 1")
    folder = ensure_writable(Path(cfg.OUTPUT_DIR) / NAME)
    device = session.start(cfg)
    read = weights_to_measure(cfg, weights)
    cfg = apply_settings(cfg, read.settings, read.source) if read else cfg
    datasets = load_train_datasets(cfg)
    names = datasets[0].class_names
    cfg = infer(with_values(cfg, {"MODEL.NUM_CLASSES": count_classes(cfg, names)}))
    inventory = take_inventory(
        datasets, extent=geometry_of(cfg).extent, side=usual_scale(cfg), max_size=cfg.TRAIN.MAX_SIZE
    )
    measured = measure_detector(cfg, read, datasets, device, images=images, trained=bool(weights))
    recall = measure_anchors(cfg, inventory)
    log.info("measured on %d images of the training", measured.images)
    return write(cfg, folder, read, datasets, inventory, measured, recall)


def weights_to_measure(cfg: Config, place: str) -> Weights | None:
    """The weights that the command line or else TRAIN.WEIGHTS names; None where neither does."""
    if not place:
        start = cfg.TRAIN.WEIGHTS
        return read_weights(start, key="TRAIN.WEIGHTS", cache=cfg.DOWNLOAD_CACHE) if start else None
    source = find_weights(place) if Path(place).is_dir() else place
    return read_weights(source, key="--weights", cache=cfg.DOWNLOAD_CACHE)


def usual_scale(cfg: Config) -> int:
    """The middle one of TRAIN.SCALES, in pixels."""
    return sorted(cfg.TRAIN.SCALES)[len(cfg.TRAIN.SCALES) // 2]


def measure_detector(
    cfg: Config,
    weights: Weights | None,
    datasets: Sequence[Dataset],
    device: torch.device,
    *,
    images: int,
    trained: bool,
) -> Measured:
    """Build the detector and measure it on the first batches of its training, without mirrored images.

    Args:
        trained: the weights are those of this detector; otherwise they may be what a training begins with.
    """
    session.seed(cfg.RNG_SEED)
    model = build_detector(cfg, cfg.MODEL.NUM_CLASSES, counts_of_classes(cfg, datasets))
    if weights is None:
        calmed(model)
    else:
        check_classes(weights, datasets[0], trained=trained)
        put_into(cfg, model, weights, training=not trained)
    model = session.place(cfg, model, device)
    there = sum(len(dataset.records) for dataset in datasets)
    size = min(cfg.TRAIN.IMS_PER_BATCH, images, there)
    steps = math.ceil(min(images, there) / size)
    as_first = {"TRAIN.USE_FLIPPED": False, "TRAIN.FLIP_VERTICAL": False, "TRAIN.IMS_PER_BATCH": size}
    read_once = {"DATA.CACHE": "none", "SOLVER.MAX_ITER": steps}
    loader = train_loader(
        with_values(cfg, {**as_first, **read_once}),
        datasets,
        start_iteration=0,
        pin_memory=device.type == "cuda",
    )
    return measure_model(
        model,  # type: ignore[arg-type]
        loader,
        count=steps,
        device=device,
        loss_weights=loss_weights(cfg),
        class_names=told_apart(datasets[0].class_names),
        extent=geometry_of(cfg).extent,
        sampling=NEGATIVE_SAMPLERS["iou_balanced"](cfg),
    )


def check_classes(weights: Weights, dataset: Dataset, *, trained: bool) -> None:
    """Refuse weights of other classes than the data's; what a training begins with may have others."""
    names = class_names_of(weights)
    if trained and names and names != dataset.class_names:
        raise InputError(
            f"--weights: {weights.source}: trained on the classes {', '.join(names)}; {dataset.name} has "
            f"{', '.join(dataset.class_names)}: measure with the data set that they were trained on"
        )


def data_tables(datasets: Sequence[Dataset], inventory: Inventory, recall: AnchorRecall) -> dict[str, Any]:
    """The section about the data, and the same of each source."""
    tables = describe_boxes(inventory)
    parts = {"": inventory} | inventory.by_source()
    for name, part in parts.items():
        place = tables["by_source"][name] if name else tables
        place["anchor_recall"] = recall.tables(part)
        place["suspicious"] = suspicious_boxes(part) + ([] if name else reading_faults(datasets))
    return {"sets": [dataset.name for dataset in datasets], **tables}


def objective_tables(cfg: Config, measured: Measured) -> dict[str, Any]:
    """The section about the parts of the loss."""
    b, dense = cfg.LIBRA.BALANCED_L1, cfg.RETINANET.RETINANET_ON
    smooth_beta = cfg.RETINANET.BBOX_REG_BETA if dense else FAST_RCNN_SMOOTH_L1_BETA
    reference = reference_part(measured)
    return {
        "parts": measured.parts,
        "equal_to": reference,
        "equalising_weights": equalising_weights(measured.parts, reference),
        "box_gradient": box_gradients(
            measured.residuals,
            smooth_beta=smooth_beta,
            alpha=b.ALPHA,
            gamma=b.GAMMA,
            # A default beta is that of an R-CNN; a comparison is fair where both losses have the same inliers
            beta=b.BETA if b.ON else smooth_beta,
            form=b.FORM,
        ),
    }


def reference_part(measured: Measured) -> str:
    """The part of the loss that the others are compared with: the classes, or what an RPN has of them."""
    return "cls" if "cls" in measured.parts else "rpn_cls"


def sample_tables(measured: Measured) -> dict[str, Any]:
    """The section about samples: those of the last stage, and of the one before it where there is one."""
    *first, (name, last) = measured.sample.items()
    return {"of": name, **last, "first_stage": dict(first[0][1], of=first[0][0]) if first else None}


def feature_tables(measured: Measured) -> dict[str, Any]:
    """The section about features; says why where there is nothing to measure."""
    return measured.feature or {"missing": "the heads see one level: there is no pyramid to balance"}


def write(
    cfg: Config,
    folder: Path,
    weights: Weights | None,
    datasets: Sequence[Dataset],
    inventory: Inventory,
    measured: Measured,
    recall: AnchorRecall,
) -> Path:
    """Put the sections together and write both files."""
    sections: dict[str, Any] = {
        "data": data_tables(datasets, inventory, recall),
        "sample": sample_tables(measured),
        "feature": feature_tables(measured),
        "objective": objective_tables(cfg, measured),
    }
    advice: list[Advice] = advise(cfg, sections, recall)
    listed = [
        {"finding": a.finding, "number": None if a.number is None else number(a.number), "yaml": a.yaml}
        for a in advice
    ]
    facts = {
        "data sets": ", ".join(sections["data"]["sets"]),
        "detector": session.model_type(cfg),
        "weights": weights.source if weights else "random",
        "images measured": str(measured.images),
        "seed": str(cfg.RNG_SEED),
    }
    write_json(folder / f"{NAME}.json", sections | {"advice": listed})
    page = imbalance_page(sections, advice, facts, "" if weights else RANDOM)
    return write_whole(folder / f"{NAME}.html", page.encode("utf-8", errors="backslashreplace"))
