# SPDX-License-Identifier: Apache-2.0
"""What turns levels and regions into scores and boxes."""
