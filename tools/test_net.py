#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Test weights on TEST.DATASETS.

python tools/test_net.py --cfg configs/bccd/libra_retinanet.yaml TEST.WEIGHTS out/mine/train/.../model_final.safetensors
"""

import sys
from pathlib import Path

from detectron_libra import cli
from detectron_libra.builders.testing import test, wait_for
from detectron_libra.config import load_config, with_values
from detectron_libra.errors import UsageError
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> int | None:
    """Test the weights that the command line names."""
    parser = cli.Parser(
        description="Test weights on TEST.DATASETS. KEY VALUE pairs override the file's values."
    )
    parser.add_argument("--cfg", metavar="FILE", help="configuration, YAML")
    parser.add_argument(
        "--wait",
        type=cli.boolean,
        nargs="?",
        const=True,
        default=False,
        metavar="BOOL",
        help="wait until the weights are there",
    )
    parser.add_argument("--no-wait", dest="wait", action="store_false", help="the opposite of --wait")
    parser.add_argument("--vis", action="store_true", help="write a picture of every image, as VIS True")
    work = parser.add_mutually_exclusive_group()
    work.add_argument("--multi-gpu-testing", action="store_true", help="NUM_GPUS processes side by side")
    work.add_argument(
        "--range",
        type=int,
        nargs=2,
        metavar=("S", "E"),
        help="only the images from S, counted from 0, to before E; writes their detections, measures nothing",
    )
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    cfg = load_config(args.cfg, opts)
    if not cfg.TEST.WEIGHTS:
        raise UsageError("TEST.WEIGHTS: no weights to test; give the path of a model_final.safetensors")
    setup_logging()
    if args.vis:
        cfg = with_values(cfg, {"VIS": True})
    if args.wait:
        wait_for(cfg.TEST.WEIGHTS)
    test(
        cfg,
        cfg.TEST.WEIGHTS,
        piece=tuple(args.range) if args.range else None,
        tool=Path(__file__) if args.multi_gpu_testing else None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
