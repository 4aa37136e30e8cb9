#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write PASCAL VOC annotations as a COCO JSON that DATASETS can name.

python tools/voc_to_coco.py BCCD/Annotations train.json --split BCCD/ImageSets/Main/train.txt
"""

import sys
from pathlib import Path

from detectron_libra import cli
from detectron_libra.data.voc import convert
from detectron_libra.errors import InputError
from detectron_libra.evaluation.results import write_json


def main(argv: list[str]) -> None:
    """Convert what the command line names."""
    parser = cli.Parser(description="Write PASCAL VOC annotations as a COCO JSON.")
    parser.add_argument(
        "--split", metavar="FILE", help="text file with one image name per line; all by default"
    )
    parser.add_argument(
        "--classes", metavar="NAMES", default="", help="class names in order, joined by commas"
    )
    parser.add_argument("annotations", help="folder of the XML files")
    parser.add_argument("output", help="JSON file to write")
    args, opts = cli.parse(argv, parser)
    if opts:
        parser.error(f"{opts[0]}: this tool has no configuration")
    names = None
    if args.split:
        try:
            names = [line.split()[0] for line in Path(args.split).read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as e:
            raise InputError(f"{args.split}: cannot be read ({e})") from e
    content = convert(args.annotations, names, [c for c in args.classes.split(",") if c])
    write_json(args.output, content)
    counts = {key: len(content[key]) for key in ("images", "annotations", "categories")}
    print(f"{args.output}: {', '.join(f'{n} {key}' for key, n in counts.items())}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
