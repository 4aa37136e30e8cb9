# SPDX-License-Identifier: Apache-2.0
"""Images and annotations: read, checked, changed and put into batches."""
