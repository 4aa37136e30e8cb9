# SPDX-License-Identifier: Apache-2.0
"""How time and memory grow with the size of the work: what `tools/benchmark_growth.py` measures."""
