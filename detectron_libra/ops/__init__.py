# SPDX-License-Identifier: Apache-2.0
"""The operators, a folder each: the public function, its kernels' registration, and the plain-PyTorch definition."""
