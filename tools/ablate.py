#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Train with and without parts of Libra, and tell which differences are more than chance.

python tools/ablate.py --cfg configs/ablation/retinanet.yaml --parts sampling,pyramid,loss --seeds 3

Stopped at any moment, the same command goes on; finished runs are not repeated.
"""

import sys
from pathlib import Path

from detectron_libra import cli
from detectron_libra.builders.ablate import ablate
from detectron_libra.builders.ablation_report import report
from detectron_libra.builders.part_list import parse_parts
from detectron_libra.config import load_config
from detectron_libra.errors import UsageError
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> int | None:
    """Train and compare what the command line names."""
    parser = make_parser()
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    cfg = load_config(args.cfg, opts) if args.cfg or not args.report_only else None
    if not (cfg or args.out):
        raise UsageError("--report-only: of which runs? name their folder with --out, or --cfg")
    out = Path(args.out or Path(cfg.OUTPUT_DIR) / "ablation")
    if args.report_only:
        setup_logging()
        report(out)
        return 0
    if args.seeds < 1:
        raise UsageError(f"--seeds {args.seeds}: at least one run of each is needed")
    mode = "cumulative" if args.cumulative else "full" if args.full else "single"
    ablate(cfg, parts=parse_parts(args.parts, cfg), mode=mode, seeds=args.seeds, out=out)
    return 0


def make_parser() -> cli.Parser:
    """The options."""
    parser = cli.Parser(
        description="Train a baseline, each part and all of them, with the same seeds, and compare the results. KEY "
        "VALUE pairs override the file's values, for every run."
    )
    parser.add_argument(
        "--cfg", metavar="FILE", help="configuration, YAML; the parts are switched on top of it"
    )
    parser.add_argument(
        "--parts",
        metavar="LIST",
        default="",
        help="such as sampling,pyramid,loss,weights=0.25:0.5 (weights: of the box loss), or any key with its values: "
        "TRAIN.PRECISION=fp32:bf16,CHANNELS_LAST=False",
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="runs of each: RNG_SEED, RNG_SEED + 1, ..."
    )
    parser.add_argument("--out", metavar="DIR", help="folder of the ablation; by default OUTPUT_DIR/ablation")
    parser.add_argument("--report-only", action="store_true", help="train nothing: report the finished runs")
    modes = parser.add_mutually_exclusive_group()
    modes.add_argument(
        "--single", action="store_true", help="the baseline, each part alone, all together; the default"
    )
    modes.add_argument(
        "--cumulative", action="store_true", help="one part after another, each with those before it"
    )
    modes.add_argument("--full", action="store_true", help="every combination")
    return parser


if __name__ == "__main__":
    sys.exit(cli.run(main))
