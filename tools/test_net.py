#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Test weights on TEST.DATASETS.

python tools/test_net.py --cfg configs/bccd/libra_retinanet.yaml TEST.WEIGHTS out/mine/train/.../model_final.safetensors
"""

import sys

from detectron_libra import cli
from detectron_libra.builders.testing import test
from detectron_libra.config import load_config
from detectron_libra.errors import UsageError
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> int | None:
    """Test the weights that the command line names."""
    parser = cli.Parser(
        description="Test weights on TEST.DATASETS. KEY VALUE pairs override the file's values."
    )
    parser.add_argument("--cfg", metavar="FILE", help="configuration, YAML")
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args, opts = cli.parse(argv, parser)
    cfg = load_config(args.cfg, opts)
    if not cfg.TEST.WEIGHTS:
        raise UsageError("TEST.WEIGHTS: no weights to test; give the path of a model_final.safetensors")
    setup_logging()
    test(cfg, cfg.TEST.WEIGHTS)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
