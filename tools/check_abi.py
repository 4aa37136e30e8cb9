# SPDX-License-Identifier: Apache-2.0
"""Fails where the operators' library needs a C++ symbol of torch: those change from version to version.

What the stable ABI offers are C functions (aoti_torch_*, torch_*), which stay.
Arguments: libraries (default: detectron_libra/_C.abi3.so).
Exit codes: 0 none; 1 there are some; 2 no library or no nm.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "detectron_libra" / "_C.abi3.so"
PRIVATE = re.compile(r"(?<!\w)(at|c10|torch)::")


def main(arguments: list[str]) -> int:
    for library in [Path(a) for a in arguments] or [LIBRARY]:
        try:
            needed = undefined(library)
        except OSError as e:
            print(f"check_abi: {e}", file=sys.stderr)
            return 2
        private = [name for name in needed if PRIVATE.search(name)]
        for name in private:
            print(f"{library.name} needs {name}")
        shims = sum(name.startswith(("aoti_torch_", "torch_")) for name in needed)
        print(
            f"check_abi: {library.name}: {len(needed)} undefined symbols, {shims} of torch's C interface, "
            f"{len(private)} of at::, c10:: or torch::"
        )
        if private:
            return 1
    return 0


def undefined(library: Path) -> list[str]:
    """Demangled names that the library leaves to others.

    Raises: OSError where the file or nm is missing, or the file is no library.
    """
    if not library.is_file():
        raise OSError(f"no {library.name}; `make build` compiles it")
    done = subprocess.run(
        ["nm", "-D", "--undefined-only", "-C", str(library)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(done.stderr.strip())
    return [
        line.strip().partition(" ")[2] for line in done.stdout.splitlines() if line.strip()[:1] in ("U", "w")
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
