# SPDX-License-Identifier: Apache-2.0
"""Check data sets before training: every fault of the annotations and of the images at once, by file and id.

python tools/check_data.py --cfg configs/bccd/retinanet.yaml
python tools/check_data.py IMAGES ANNOTATIONS
"""

import sys

from detectron_libra import cli, logs
from detectron_libra.builders import data as build_data
from detectron_libra.config import load_config
from detectron_libra.data.check import load_checked
from detectron_libra.data.coco import Dataset
from detectron_libra.errors import InputError, UsageError
from detectron_libra.geometry import GEOMETRIES


def main(argv: list[str]) -> None:
    """Check what the command line names."""
    parser = cli.Parser(description="Check data sets: entries, boxes, categories, and every image.")
    parser.add_argument(
        "--cfg", metavar="FILE", help="check TRAIN.DATASETS and TEST.DATASETS of this YAML file"
    )
    parser.add_argument("--quick", action="store_true", help="read the headers of the images only")
    parser.add_argument("--workers", type=int, default=2, help="threads that decode images")
    parser.add_argument("paths", nargs="*", metavar="IMAGES ANNOTATIONS", help="image folder and COCO JSON")
    args, opts = cli.parse(argv, parser)
    logs.setup_logging()
    level = "quick" if args.quick else "full"
    if args.cfg and not args.paths:
        check_config(args.cfg, [*opts, "DATA.CHECK", level, "DATA.WORKERS", str(args.workers)])
    elif len(args.paths) == 2 and not args.cfg and not opts:
        images, annotations = args.paths
        extent = GEOMETRIES["detectron"].extent
        tell(load_checked("data", images, annotations, extent=extent, level=level, workers=args.workers))
    else:
        raise UsageError("want either --cfg FILE or IMAGES ANNOTATIONS")


def check_config(file: str, opts: list[str]) -> None:
    """Check every data set of a configuration, the later ones too when an earlier one has faults.

    Raises:
        InputError: one line per faulty set.
    """
    cfg = load_config(file, opts)
    names: tuple[str, ...] | None = None
    wrong: list[str] = []
    todo = {name: name in cfg.TRAIN.DATASETS for name in (*cfg.TRAIN.DATASETS, *cfg.TEST.DATASETS)}
    for name, training in todo.items():
        try:
            dataset = build_data.load_dataset(cfg, name, class_names=names, training=training)
        except InputError as e:
            wrong.append(str(e))
            continue
        names = names or dataset.class_names
        tell(dataset)
    if wrong:
        raise InputError("\n".join(wrong))


def tell(dataset: Dataset) -> None:
    """One line: how much there is of what."""
    counts = dict.fromkeys(dataset.class_names, 0)
    for record in dataset.records:
        for c in record.classes[~record.crowd].tolist():
            counts[dataset.class_names[c - 1]] += 1
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    total = sum(counts.values())
    print(f"{dataset.annotation_file}: {len(dataset.records)} images, {total} boxes: {listed}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
