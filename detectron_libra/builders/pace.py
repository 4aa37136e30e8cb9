# SPDX-License-Identifier: Apache-2.0
"""The last lines of a training: how fast it was, and what to change where it waited for its data."""

import logging
from collections.abc import Sequence

import torch

from detectron_libra import machine
from detectron_libra.builders.data import workers
from detectron_libra.builders.reading import cache_settings, drafts
from detectron_libra.config.schema import Config
from detectron_libra.data.batches import Preparation
from detectron_libra.data.caching import decoded_bytes
from detectron_libra.data.coco import Dataset
from detectron_libra.data.jpeg import PACKAGES, TELL_OF_DAMAGE, fraction, installed
from detectron_libra.data.transforms import resized
from detectron_libra.engine.waiting import Reading, Waiting, verdict

log = logging.getLogger(__name__)

#: Images that stand for a whole set.
SAMPLE = 500


def conclude(
    cfg: Config,
    datasets: Sequence[Dataset],
    device: torch.device,
    waiting: Waiting,
    *,
    iterations: int,
    seconds: float,
) -> None:
    """Log the pace of a training, and one sentence more where its loader was the bottleneck.

    Args:
        datasets: that were trained on.
        iterations: that were done in ``seconds``.
    """
    share = waiting.share
    log.info(
        "trained %d iterations in %.1f minutes, %.1f images/s%s",
        iterations,
        seconds / 60,
        iterations * cfg.TRAIN.IMS_PER_BATCH / seconds,
        "" if share is None else f", {share:.1%} of the time waiting for data",
    )
    sentence = verdict(waiting, reading_of(cfg, datasets, device, iterations))
    if sentence:
        log.info("%s", sentence)


def reading_of(cfg: Config, datasets: Sequence[Dataset], device: torch.device, iterations: int) -> Reading:
    """What is known about how the images were read, from up to SAMPLE of them."""
    count = sum(len(dataset.records) for dataset in datasets)
    step = max(1, count // SAMPLE)
    records = [record for d in datasets for record in (d.records[k] for k in range(0, len(d.records), step))]
    sizes = [(record.height, record.width) for record in records]
    drafted, t = drafts(cfg), cfg.TRAIN
    how = Preparation(t.MAX_SIZE, 0, 0.0, False, drafted, False)
    decoded = sum(decoded_bytes(sizes, t.SCALES, how)) * count // max(1, len(sizes))
    large = sum(fraction(s, resized(*s, side=max(t.SCALES), max_size=t.MAX_SIZE)[1:]) > 1 for s in sizes)
    jpegs = sum(record.file.lower().endswith((".jpg", ".jpeg")) for record in records)
    on_gpu = device.type == "cuda"
    return Reading(
        workers=workers(cfg),
        cores=machine.cores() or 1,
        busy=1 if on_gpu else torch.get_num_threads(),
        cache=cfg.DATA.CACHE,
        capacity=cache_settings(cfg).capacity,
        free_memory=machine.available_memory(),
        decoded=decoded,
        epochs=iterations * t.IMS_PER_BATCH / max(1, count),
        reader=cfg.DATA.READER,
        faster=next(filter(installed, TELL_OF_DAMAGE), ""),
        package=PACKAGES[TELL_OF_DAMAGE[0]][1],
        jpegs=2 * jpegs > len(records),
        reducible=not drafted and 2 * large > len(records),
        draft=cfg.DATA.DRAFT,
    )
