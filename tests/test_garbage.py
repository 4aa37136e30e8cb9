# SPDX-License-Identifier: Apache-2.0
"""The collector while annotation files are read: it does not run, and is on again whatever happens."""

import gc
import json

import pytest

from detectron_libra.data.json_file import read_json
from detectron_libra.errors import InputError
from detectron_libra.garbage import collector_paused


@pytest.fixture
def collections():
    """Generations that were collected."""
    seen = []

    def note(phase, info):
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(note)
    yield seen
    gc.callbacks.remove(note)


def test_a_file_is_read_without_a_collection_however_large_it_is(tmp_path, collections):
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"annotations": [{"id": k, "bbox": [k, 1, 2, 3]} for k in range(20_000)]}))
    json.loads(file.read_text())
    assert collections
    collections.clear()
    assert len(read_json(str(file), leave_out=("segmentation",))["annotations"]) == 20_000
    assert len(collections) <= 1 and gc.isenabled()


def test_the_collector_is_on_after_an_error_and_stays_off_where_it_was(tmp_path):
    file = tmp_path / "a.json"
    file.write_text("{")
    with pytest.raises(InputError):
        read_json(str(file))
    assert gc.isenabled()
    with collector_paused():
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
