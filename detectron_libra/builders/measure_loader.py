# SPDX-License-Identifier: Apache-2.0
"""How many images a second the loader of a training delivers: what `tools/benchmark_loader.py` does."""

import logging
import math
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

from detectron_libra.builders import session
from detectron_libra.builders.data import load_train_datasets, train_loader, workers
from detectron_libra.builders.reading import drafts, require_cache
from detectron_libra.config import Config, with_values
from detectron_libra.data.jpeg import version_of
from detectron_libra.structures import Batch

log = logging.getLogger(__name__)

#: Batches before the first that is timed: workers start, and what they made meanwhile is taken.
WARM_UP = 10


def measure_loader(cfg: Config, *, batches: int, rounds: int) -> dict[str, Any]:
    """Take the batches of a training as fast as they come, and do nothing with them.

    Args:
        batches: in each round; rounds: their number. A cache is filled before the first.

    Returns:
        The median rate of the rounds with the lowest and the highest; with DATA.WORKERS 0 the time of the processor for
        an image, which other programs disturb little; and what these depend on.

    Raises:
        LibraError: as a training, for its data and its keys.
    """
    session.start(with_values(cfg, {"DEVICE": "cpu"}))
    require_cache(cfg)
    datasets = load_train_datasets(cfg)
    count, per_batch = sum(len(d.records) for d in datasets), cfg.TRAIN.IMS_PER_BATCH
    first = WARM_UP + (math.ceil(count / per_batch) if cfg.DATA.CACHE != "none" else 0)
    cfg = with_values(cfg, {"SOLVER.MAX_ITER": first + rounds * batches})
    loader = iter(train_loader(cfg, datasets, start_iteration=0, pin_memory=False))
    take(loader, first)
    taken = [take(loader, batches) for _ in range(rounds)]
    images = batches * per_batch
    rates = sorted(images / seconds for seconds, _ in taken)
    return {
        "images_per_s": round(median(rates), 1),
        "lowest": round(rates[0], 1),
        "highest": round(rates[-1], 1),
        # of workers the system does not tell before they end
        "cpu_ms_per_image": None
        if workers(cfg)
        else round(1000 * median(busy for _, busy in taken) / images, 2),
        "workers": workers(cfg),
        "reader": version_of(cfg.DATA.READER),
        "cache": cfg.DATA.CACHE,
        "fractions": drafts(cfg),
        "geometry": cfg.MODEL.BOX_GEOMETRY,
        "scales": list(cfg.TRAIN.SCALES),
        "images": count,
    }


def take(batches: Iterator[Batch], count: int) -> tuple[float, float]:
    """Seconds until so many batches have come, and seconds that this process computed meanwhile."""
    begun, busy = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    return time.perf_counter() - begun, time.process_time() - busy
