#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
r"""Detect objects in an image or in all images of a folder: pictures with boxes, and detections.json.

    python tools/infer_simple.py --wts out/quickstart/train/shapes_train/retinanet/model_final.safetensors \
        --output-dir out/pictures image_or_folder
"""

import logging
import sys

from detectron_libra import cli
from detectron_libra.builders.predict import load
from detectron_libra.builders.predict_files import predict_files
from detectron_libra.config import load_config
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> int | None:
    """Detect in what the command line names."""
    parser = cli.Parser(description="Detect objects in an image, or in all images of a folder.")
    parser.add_argument("--cfg", metavar="FILE", help="configuration; by default the one inside the weights")
    parser.add_argument(
        "--wts",
        metavar="FILE",
        required=True,
        help="weights (path or address), or the output folder of a run",
    )
    parser.add_argument("--output-dir", metavar="DIR", default="out/infer_simple", help="where pictures go")
    parser.add_argument(
        "--image-ext", metavar="EXT", default="", help="only files with this ending; '': all images"
    )
    parser.add_argument("--output-ext", default="png", choices=("png", "jpg", "pdf"), help="kind of pictures")
    parser.add_argument(
        "--always-out", action="store_true", help="write a picture even where nothing was found"
    )
    parser.add_argument("--thresh", type=float, default=0.7, help="lowest score of a box that is drawn")
    parser.add_argument("--kp-thresh", type=float, help="of Detectron's keypoints; without effect")
    parser.add_argument("im_or_folder", help="image or folder")
    args, opts = cli.parse(argv, parser)
    setup_logging()
    if args.kp_thresh is not None:
        logging.getLogger(__name__).warning("--kp-thresh: without effect: there are no keypoints here")
    predictor = load(args.wts, cfg=load_config(args.cfg) if args.cfg else None, opts=opts, key="--wts")
    predict_files(
        predictor,
        args.im_or_folder,
        args.output_dir,
        extension=args.image_ext,
        threshold=args.thresh,
        picture_extension=args.output_ext,
        always=args.always_out,
    )
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
