# SPDX-License-Identifier: Apache-2.0
"""Measurements of imbalance: of a data set, of what is sampled from it, of features, and of the parts of the loss."""
