# SPDX-License-Identifier: Apache-2.0
"""Which implementation an operator uses: the compiled kernels or its plain-PyTorch reference.

`auto` takes the kernels wherever they are built and know the tensor's device, `compiled` refuses to run
without them, `reference` never uses them.
"""

from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor

from detectron_libra.errors import UsageError

BACKENDS = ("auto", "compiled", "reference")
_HOW_TO_BUILD = "`make build` compiles the kernels"


def _load() -> str | None:
    """Loads the kernel library, which registers torch.ops.detectron_libra. Returns why not, None when it did."""
    library = Path(__file__).resolve().parent.parent / "_C.abi3.so"
    if not library.exists():
        return "not built"
    try:
        import_module("detectron_libra._C")
    except ImportError as error:
        return f"{library.name} does not load ({str(error).splitlines()[0]})"
    return None


def _devices_with_kernels() -> frozenset[str]:
    """Device types ("cpu", "cuda") for which the loaded library has kernels."""
    found = set()
    for key in ("CPU", "CUDA"):
        names = torch._C._dispatch_get_registrations_for_dispatch_key(key)
        if any(name.startswith("detectron_libra::") for name in names):
            found.add(key.lower())
    return frozenset(found)


_WHY_NOT = _load()
_DEVICES = _devices_with_kernels() if _WHY_NOT is None else frozenset()
_backend = "auto"


def is_built() -> bool:
    """Whether the kernel library is there and loaded."""
    return _WHY_NOT is None


def set_backend(name: str) -> None:
    """Chooses the implementation for the whole process: "auto", "compiled" or "reference".

    Raises: UsageError for another name, and for "compiled" where the kernels are not built.
    """
    global _backend  # noqa: PLW0603  one switch a process, as OPS.BACKEND is one key
    if name not in BACKENDS:
        raise UsageError(f"OPS.BACKEND: {name!r} is not one of {', '.join(BACKENDS)}")
    if name == "compiled" and not is_built():
        raise UsageError(f"OPS.BACKEND: compiled, but the kernels are {_WHY_NOT}; {_HOW_TO_BUILD}")
    _backend = name


def get_backend() -> str:
    """The name last given to set_backend, "auto" at the start."""
    return _backend


def use_compiled(tensor: Tensor) -> bool:
    """Whether an operator on this tensor runs the kernel rather than the reference.

    Raises: UsageError under "compiled" where the tensor's device has no kernel.
    """
    has_kernel = tensor.device.type in _DEVICES
    if _backend == "compiled" and not has_kernel:
        raise UsageError(
            f"OPS.BACKEND: compiled, but there are no kernels for {tensor.device.type}; {_HOW_TO_BUILD}"
        )
    return has_kernel and _backend != "reference"


def describe() -> str:
    """One line for the log and for tools/doctor.py: what runs the operators."""
    if _WHY_NOT is not None:
        reason = "" if _WHY_NOT == "not built" else f" ({_WHY_NOT})"
        return f"operators: plain PyTorch reference{reason}; {_HOW_TO_BUILD}"
    if _backend == "reference":
        return "operators: plain PyTorch reference, as OPS.BACKEND asks"
    if torch.cuda.is_available() and "cuda" not in _DEVICES:
        return f"operators: compiled (cpu), plain PyTorch reference on cuda; {_HOW_TO_BUILD}"
    return f"operators: compiled ({', '.join(sorted(_DEVICES))})"
