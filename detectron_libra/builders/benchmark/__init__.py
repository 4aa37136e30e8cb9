# SPDX-License-Identifier: Apache-2.0
"""How fast whole detectors train and test, beside a peer: what `tools/benchmark_train.py` does."""
