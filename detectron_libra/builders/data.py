# SPDX-License-Identifier: Apache-2.0
"""Configuration to data sets and loaders."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from detectron_libra.builders.augmentation import views
from detectron_libra.builders.imbalance import image_sampler
from detectron_libra.builders.proposals import attach_proposals, needs_proposals, proposal_files
from detectron_libra.builders.reading import cache_settings, drafts, require_reader
from detectron_libra.builders.rules import geometry_of
from detectron_libra.config.schema import Config
from detectron_libra.data.batches import Preparation
from detectron_libra.data.catalog import FILE_PREFIXES, find, find_voc
from detectron_libra.data.check import look_at_images, survey_coco
from detectron_libra.data.coco import Dataset, read_class_names
from detectron_libra.data.loader import Loader, build_test_loader, build_train_loader
from detectron_libra.data.shapes import make_shapes
from detectron_libra.data.voc_set import CHALLENGE_CLASSES, load_voc
from detectron_libra.errors import InputError, LibraError, UsageError

log = logging.getLogger(__name__)


def locate(cfg: Config, name: str) -> tuple[str, str]:
    """Image folder and annotation file of a data set; a set of shapes is generated where it is not there yet."""
    entry = cfg.DATASETS.get(name, {})
    if "SHAPES" not in entry:
        images, annotations = find(name, cfg.DATASETS)
        if not entry and not os.path.exists(annotations):
            raise InputError(
                f"{annotations}: data set {name} is not there; set LIBRA_DATA_DIR to the folder that holds "
                f"{annotations.split(os.sep)[-3]}/, or declare it: DATASETS: {{{name}: {{IM_DIR: ..., ANN_FN: ...}}}}"
            )
        return images, annotations
    shapes = entry["SHAPES"]
    annotations = make_shapes(
        entry["DIR"],
        images=shapes["IMAGES"],
        size=tuple(shapes["SIZE"]),
        classes=tuple(shapes["CLASSES"]),
        imbalance=shapes["IMBALANCE"],
        crowding=shapes["CROWDING"],
        max_objects=shapes["MAX_OBJECTS"],
        seed=shapes["SEED"],
    )
    return str(Path(annotations).with_name("images")), annotations


def load_dataset(
    cfg: Config, name: str, *, class_names: tuple[str, ...] | None = None, training: bool = False
) -> Dataset:
    """One data set, checked as DATA.CHECK says.

    Args:
        class_names: those of the model, which the set must have; None takes the set's own.
        training: there must be a box to learn from, and TRAIN.GT_MIN_AREA holds.

    Raises:
        UsageError: the name is not known. InputError: the set has faults.
    """
    dataset = survey_dataset(cfg, name, class_names=class_names, training=training)
    dataset.report()
    return dataset


def survey_dataset(
    cfg: Config, name: str, *, class_names: tuple[str, ...] | None = None, training: bool = False
) -> Dataset:
    """As load_dataset, but faults are left in ``problems``.

    Raises:
        UsageError: the name is not known. InputError: the annotations cannot be read at all.
    """
    level = cfg.DATA.CHECK
    min_area = cfg.TRAIN.GT_MIN_AREA if training else -1
    voc = find_voc(name, cfg.DATASETS)
    if voc:
        folder, split, year = voc
        dataset = load_voc(
            name,
            folder,
            split,
            year=year,
            extent=geometry_of(cfg).extent,
            class_names=None if name in cfg.DATASETS else CHALLENGE_CLASSES,
            expected=class_names,
            need_boxes=training,
            min_area=min_area,
            strict=False,
        )
        return look_at_images(dataset, level=level, workers=workers(cfg))
    folder, annotations = locate(cfg, name)
    return survey_coco(
        name,
        folder,
        annotations,
        extent=geometry_of(cfg).extent,
        level=level,
        workers=workers(cfg),
        class_names=class_names,
        need_boxes=training,
        min_area=min_area,
        file_prefix=FILE_PREFIXES.get(name, ""),
    )


def load_train_datasets(cfg: Config) -> list[Dataset]:
    """The sets of TRAIN.DATASETS, all with the first one's classes."""
    if not cfg.TRAIN.DATASETS:
        raise UsageError("TRAIN.DATASETS: no data set is named; give at least one")
    require_reader(cfg)
    proposal_files(cfg, "TRAIN")  # before anything is read
    first = load_dataset(cfg, cfg.TRAIN.DATASETS[0], training=True)
    rest = cfg.TRAIN.DATASETS[1:]
    datasets = [first, *(load_dataset(cfg, n, class_names=first.class_names, training=True) for n in rest)]
    return attach_proposals(cfg, "TRAIN", datasets)


def load_test_datasets(cfg: Config, class_names: tuple[str, ...] | None) -> list[Dataset]:
    """The sets of TEST.DATASETS, with the model's classes."""
    require_reader(cfg)
    proposal_files(cfg, "TEST")  # before anything is read
    datasets = [load_dataset(cfg, name, class_names=class_names) for name in cfg.TEST.DATASETS]
    return attach_proposals(cfg, "TEST", datasets)


def class_names_at_hand(cfg: Config) -> tuple[str, ...]:
    """Class names of the first data set of the configuration that is there and fits it; none where none is."""
    for name in (*cfg.TEST.DATASETS, *cfg.TRAIN.DATASETS):
        try:
            names = _class_names(cfg, name)
        except LibraError as e:
            log.debug("no class names of %s: %s", name, e)
            continue
        if cfg.MODEL.NUM_CLASSES in (-1, len(names) + 1):
            log.info("the weights name no classes: taken from data set %s", name)
            return names
    return ()


def _class_names(cfg: Config, name: str) -> tuple[str, ...]:
    entry = cfg.DATASETS.get(name, {})
    if "SHAPES" in entry:
        return tuple(entry["SHAPES"]["CLASSES"])
    return read_class_names(find(name, cfg.DATASETS)[1])


def count_classes(cfg: Config, class_names: Sequence[str]) -> int:
    """Classes with background: MODEL.NUM_CLASSES, or the data's where it is -1.

    Raises:
        UsageError: the two disagree.
    """
    found = len(class_names) + 1
    if cfg.MODEL.NUM_CLASSES not in (-1, found):
        raise UsageError(
            f"MODEL.NUM_CLASSES: {cfg.MODEL.NUM_CLASSES} does not fit the data set, which has {found - 1} categories: "
            f"set it to {found} (categories + background) or to -1"
        )
    return found


def workers(cfg: Config) -> int:
    """Processes that read images."""
    if cfg.DATA.WORKERS >= 0:
        return cfg.DATA.WORKERS
    return min(cfg.DATA_LOADER.NUM_THREADS, os.cpu_count() or 1)


def preparation(cfg: Config) -> Preparation:
    """How test images are changed."""
    shared = _shared(cfg)
    return Preparation(
        cfg.TEST.MAX_SIZE,
        shared["stride"],
        shared["extent"],
        shared["resize_in_float"],
        shared["draft"],
        with_targets=False,
        reader=shared["reader"],
    )


def _shared(cfg: Config) -> dict:
    geometry = geometry_of(cfg)
    return {
        "stride": cfg.FPN.COARSEST_STRIDE if cfg.FPN.FPN_ON else 0,
        "extent": geometry.extent,
        "resize_in_float": geometry.resize_in_float,
        "draft": drafts(cfg),
        "reader": cfg.DATA.READER,
        "workers": workers(cfg),
        "timeout_s": cfg.DATA.TIMEOUT_S,
    }


def trains_on_empty(cfg: Config) -> bool:
    """Whether images without a box are trained on: as TRAIN.KEEP_EMPTY says, and on stored proposals, which overlap
    nothing there and so are background. Source: Detectron's datasets/roidb.py, filter_for_training.
    """
    t = cfg.TRAIN
    background = needs_proposals(cfg) and t.BG_THRESH_LO <= 0 and geometry_of(cfg).rules == "detectron"
    return t.KEEP_EMPTY or background


def train_loader(
    cfg: Config, datasets: Sequence[Dataset], *, start_iteration: int, pin_memory: bool
) -> Loader:
    """Batches of the iterations from ``start_iteration`` to SOLVER.MAX_ITER - 1."""
    t = cfg.TRAIN
    return build_train_loader(
        datasets,
        scales=t.SCALES,
        max_size=t.MAX_SIZE,
        images_per_batch=t.IMS_PER_BATCH,
        flip_x=t.USE_FLIPPED,
        flip_y=t.FLIP_VERTICAL,
        aspect_grouping=t.ASPECT_GROUPING,
        seed=cfg.RNG_SEED,
        max_iter=cfg.SOLVER.MAX_ITER,
        start_iteration=start_iteration,
        keep_empty=trains_on_empty(cfg),
        sampler=image_sampler(cfg),
        checked=cfg.DATA.CHECK == "full",
        cache=cache_settings(cfg),
        pin_memory=pin_memory,
        **_shared(cfg),
    )


def test_loader(cfg: Config, dataset: Dataset, *, pin_memory: bool) -> Loader:
    """Every image of a set once, or once per view (``augmentation.views``)."""
    return build_test_loader(
        dataset,
        views=views(cfg),
        dedup=cfg.DEDUP_BOXES,
        max_size=cfg.TEST.MAX_SIZE,
        images_per_batch=cfg.TEST.IMS_PER_BATCH,
        pin_memory=pin_memory,
        **_shared(cfg),
    )
