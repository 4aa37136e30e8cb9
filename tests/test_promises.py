# SPDX-License-Identifier: Apache-2.0
"""Documents that name tests name tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: `tests/a/test_b.py::test_c`, and further `test_d` of the same file.
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`((?:, `test_\w+`)*)")


@pytest.mark.parametrize("document", ["SECURITY.md", "docs/reliability.md"])
def test_every_test_that_a_document_names_exists(document):
    found = NAMED.findall((ROOT / document).read_text())
    assert len(found) > 5
    for file, first, others in found:
        source = (ROOT / file).read_text()
        for name in [first, *re.findall(r"test_\w+", others)]:
            assert not name or f"\ndef {name}(" in source, f"{document}: {file}::{name}"
