# SPDX-License-Identifier: Apache-2.0
"""Check data sets before training: every fault of the annotations and of the images at once, by file and id.

python tools/check_data.py --cfg configs/bccd/retinanet.yaml
python tools/check_data.py IMAGES ANNOTATIONS
python tools/check_data.py IMAGES ANNOTATIONS --fix REPAIRED.json
"""

import sys

from detectron_libra import cli, logs
from detectron_libra.builders import check_data
from detectron_libra.builders.sets import Surveyed, survey_sets
from detectron_libra.config import load_config
from detectron_libra.data.check import survey_coco
from detectron_libra.errors import InputError, UsageError
from detectron_libra.geometry import GEOMETRIES

EXTENT = GEOMETRIES["detectron"].extent


def main(argv: list[str]) -> None:
    """Check what the command line names."""
    parser = cli.Parser(description="Check data sets: entries, boxes, categories, and every image.")
    parser.add_argument(
        "--cfg", metavar="FILE", help="check TRAIN.DATASETS and TEST.DATASETS of this YAML file"
    )
    parser.add_argument(
        "--quick", action="store_true", help="read header and end of the images, decode what looks cut"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that read images")
    parser.add_argument("--json", action="store_true", help="tell everything as one JSON object")
    parser.add_argument(
        "--fix", metavar="OUT", help="write a repaired copy of ANNOTATIONS here, and check that"
    )
    parser.add_argument("paths", nargs="*", metavar="IMAGES ANNOTATIONS", help="image folder and COCO JSON")
    args, opts = cli.parse(argv, parser)
    if not args.json:  # which is then alone on stdout
        logs.setup_logging()
    level = "quick" if args.quick else "full"
    if args.cfg and not args.paths and not args.fix:
        opts = [*opts, "DATA.CHECK", level, "DATA.WORKERS", str(args.workers)]
        found = survey_sets(load_config(args.cfg, opts))
    elif len(args.paths) == 2 and not args.cfg and not opts:
        images, annotations = args.paths
        if args.fix:
            lines = check_data.write_repaired(
                images, annotations, args.fix, extent=EXTENT, level=level, workers=args.workers
            )
            print("\n".join(lines), file=sys.stderr if args.json else sys.stdout)
        found = [survey(images, args.fix or annotations, level, args.workers)]
    else:
        raise UsageError("want either --cfg FILE, or IMAGES ANNOTATIONS with or without --fix OUT")
    print(check_data.as_json(found) if args.json else "\n".join(check_data.as_lines(found)))
    check_data.require_sound(found)


def survey(images: str, annotations: str, level: str, workers: int) -> Surveyed:
    """A COCO data set that no configuration names."""
    try:
        dataset = survey_coco("data", images, annotations, extent=EXTENT, level=level, workers=workers)
    except InputError as e:
        return Surveyed("data", "", None, e)
    return Surveyed("data", "", dataset)


if __name__ == "__main__":
    sys.exit(cli.run(main))
