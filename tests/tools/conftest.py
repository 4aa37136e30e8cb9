# SPDX-License-Identifier: Apache-2.0
"""Fresh configurations."""

import pytest


@pytest.fixture
def config(trained, tmp_path):
    """The tiny configuration with an output folder of its own, and the shapes of ``trained``."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {trained.config}\nOUTPUT_DIR: {tmp_path / 'out'}\n")
    return file
