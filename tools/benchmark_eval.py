#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast COCO's twelve numbers are computed from boxes in memory, against pycocotools on the same boxes.

python tools/benchmark_eval.py [--images 5000] [--detections 100000] [--classes 80] [--runs N] [--json FILE]

Exit codes: 0 measured; 1 the numbers are not those of pycocotools; 2 usage.
"""

import json
import logging
import os
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median

from detectron_libra import cli, machine
from detectron_libra.benchmarks.boxes import random_boxes
from detectron_libra.benchmarks.evaluation import Timing, measure
from detectron_libra.errors import LibraError, UsageError
from detectron_libra.evaluation.fast import TOLERANCE
from detectron_libra.evaluation.files import write_whole


def main(argv: list[str]) -> None:
    """Measure what the command line asks for."""
    args = parse(argv)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    truth, found = random_boxes(args.images, args.detections, args.classes, seed=args.seed)
    timing = measure(truth, found, runs=args.runs, reference_runs=args.reference_runs)
    size = {
        "images": args.images,
        "true_boxes": len(truth.images),
        "detections": len(found.images),
        "classes": args.classes,
        "seed": args.seed,
    }
    env = {
        "cpu": machine.cpu_name(),
        "cores": machine.cores(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "commit": machine.commit(),
    }
    tell(timing, size, env)
    if args.json:
        content = {"env": env, "size": size, **asdict(timing), "ratio": timing.ratio}
        write_whole(args.json, (json.dumps(content, indent=1) + "\n").encode())
    if not timing.difference <= TOLERANCE:
        raise LibraError(f"a number differs from pycocotools' by {timing.difference:.3g}")


def parse(argv: list[str]):
    """The options, checked before anything is measured."""
    parser = cli.Parser(description="Times COCO's measure, and compares its numbers with pycocotools'.")
    for name, default, meaning in (
        ("images", 5000, "of the made-up data set"),
        ("detections", 100_000, "of all images together"),
        ("classes", 80, "that boxes are of"),
        ("runs", 5, "of ours, before and after each run of pycocotools"),
        ("reference-runs", 1, "of pycocotools, which takes half a minute for 5,000 images"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=meaning)
    parser.add_argument("--seed", type=int, default=0, help="of the boxes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    args, pairs = cli.parse(argv, parser)
    if pairs:
        raise UsageError(f"{pairs[0]}: the benchmark reads no configuration keys; --help lists its options")
    for name in ("images", "detections", "classes", "runs", "reference_runs"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(args, name)}: must be 1 or more")
    if args.seed < 0:
        raise UsageError(f"--seed {args.seed}: must be 0 or more")
    return args


def tell(timing: Timing, size: dict, env: dict) -> None:
    """The figures, and above them what they were measured on."""
    print(
        f"{env['cpu']}, {env['cores']} cores, load {env['load_average']}, commit {env['commit']}\n"
        f"{size['images']:,} images, {size['true_boxes']:,} true boxes, {size['detections']:,} detections, "
        f"{size['classes']} classes\n"
    )
    rows = {
        f"arrays to 12 numbers ({timing.program})": timing.ours,
        "  of that, the sample that pycocotools measures too": timing.sample,
        "pycocotools, its objects to 12 numbers": timing.theirs,
        "  before that, arrays to its objects": timing.loading,
    }
    for title, seconds in rows.items():
        if seconds:
            spread = f"{min(seconds):.3f} to {max(seconds):.3f}, {len(seconds)} runs"
            print(f"{title:<52}{median(seconds):8.3f} s   ({spread})")
    print(f"{'pycocotools / ours':<52}{timing.ratio:8.1f}")
    print(f"{'largest difference of the 12 numbers':<52}{timing.difference:8.1g}\n")
    print("  ".join(f"{k} {'-' if v is None else f'{100 * v:.2f}'}" for k, v in timing.numbers.items()))


if __name__ == "__main__":
    sys.exit(cli.run(main))
