#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Draw stored detections: a picture per image with a box of the threshold or above.

python tools/visualize_results.py --detections out/mine/test/bccd_val/retinanet/detections.pkl --output-dir out/pictures
"""

import sys
from pathlib import Path

from detectron_libra import cli
from detectron_libra.builders.reval import visualize
from detectron_libra.errors import UsageError
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> int | None:
    """Draw what the command line names."""
    parser = cli.Parser(description="Draw stored detections. KEY VALUE pairs override the configuration.")
    parser.add_argument("--dataset", metavar="NAME", default="", help="by default the set that was tested")
    parser.add_argument(
        "--detections", metavar="FILE", required=True, help="detections.pkl of ours or of Detectron"
    )
    parser.add_argument(
        "--cfg", metavar="FILE", help="configuration; by default the one inside the detections"
    )
    parser.add_argument("--thresh", type=float, default=0.9, help="lowest score of a box that is drawn")
    parser.add_argument(
        "--output-dir", metavar="DIR", default="tmp/vis-output", help="the pictures go to DIR/vis"
    )
    parser.add_argument("--output-ext", default="pdf", choices=("png", "jpg", "pdf"), help="kind of pictures")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="only the first K images; 0: all")
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    if args.first < 0:
        raise UsageError(f"--first: {args.first} is no number of images; 0 takes all")
    setup_logging()
    visualize(
        Path(args.detections),
        Path(args.output_dir),
        threshold=args.thresh,
        extension=args.output_ext,
        first=args.first,
        name=args.dataset,
        cfg_file=args.cfg,
        opts=opts,
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
