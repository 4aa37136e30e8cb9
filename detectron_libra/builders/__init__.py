# SPDX-License-Identifier: Apache-2.0
"""Configuration to everything: the only package that knows keys and modules both."""
