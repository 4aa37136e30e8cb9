#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train a detector, then test it on TEST.DATASETS.

python tools/train_net.py --cfg configs/bccd/libra_retinanet.yaml OUTPUT_DIR out/mine SOLVER.MAX_ITER 500
"""

import sys
from pathlib import Path

from detectron_libra import cli
from detectron_libra.builders.check import check
from detectron_libra.builders.training import train_and_test
from detectron_libra.config import load_config
from detectron_libra.errors import UsageError


def main(argv: list[str]) -> int | None:
    """Train, then test, as the command line says."""
    parser = cli.Parser(
        description="Train a detector, then test it. KEY VALUE pairs override the file's values."
    )
    parser.add_argument("--cfg", metavar="FILE", help="configuration, YAML")
    parser.add_argument("--skip-test", action="store_true", help="do not test the final weights")
    parser.add_argument(
        "--multi-gpu-testing", action="store_true", help="test with NUM_GPUS processes side by side"
    )
    resuming = parser.add_mutually_exclusive_group()
    resuming.add_argument(
        "--resume", action="store_true", help="go on from the newest checkpoint; an error where there is none"
    )
    resuming.add_argument(
        "--no-resume", action="store_true", help="start anew; an older run's checkpoints are removed"
    )
    resuming.add_argument(
        "--check",
        action="store_true",
        help="only try the configuration out: a few steps of the model on small generated images, on the CPU; reads "
        "no data and no weights, writes nothing",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="resume although the configuration has changed in what is trained",
    )
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    cfg = load_config(args.cfg, opts)
    if args.check:
        print(f"{args.cfg or 'configuration'}: {check(cfg)}")
        return 0
    resume = (
        "must" if args.resume else "never" if args.no_resume else "auto" if cfg.TRAIN.AUTO_RESUME else "never"
    )
    train_and_test(
        cfg,
        resume=resume,
        force=args.force,
        skip_test=args.skip_test,
        test_tool=Path(__file__).with_name("test_net.py") if args.multi_gpu_testing else None,
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
