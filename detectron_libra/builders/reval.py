# SPDX-License-Identifier: Apache-2.0
"""Detections that lie in a file, measured or drawn again: what `tools/reval.py` and `tools/visualize_results.py` do."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron_libra.builders.data import load_dataset
from detectron_libra.builders.report import draw_every, evaluate
from detectron_libra.config import Config, load_config, parse_config, with_options, with_values
from detectron_libra.data.coco import Dataset
from detectron_libra.errors import InputError, UsageError
from detectron_libra.evaluation.arrays import Id
from detectron_libra.evaluation.stored import detections_of
from detectron_libra.files import ensure_writable
from detectron_libra.structures import Detections
from detectron_libra.weights.cfg_text import read_cfg, write_yaml
from detectron_libra.weights.unpickle import load_pickle

log = logging.getLogger(__name__)

DETECTIONS = "detections.pkl"


@dataclass(frozen=True)
class Stored:
    """Detections of a file, the data set they were made on, and the configuration."""

    cfg: Config
    dataset: Dataset
    detections: dict[Id, Detections]


def reevaluate(
    folder: Path, *, name: str = "", cfg_file: str | None = None, opts: Sequence[str] = ()
) -> dict[str, dict]:
    """Measure the detections.pkl of a test's folder again, and write the results there.

    Args:
        folder: holds detections.pkl, of ours or of Detectron.
        name, cfg_file, opts: as in ``open_detections``.

    Returns:
        Results under the name of the set.

    Raises:
        UsageError: no such data set, or it has no annotations. InputError: a file cannot be read, or the detections
        are not of this data set.
    """
    stored = open_detections(folder / DETECTIONS, name=name, cfg_file=cfg_file, opts=opts)
    if not stored.dataset.annotated:
        raise UsageError(f"{stored.dataset.name} has no annotations: there is nothing to measure")
    results = evaluate(stored.cfg, stored.dataset, stored.detections, ensure_writable(folder))
    log.info("written to %s", folder)
    return results


def visualize(
    file: Path,
    output: Path,
    *,
    threshold: float,
    extension: str,
    first: int,
    name: str = "",
    cfg_file: str | None = None,
    opts: Sequence[str] = (),
) -> None:
    """Draw the detections of a file into ``output/vis``.

    Args:
        threshold, extension, first: see ``evaluation.pictures.write_every_picture``.
        name, cfg_file, opts: as in ``open_detections``.
    """
    stored = open_detections(file, name=name, cfg_file=cfg_file, opts=opts)
    draw_every(
        stored.cfg,
        stored.dataset,
        stored.detections,
        ensure_writable(output / "vis"),
        threshold=threshold,
        extension=extension,
        first=first,
    )


def open_detections(
    file: Path, *, name: str = "", cfg_file: str | None = None, opts: Sequence[str] = ()
) -> Stored:
    """Detections of a file, with their data set.

    Args:
        file: detections.pkl, of ours or of Detectron.
        name: of the data set; by default the one whose folder the file lies in, or the only one that was tested.
        cfg_file: configuration instead of the one inside the file.
        opts: ``[KEY, VALUE, ...]`` on top.

    Raises:
        UsageError: no such data set. InputError: the file cannot be read, or is not of this data set.
    """
    content = load_pickle(file)
    if not isinstance(content, dict):
        raise InputError(f"{file}: a {type(content).__name__}; is this a {DETECTIONS}?")
    cfg = load_config(cfg_file, opts) if cfg_file else with_options(_inside(content, file), opts)
    cfg = with_values(cfg, {"DATA.CHECK": "off"})  # measures need no image, and drawing looks at its own
    dataset = load_dataset(cfg, name or _name_of(file, cfg))
    ids = [record.image_id for record in dataset.records]
    found = detections_of(content, ids, len(dataset.class_names) + 1, file=file)
    log.info(
        "%s: %d detections in %d images of %s", file, sum(map(len, found.values())), len(ids), dataset.name
    )
    return Stored(cfg, dataset, found)


def _inside(content: dict, file: Path) -> Config:
    """The configuration that is saved with detections, of ours or in the form that Detectron gives its own."""
    text = content.get("cfg")
    if not isinstance(text, str):
        raise InputError(f"{file}: no configuration in it; give one with --cfg")
    tree = read_cfg(text, str(file))
    model = tree.get("MODEL")
    if isinstance(model, dict):  # boxes of such a model are boxes like others
        tree["MODEL"] = {**model, "MASK_ON": False, "KEYPOINTS_ON": False}
    return parse_config(write_yaml(tree), f"{file}: cfg")


def _name_of(file: Path, cfg: Config) -> str:
    names = cfg.TEST.DATASETS
    around = [p for p in file.resolve().parents if p.name in names]
    if around:
        return around[0].name
    if len(names) == 1:
        return names[0]
    raise UsageError(
        f"{file}: of which data set? name it with --dataset ({', '.join(names) or 'none tested'})"
    )
