#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write weights in another format: from any kind that is read to .safetensors, Detectron's .pkl, or a checkpoint (.pt).

python tools/convert_weights.py model_final.pkl mine.safetensors
python tools/convert_weights.py out/mine/train/.../model_iter999.pt model_iter999.pkl
"""

import sys

from detectron_libra import cli
from detectron_libra.builders.convert import convert
from detectron_libra.config import load_config
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> None:
    """Convert what the command line names."""
    parser = cli.Parser(
        description="Write weights in another format. What IN is, its content says: .safetensors and .pt of ours, .pkl "
        "of Detectron and detectron2, .pth of mmdetection, torchvision and detectron2; what OUT is, its ending. "
        "KEY VALUE pairs override the configuration."
    )
    parser.add_argument(
        "--cfg", metavar="FILE", help="configuration of the weights; by default the one in IN"
    )
    parser.add_argument(
        "--iteration",
        metavar="N",
        type=int,
        help="last iteration of the training, where IN does not say it (.pt)",
    )
    parser.add_argument("input", metavar="IN", help="path or address of the weights")
    parser.add_argument("output", metavar="OUT", help=".safetensors, .pkl or .pt")
    args, opts = cli.parse(argv, parser)
    if args.iteration is not None and args.iteration < 0:
        parser.error(f"--iteration {args.iteration}: iterations are counted from 0")
    setup_logging()
    cfg = load_config(args.cfg) if args.cfg else None
    print(convert(args.input, args.output, cfg=cfg, opts=opts, iteration=args.iteration))


if __name__ == "__main__":
    sys.exit(cli.run(main))
