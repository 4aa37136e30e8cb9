# SPDX-License-Identifier: Apache-2.0
"""Settings without which a detector trains at a fraction of the speed on a CPU."""

from __future__ import annotations

import ctypes
import os

import torch

# glibc's malloc.h
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
# Larger than any tensor of a step, within a C int.
KEEP_BELOW = 2**31 - 1
GROW_BY = 64 * 2**20


def tune_cpu(*, threads: int = 0, flush_denormal: bool = True, tune_malloc: bool = True) -> str:
    """Sets threads, denormals and the allocator of this process; call it before the first tensor is computed.

    Args:
        threads: of PyTorch; 0: its own choice.
        flush_denormal: tiny numbers count as zero. Fresh detectors reach the range where one operator can
            take ten times as long.
        tune_malloc: freed memory stays with the process, so that the next step does not fault it in again.

    Returns:
        One line for the log.
    """
    words = []
    # First: threads that start later inherit the flag, those that already run do not.
    if flush_denormal:
        done = torch.set_flush_denormal(True)
        words.append("denormals flushed" if done else "denormals kept (the processor cannot flush them)")
    if threads > 0:
        torch.set_num_threads(threads)
    if tune_malloc:
        words.append("freed memory kept" if _keep_freed_memory() else "allocator as it is (not glibc)")
    return ", ".join([f"cpu: {torch.get_num_threads()} threads", *words])


def _keep_freed_memory() -> bool:
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        is_glibc = False
    if not is_glibc:
        return False
    options = ((M_MMAP_THRESHOLD, KEEP_BELOW), (M_TRIM_THRESHOLD, KEEP_BELOW), (M_TOP_PAD, GROW_BY))
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, value) == 1 for option, value in options)
