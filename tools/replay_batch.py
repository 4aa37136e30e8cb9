#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run a training step that was not finite again, and say where its numbers go wrong.

python tools/replay_batch.py out/mine/train/bccd_train/retinanet/nonfinite_iter123.pt TRAIN.PRECISION fp32
"""

import sys
from pathlib import Path

from detectron_libra import cli
from detectron_libra.builders.replay import replay_batch
from detectron_libra.errors import UsageError
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> int | None:
    """Replay the file that the command line names."""
    parser = cli.Parser(
        description="Run a training step that was not finite again. KEY VALUE pairs override the configuration."
    )
    parser.add_argument("--weights", metavar="FILE", type=Path, help="use these instead of the step's own")
    parser.add_argument("file", type=Path, help="nonfinite_iter<N>.pt, which a training wrote")
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    setup_logging()
    for line in replay_batch(args.file, opts, args.weights):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
