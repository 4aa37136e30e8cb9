# SPDX-License-Identifier: Apache-2.0
"""Testing in pieces: ranges of a data set's images, each in a process of its own, merged in order.

Source of the rule of splitting and of the names of the files: Detectron's core/test_engine.py, utils/subprocess.py.
"""

import dataclasses
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from detectron_libra.builders.data import workers
from detectron_libra.config import Config, dump, with_values
from detectron_libra.data.coco import Dataset
from detectron_libra.engine.processes import Job, run_all
from detectron_libra.engine.progress import last_image
from detectron_libra.engine.signals import StopFlag
from detectron_libra.errors import UsageError
from detectron_libra.evaluation.arrays import Id
from detectron_libra.evaluation.files import write_whole
from detectron_libra.evaluation.results import write_detections
from detectron_libra.evaluation.stored import detections_of
from detectron_libra.structures import Detections
from detectron_libra.weights.unpickle import load_pickle

log = logging.getLogger(__name__)

#: Seconds between two lines about progress.
PERIOD_S = 30.0
#: A range of images: the first one, and the one after the last, from 0.
Range = tuple[int, int]


def split(count: int, parts: int) -> list[Range]:
    """Ranges of ``count`` images that differ by one image at most, the longer ones first, none of them empty."""
    parts = min(parts, count)
    longer = count % parts if parts else 0
    ends = [(k + 1) * (count // parts) + min(k + 1, longer) for k in range(parts)]
    return list(zip([0, *ends], ends, strict=False))


def cut(dataset: Dataset, images: Range) -> Dataset:
    """The images of a range as a data set of their own.

    Raises:
        UsageError: the set does not have these images.
    """
    start, end = images
    if not 0 <= start < end <= len(dataset.records):
        raise UsageError(
            f"--range {start} {end}: {dataset.name} has {len(dataset.records)} images; want 0 <= start < end <= that"
        )
    return dataclasses.replace(dataset, records=dataset.records[start:end])


def count_processes(cfg: Config, device: torch.device) -> int:
    """Processes that test at once: NUM_GPUS, on GPUs not more than there are."""
    wanted = max(1, cfg.NUM_GPUS)
    there = torch.cuda.device_count() if device.type == "cuda" else wanted
    if there < wanted:
        log.warning("NUM_GPUS is %d, torch sees %d: as many processes test", wanted, there)
    return min(wanted, there)


def write_piece(
    cfg: Config, piece: Dataset, found: dict[Id, Detections], folder: Path, images: Range
) -> None:
    """Write the detections of a range where the process that asked for them looks for them."""
    write_detections(_file(folder, images, "pkl"), piece, found, config_text=dump(cfg))


def detect_in_pieces(
    cfg: Config, weights: str, dataset: Dataset, folder: Path, *, tool: Path, processes: int, on_gpus: bool
) -> dict[Id, Detections]:
    """Detections of every image of a set, made by processes side by side.

    Args:
        cfg: with the number of classes known.
        weights: the file that every process reads.
        folder: of the test; takes configuration, logs and detections of the pieces.
        tool: the program that tests a range, tools/test_net.py.
        processes: how many; fewer where there are fewer images.
        on_gpus: each has a GPU of its own; otherwise they share the threads of the CPU.

    Raises:
        RunError: a process fails; quotes its last lines. SystemExit: 129, 130 or 143 after an interrupt.
    """
    ranges = split(len(dataset.records), processes)
    for old in folder.glob("detection_range_*"):  # of an earlier test, and not to be taken for this one's
        old.unlink()
    file = folder / "detection_range_config.yaml"
    write_whole(file, dump(_config_of_pieces(cfg, dataset.name, weights, len(ranges), on_gpus)).encode())
    jobs = [
        Job(
            [sys.executable, str(tool), "--range", str(start), str(end), "--cfg", str(file)],
            _file(folder, (start, end), "stdout"),
            environment,
        )
        for (start, end), environment in zip(ranges, _environments(len(ranges), on_gpus), strict=True)
    ]
    log.info(
        "%s: %d images in %d processes; logs: %s", dataset.name, len(dataset.records), len(jobs), file.parent
    )
    with StopFlag() as stop, _Bar(dataset, ranges, jobs) as bar:
        run_all(jobs, stop=stop, watch=bar.update)
    found: dict[Id, Detections] = {}
    for images in ranges:
        place = _file(folder, images, "pkl")
        ids = [record.image_id for record in cut(dataset, images).records]
        found |= detections_of(load_pickle(place), ids, len(dataset.class_names) + 1, file=place)
    return found


def _file(folder: Path, images: Range, ending: str) -> Path:
    return folder / f"detection_range_{images[0]}_{images[1]}.{ending}"


def _config_of_pieces(cfg: Config, name: str, weights: str, processes: int, on_gpus: bool) -> Config:
    """The configuration of each process: one set, whose files are checked already, and its share of the machine."""
    threads = cfg.CPU.THREADS or torch.get_num_threads()
    stored = dict(zip(cfg.TEST.DATASETS, cfg.TEST.PROPOSAL_FILES, strict=False))
    values: dict[str, Any] = {
        "TEST.DATASETS": (name,),
        "TEST.PROPOSAL_FILES": (stored[name],) if name in stored else (),
        "TEST.WEIGHTS": weights,
        "NUM_GPUS": 1,
        "DATA.CHECK": "off",
        "DATA.WORKERS": min(workers(cfg), max(1, workers(cfg) // processes)),
        "EXPECTED_RESULTS": [],
    }
    if not on_gpus:
        values["CPU.THREADS"] = max(1, threads // processes)
    return with_values(cfg, values)


def _environments(processes: int, on_gpus: bool) -> Sequence[dict[str, str]]:
    """Variables of each process, which sees one GPU: of those that this one sees."""
    if not on_gpus:
        return [dict(os.environ)] * processes
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = listed.split(",") if listed else [str(k) for k in range(torch.cuda.device_count())]
    return [{**os.environ, "CUDA_VISIBLE_DEVICES": gpu.strip()} for gpu in visible[:processes]]


class _Bar:
    """How far all processes are together, read off their logs: a bar, or without a terminal a line now and then."""

    def __init__(self, dataset: Dataset, ranges: Sequence[Range], jobs: Sequence[Job]) -> None:
        self._parts = [(start, job.output) for (start, _), job in zip(ranges, jobs, strict=True)]
        self._bar = tqdm(
            total=len(dataset.records), desc="test", unit="image", dynamic_ncols=True, disable=None
        )
        self._told = time.monotonic()

    def update(self) -> None:
        """Shows how many images are done."""
        done = sum(max(0, (last_image(file) or start) - start) for start, file in self._parts)
        self._bar.n = done
        self._bar.refresh()
        if self._bar.disable and time.monotonic() > self._told + PERIOD_S:
            self._told = time.monotonic()
            log.info("%d of %d images", done, self._bar.total)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
