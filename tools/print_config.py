# SPDX-License-Identifier: Apache-2.0
"""Print a configuration as it will be used, where its values come from, or the reference of all keys.

python tools/print_config.py --cfg configs/bccd/libra_retinanet.yaml --changed SOLVER.BASE_LR 0.01
"""

import sys

from detectron_libra import cli, logs
from detectron_libra.config import Config, diff, dump, load_config, load_with_origins
from detectron_libra.config.dump import markdown, show
from detectron_libra.config.fields import values_of


def main(argv: list[str]) -> None:
    """Print what the options ask for."""
    parser = cli.Parser(description="Print a configuration, or the reference of all keys.")
    parser.add_argument("--cfg", metavar="FILE", help="YAML file")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--changed", action="store_true", help="only what is no default, and where it was set")
    what.add_argument("--compare", metavar="FILE", help="the difference to another YAML file")
    what.add_argument("--markdown", action="store_true", help="the reference of all keys (docs/keys.md)")
    args, opts = cli.parse(argv, parser)
    logs.setup_logging()
    if args.markdown:
        print(markdown(), end="")
        return
    cfg, origins = load_with_origins(args.cfg, opts)
    if args.compare:
        print("\n".join(diff(load_config(args.compare), cfg) or ["no difference"]))
    elif args.changed:
        values = values_of(cfg)
        for line in diff(Config(), cfg):
            name = line.partition(":")[0]
            print(f"{name} {show(values[name])}  # {origins.get(name, 'inferred')}")
    else:
        print(dump(cfg), end="")


if __name__ == "__main__":
    sys.exit(cli.run(main))
