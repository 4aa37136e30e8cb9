#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure stored detections again: OUTPUT_DIR/detections.pkl, written by test_net.py or by Detectron.

python tools/reval.py out/mine/test/bccd_val/retinanet
"""

import sys
from pathlib import Path

from detectron_libra import cli
from detectron_libra.builders.reval import reevaluate
from detectron_libra.errors import UsageError
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> int | None:
    """Measure what the command line names."""
    parser = cli.Parser(
        description="Measure stored detections again. KEY VALUE pairs override the configuration."
    )
    parser.add_argument("--dataset", metavar="NAME", default="", help="by default the set that was tested")
    parser.add_argument(
        "--cfg", metavar="FILE", help="configuration; by default the one inside detections.pkl"
    )
    parser.add_argument("--comp", action="store_true", help="as TEST.COMPETITION_MODE True")
    parser.add_argument("--matlab", action="store_true", help="not available: it needs MATLAB")
    parser.add_argument("output_dir", help="folder of a test, which holds detections.pkl")
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    if args.matlab:
        raise UsageError(
            "--matlab: MATLAB is not called from here; the kit's VOCevaldet reads the comp4_det_*.txt files that lie "
            "beside detections.pkl"
        )
    setup_logging()
    more = ["TEST.COMPETITION_MODE", "True"] if args.comp else []
    reevaluate(Path(args.output_dir), name=args.dataset, cfg_file=args.cfg, opts=[*opts, *more])
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
