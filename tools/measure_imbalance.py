#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure the imbalance of a training set and of a detector on it, and say which keys follow.

python tools/measure_imbalance.py --cfg configs/bccd/libra_retinanet.yaml --weights out/bccd/libra_retinanet
"""

import sys

from detectron_libra import cli, logs
from detectron_libra.builders.measure import measure_imbalance
from detectron_libra.config import load_config
from detectron_libra.errors import UsageError


def main(argv: list[str]) -> int | None:
    """Measure what the command line names."""
    parser = cli.Parser(
        description="Imbalance of TRAIN.DATASETS and of the detector on them, as OUTPUT_DIR/imbalance/imbalance.html "
        "and .json. Nothing is trained. KEY VALUE pairs override the file's values."
    )
    parser.add_argument("--cfg", metavar="FILE", help="configuration, YAML")
    parser.add_argument(
        "--weights",
        metavar="FILE",
        default="",
        help="weights of the detector, or the output folder of its run; without them TRAIN.WEIGHTS, and without those "
        "random ones",
    )
    parser.add_argument(
        "--images", type=int, default=200, metavar="N", help="images to measure the detector on (200)"
    )
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    logs.setup_logging()
    print(measure_imbalance(load_config(args.cfg, opts), weights=args.weights, images=args.images))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
