#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast a detector trains and tests, where the time goes and how much memory it takes, beside torchvision's.

python tools/benchmark_train.py --cfg configs/baselines/retinanet_R-50-FPN_1x.yaml --peer torchvision \
    --precision fp32,bf16 --image-size 320x320 --threads 2 MODEL.NUM_CLASSES 81

A table to stdout, progress and warnings to stderr. Exit codes as of all tools.
"""

import argparse
import json
import logging
import os
import re
import shlex
import sys
from pathlib import Path

# Before torch: its profiler reports each of its starts otherwise.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from detectron_libra import cli
from detectron_libra.builders.benchmark.plan import MODES, PAD_TO, PRECISIONS, TORCHVISION, Ask, Size
from detectron_libra.builders.benchmark.run import benchmark
from detectron_libra.builders.benchmark.table import text
from detectron_libra.config import Config, load_config, with_values
from detectron_libra.errors import UsageError
from detectron_libra.files import atomic_write

WARM_UPS, QUICK_WARM_UPS, QUICK_ROUNDS = 8, 1, 2


def main(argv: list[str]) -> int | None:
    """Measure what the command line asks for."""
    if not argv:
        parser().print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser())
    ask = asked(args, opts)
    for option in ("json", "trace"):
        if getattr(args, option):
            cli.check_writable(f"--{option}", getattr(args, option))
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    with (
        logging_redirect_tqdm(),
        tqdm(bar_format="{desc} [{elapsed}]", disable=not sys.stderr.isatty()) as bar,
    ):
        content = benchmark(ask, trace=args.trace, told=bar.set_description_str)
    print(text(content["env"], content["rows"], content["ratios"]))
    if args.json:
        atomic_write(args.json, (json.dumps(content, indent=1) + "\n").encode())
    return 0


def parser() -> cli.Parser:
    """The options."""
    p = cli.Parser(
        description="Images per second of training and testing, peak memory, and where the time goes. Each contender "
        "works in a process of its own, and they take turns. KEY VALUE pairs override the file's values."
    )
    p.add_argument("--cfg", metavar="FILE", help="configuration, YAML")
    p.add_argument("--peer", choices=[TORCHVISION], help="compare with its detector of the same kind")
    p.add_argument("--peer-tuned", action="store_true", help="the peer once more, with our process settings")
    p.add_argument(
        "--versus",
        action="append",
        default=[],
        metavar="'KEY VALUE ...'",
        help="compare with ours under other values too, such as --versus 'LIBRA.PYRAMID.ON True'; can be repeated",
    )
    p.add_argument("--device", choices=["auto", "cpu", "cuda"], help="where; default: DEVICE")
    p.add_argument(
        "--threads", type=_whole, metavar="N", help="of PyTorch; 0: its choice; default: CPU.THREADS"
    )
    p.add_argument("--precision", type=_words(PRECISIONS), metavar="P,P", help="fp32, bf16 or both")
    p.add_argument("--mode", type=_words(MODES), default=MODES, metavar="M,M", help="train, test or both")
    p.add_argument(
        "--image-size", type=_size, metavar="HxW", help="of generated images; default: as the scales"
    )
    p.add_argument("--boxes", type=_count, default=8, metavar="N", help="in each generated image")
    p.add_argument("--pad-to", type=_count, default=PAD_TO, metavar="N", help="sides become multiples of it")
    p.add_argument(
        "--score-thresh", type=float, metavar="S", help="of detections; default: the configuration's"
    )
    p.add_argument(
        "--data", action="store_true", help="ours on the data of the configuration too, with its loader"
    )
    p.add_argument("--rounds", type=_whole, default=0, metavar="N", help="turns of each; 0: about a minute")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    p.add_argument("--trace", type=Path, metavar="FILE", help="write a Chrome trace of ours there")
    p.add_argument("--quick", action="store_true", help="few steps: a test of this tool, no measurement")
    return p


def asked(args: argparse.Namespace, opts: list[str]) -> Ask:
    """The options and the configuration, checked before anything is measured."""
    if args.peer_tuned and not args.peer:
        raise UsageError("--peer-tuned: there is no peer; add --peer torchvision")
    cfg = configured(args, opts)
    return Ask(
        cfg,
        versus=tuple((text, configured(args, [*opts, *words_of(text)])) for text in args.versus),
        peer=args.peer or "",
        tuned=args.peer_tuned,
        modes=args.mode,
        precisions=args.precision or (cfg.TRAIN.PRECISION,),
        size=args.image_size,
        boxes=args.boxes,
        pad_to=args.pad_to,
        loader=args.data,
        warm_ups=QUICK_WARM_UPS if args.quick else WARM_UPS,
        rounds=args.rounds or (QUICK_ROUNDS if args.quick else 0),
    )


def configured(args: argparse.Namespace, opts: list[str]) -> Config:
    """The file, the KEY VALUE pairs, and the options that stand for keys."""
    values = {"DEVICE": args.device, "CPU.THREADS": args.threads}
    values |= dict.fromkeys(("RETINANET.INFERENCE_TH", "TEST.SCORE_THRESH"), args.score_thresh)
    given = {key: value for key, value in values.items() if value is not None}
    return with_values(load_config(args.cfg, opts), given, "option")


def words_of(text: str) -> list[str]:
    """KEY VALUE pairs in one argument, as a shell would split them."""
    try:
        words = shlex.split(text)
    except ValueError as e:
        raise UsageError(f"--versus {text!r}: {e}; write 'KEY VALUE KEY VALUE'") from None
    if not words or len(words) % 2:
        raise UsageError(f"--versus {text!r}: no pairs of KEY and VALUE; write 'LIBRA.PYRAMID.ON True'")
    return words


def _words(known: tuple[str, ...]):
    """Some of these words, separated by commas, each once, in the order of ``known``."""

    def parse(text: str) -> tuple[str, ...]:
        words = text.split(",")
        wrong = [word for word in words if word not in known]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is not one of {', '.join(known)}")
        return tuple(word for word in known if word in words)

    return parse


def _size(text: str) -> Size:
    match = re.fullmatch(r"([1-9]\d*)[xX]([1-9]\d*)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no HEIGHTxWIDTH in pixels, such as 320x320")
    return Size(int(match[1]), int(match[2]))


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(cli.run(main))
