# SPDX-License-Identifier: Apache-2.0
"""The operators, a folder each: public function, registration of the kernels, plain-PyTorch definition."""
