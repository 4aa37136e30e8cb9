# SPDX-License-Identifier: Apache-2.0
"""Pages for people: one HTML file that opens without a network or a script, with plots as inline SVG."""
