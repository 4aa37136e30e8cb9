#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write report.html of a training again, from what lies in its folder: curves, tables, pictures, configuration.

python tools/report.py out/mine/train/bccd_train/retinanet
"""

import sys
from pathlib import Path

from detectron_libra import cli
from detectron_libra.builders.run_report import find_run, write_report
from detectron_libra.errors import UsageError
from detectron_libra.logs import setup_logging


def main(argv: list[str]) -> int | None:
    """Write the report of the run that the command line names."""
    parser = cli.Parser(description="Write report.html of a training again, from what lies in its folder.")
    parser.add_argument("run_folder", help="folder of a training, or an OUTPUT_DIR with a single one")
    if not argv:
        parser.print_help()
        return UsageError.exit_code
    args = parser.parse_args(argv)
    setup_logging()
    print(write_report(find_run(Path(args.run_folder))))
    return 0


if __name__ == "__main__":
    sys.exit(cli.run(main))
