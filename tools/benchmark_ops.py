# SPDX-License-Identifier: Apache-2.0
"""How fast the operators are: against eager PyTorch, torch.compile, torchvision's kernels, and the memory.

python tools/benchmark_ops.py [--device cpu|cuda] [--op NAME] [--threads N] [--json FILE] [--full]

A table to stdout, progress and warnings to stderr. Exit codes: 0 measured; 1 a kernel computes something wrong
(it is not timed, the others are); 2 usage.
"""

import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

# Before torch: its profiler reports each of its starts otherwise, and a compilation that is given up would leave
# workers behind.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

import torch
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from detectron_libra import cli
from detectron_libra.benchmarks import cases
from detectron_libra.benchmarks.case import Setup
from detectron_libra.benchmarks.environment import environment, page_faults
from detectron_libra.benchmarks.floor import Machine, measure_machine
from detectron_libra.benchmarks.run import Outcome, run_cases
from detectron_libra.benchmarks.table import markdown
from detectron_libra.engine.cpu import tune_cpu
from detectron_libra.errors import LibraError, UsageError
from detectron_libra.files import atomic_write
from detectron_libra.ops import backend

#: The default run has to end within 12 minutes; a case that has begun may take one.
LIMIT_MINUTES, FULL_MINUTES = 11.0, 240.0


def main(argv: list[str]) -> None:
    """Measure what the command line asks for."""
    args = parse(argv)
    tuned = tune_cpu(threads=args.threads)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    torch._logging.set_logs(all=logging.ERROR)  # where it cannot follow the code is no news here
    setup = Setup(device=args.device, full=args.full, quick=args.quick)
    plan = cases.plan(args.op or cases.NAMES, setup)
    if not backend.is_built():
        logging.warning("no kernels: 'ours' is the reference. %s", backend.describe())
    faults = page_faults()
    machine = measure_machine(setup.device, quick=setup.quick)
    minutes = args.minutes or (FULL_MINUTES if args.full else LIMIT_MINUTES)
    bar = tqdm(total=len(plan), unit="case", disable=not sys.stderr.isatty())
    with bar, logging_redirect_tqdm():
        outcome = run_cases(
            plan, setup, machine, limit_s=60 * minutes, compiles=not args.no_compile, progress=bar.update
        )
    machine = settle_floor(outcome, machine, setup)
    env = environment(setup.device, machine, allocator=tuned) | {"page_faults": page_faults() - faults}
    tell(outcome, env)
    if args.json:
        content = {"env": env, "rows": [row.as_json() for row in outcome.rows], "left_out": outcome.left_out}
        atomic_write(args.json, (json.dumps(content, indent=1) + "\n").encode())
    if outcome.wrong:
        raise LibraError(*outcome.wrong)


def parse(argv: list[str]):
    """The options, checked before anything is measured."""
    parser = cli.Parser(description="Times the operators; refuses to time a wrong one.")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--op", action="append", choices=cases.NAMES, help="this one only; may be repeated")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch; 0: its own choice")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there too")
    parser.add_argument("--full", action="store_true", help="every size, layout and dtype")
    parser.add_argument(
        "--quick", action="store_true", help="tiny sizes: a test of this tool, no measurement"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile")
    parser.add_argument("--minutes", type=float, help="begin nothing after so long (default: 11; --full 240)")
    args, pairs = cli.parse(argv, parser)
    if pairs:
        raise UsageError(f"{pairs[0]}: the benchmark reads no configuration keys; --help lists its options")
    if args.threads < 0:
        raise UsageError(f"--threads {args.threads}: must be 0 or more")
    if args.minutes is not None and not args.minutes > 0:
        raise UsageError(f"--minutes {args.minutes}: must be more than 0")
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no GPU; use --device cpu")
    if args.json:
        cli.check_writable("--json", args.json)
    return args


def settle_floor(outcome: Outcome, before: Machine, setup: Setup) -> Machine:
    """The rates measured once more at the end: the better ones count, and a machine that changed is told."""
    after = measure_machine(setup.device, quick=setup.quick)
    if abs(after.copy / before.copy - 1) > 0.1:
        logging.warning(
            "unsteady machine: copies ran at %.1f GB/s before and %.1f GB/s after the measurements",
            before.copy / 1e9,
            after.copy / 1e9,
        )
    best = Machine(*(max(getattr(before, n), getattr(after, n)) for n in ("copy", "copy_in_cache", "flops")))
    outcome.rows[:] = [replace(row, floor_s=best.floor(row.bytes, row.flops)) for row in outcome.rows]
    return best


def tell(outcome: Outcome, env: dict) -> None:
    """The table, and above it what it was measured on."""
    device = env.get("cuda_device", env["cpu"])
    print(
        f"{device}, {env['threads']} threads, torch {env['torch']}, commit {env['commit']}; copy "
        f"{env['copy_bytes_per_s'] / 1e9:.1f} GB/s ({env['copy_in_cache_bytes_per_s'] / 1e9:.1f} in cache), "
        f"{env['flops_per_s'] / 1e9:.0f} GFLOP/s; load {env['load_average']}; "
        f"{env['page_faults']} page faults; {env['allocator']}; {env['operators']}; peer: {env['peer']}\n"
    )
    print(markdown(outcome.rows))
    for title in outcome.left_out:
        print(f"left out: {title}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(cli.run(main))
