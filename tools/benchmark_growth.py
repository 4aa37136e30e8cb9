#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How time and memory grow with image size, batch, boxes per image, classes and data-set size, on one thread.

python tools/benchmark_growth.py [--axis image batch boxes classes data] [--out FOLDER] [--json FILE] [--quick]
    [--memory-seconds S]

With --out the axes that were measured there before stay, so that they can be measured one at a time.

Exit codes: 0 measured; 1 something grows faster than linearly that should not; 2 usage.
"""

import json
import logging
import os
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

from detectron_libra import cli, machine
from detectron_libra.builders.growth import page
from detectron_libra.builders.growth.measure import MEMORY_S
from detectron_libra.builders.growth.run import (
    AXES,
    as_json,
    faster_than_linear,
    from_json,
    measure_axes,
)
from detectron_libra.errors import InputError, LibraError, UsageError
from detectron_libra.evaluation.files import write_whole

NAME = "growth"


def main(argv: list[str]) -> None:
    """Measure what the command line asks for."""
    args = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    content = kept(args.out) if args.out else {}
    curves = measure_axes(args.axis, quick=args.quick, memory_s=args.memory_seconds)
    content |= as_json(curves, environment())
    every = from_json(content)
    print(page.markdown(content, every, NAME), end="")
    if args.json:
        write_json(args.json, content)
    if args.out:
        write(args.out, content)
    over = [] if args.quick else faster_than_linear(curves)
    if over:
        raise LibraError("\n".join(over))


def parse(argv: list[str]):
    """The options, checked before anything is measured."""
    parser = cli.Parser(description="Measures how time and memory grow with the size of the work.")
    parser.add_argument(
        "--axis",
        nargs="*",
        default=list(AXES),
        metavar="NAME",
        help=f"some of {', '.join(AXES)}; by default all",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="table, plots and figures go there")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--quick", action="store_true", help="few small sizes, once: whether it works")
    parser.add_argument(
        "--memory-seconds",
        type=float,
        default=MEMORY_S,
        metavar="S",
        help="count the memory of what takes no longer, since counting takes several times as long",
    )
    args, pairs = cli.parse(argv, parser)
    if pairs:
        raise UsageError(f"{pairs[0]}: the benchmark reads no configuration keys; --help lists its options")
    unknown = [name for name in args.axis if name not in AXES]
    if unknown or not args.axis:
        raise UsageError(f"--axis {' '.join(unknown)}: name some of {', '.join(AXES)}")
    return args


def environment() -> dict:
    """What the figures were measured on."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "commit": machine.commit(),
        "torch": torch.__version__,
        "cpu": machine.cpu_name(),
        "cores": machine.cores(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def kept(folder: Path) -> dict:
    """The figures of a folder; nothing where it has none.

    Raises:
        InputError: they cannot be read.
    """
    file = folder / NAME / f"{NAME}.json"
    if not file.is_file():
        return {}
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as e:
        raise InputError(f"{file}: cannot be read ({e}); remove it") from e


def write(folder: Path, content: dict) -> None:
    """FOLDER/growth/: figures, a table to be included in a page, and a plot per axis."""
    target = folder / NAME
    write_json(target / f"{NAME}.json", content)
    every = from_json(content)
    write_whole(target / "README.md", page.markdown(content, every, ".").encode())
    for axis, curves in every.items():
        write_whole(target / f"{axis}.svg", page.plot(curves, content[axis]["unit"]).encode())


def write_json(file: Path, content: dict) -> None:
    """Indented."""
    write_whole(file, (json.dumps(content, indent=1) + "\n").encode())


if __name__ == "__main__":
    sys.exit(cli.run(main))
