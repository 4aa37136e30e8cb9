# SPDX-License-Identifier: Apache-2.0
"""How fast the operators are: against eager PyTorch, torch.compile, a peer's kernel, and the floor of the memory."""
