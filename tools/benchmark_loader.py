#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure how many images a second the data loader of a training delivers.

python tools/benchmark_loader.py --cfg configs/bccd/libra_retinanet.yaml DATA.WORKERS 4 DATA.CACHE ram
"""

import json
import sys

from detectron_libra import cli, logs
from detectron_libra.builders.measure_loader import measure_loader
from detectron_libra.config import load_config
from detectron_libra.errors import UsageError


def main(argv: list[str]) -> int | None:
    """Measure the loader that the command line describes."""
    parser = cli.Parser(
        description="Images per second of the loader of TRAIN.DATASETS, as one line of JSON. Nothing is trained: "
        "compare it with the images/s that a training reports. KEY VALUE pairs override the file's values."
    )
    parser.add_argument("--cfg", metavar="FILE", help="configuration, YAML")
    parser.add_argument("--batches", type=int, default=50, metavar="N", help="batches in each round (50)")
    parser.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="rounds, of which the median counts (5)"
    )
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    if args.batches < 1 or args.rounds < 1:
        raise UsageError(f"--batches {args.batches} --rounds {args.rounds}: give at least 1 of each")
    logs.setup_logging()
    print(json.dumps(measure_loader(load_config(args.cfg, opts), batches=args.batches, rounds=args.rounds)))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
