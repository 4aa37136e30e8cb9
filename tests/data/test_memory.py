# SPDX-License-Identifier: Apache-2.0
"""Memory: what the index of a large data set takes, and that a run with worker processes takes no more and more."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import pytest

from tests.data.coco_files import coco, write
from tests.tools.runs import ROOT, write_config

GIB = 2**30
INDEX = """
import resource, sys, time
from detectron_libra.data.coco import load_coco
begun = time.process_time()
records = load_coco("large", "", sys.argv[1], extent=1.0, need_boxes=True).records
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(len(records), sum(len(r.boxes) for r in records[:10]), peak, time.process_time() - begun)
"""


def large_set(file: Path, images: int, boxes: int, files: list[str]) -> None:
    rng = random.Random(0)
    entries = [
        {"id": k + 1, "file_name": files[k % len(files)], "height": 48, "width": 64} for k in range(images)
    ]
    annotations = [
        {
            "id": boxes * k + j + 1,
            "image_id": k + 1,
            "category_id": 1 + rng.randrange(2),
            "bbox": [round(rng.uniform(0, 30), 2), round(rng.uniform(0, 20), 2), 20.25, 15.5],
            "area": 313.875,
            "iscrowd": 0,
        }
        for k in range(images)
        for j in range(boxes)
    ]
    content = {"images": entries, "annotations": annotations, "categories": coco()["categories"]}
    file.write_text(json.dumps(content))


@pytest.mark.slow
def test_a_hundred_thousand_images_are_indexed_in_a_gibibyte_and_seconds(tmp_path):
    """The whole process, libraries included; processor time, since others may use the machine, too."""
    file = tmp_path / "large.json"
    large_set(file, 100_000, 7, [f"{k:012d}.jpg" for k in range(100_000)])
    command = [sys.executable, "-c", INDEX, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    images, boxes, peak, seconds = (float(v) for v in done.stdout.split())
    print(f"peak {peak / GIB:.3f} GiB, {seconds:.1f} s")
    assert (images, boxes) == (100_000, 70)
    assert peak < GIB and seconds < 20


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    children: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        children += [int(p) for p in (task / "children").read_text().split()]
    return [pid, *(d for child in children for d in family(child))]


def proportional_set_size(pid: int) -> tuple[int, int]:
    """Bytes of all processes of a family, shared pages counted once; and how many processes these are."""
    total, count = 0, 0
    for member in family(pid):
        lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        count += 1
    return total, count


@pytest.mark.slow
@pytest.mark.skipif(
    not os.path.exists("/proc/self/smaps_rollup"), reason="the system does not tell set sizes"
)
def test_a_run_with_workers_grows_by_less_than_two_percent(tmp_path):
    """300 iterations of a set whose index is much larger than a batch: workers that copied it would show."""
    folder, file = write(tmp_path, coco(12))
    large_set(Path(file), 40_000, 7, [f"img_{k}.png" for k in range(0, 12, 2)])
    entry = json.dumps({"IM_DIR": folder, "ANN_FN": file})
    words = ["DATASETS.tiny_train", entry, "MODEL.NUM_CLASSES", "3", "DATA.CHECK", "off", "DATA.WORKERS", "4"]
    words += ["SOLVER.MAX_ITER", "320", "SOLVER.STEPS", "[0]", "TRAIN.SNAPSHOT_ITERS", "1000"]
    command = [
        sys.executable,
        "tools/train_net.py",
        "--cfg",
        str(write_config(tmp_path)),
        "--skip-test",
        *words,
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    sizes: dict[int, int] = {}
    try:
        while process.poll() is None:
            time.sleep(0.05)
            (metrics,) = [*tmp_path.rglob("metrics.jsonl")] or [None]
            iteration = len(metrics.read_text().splitlines()) if metrics else 0
            try:
                size, count = proportional_set_size(process.pid)
            except (OSError, StopIteration):  # one of them ended meanwhile
                continue
            if count == 5:
                sizes[iteration] = size
    finally:
        process.kill()
    assert process.returncode == 0
    first = median(size for k, size in sizes.items() if 10 <= k < 50)
    last = median(size for k, size in sizes.items() if 270 <= k < 310)
    print(f"{first / 2**20:.1f} MiB at the start, {last / 2**20:.1f} MiB at the end")
    assert last < 1.02 * first
