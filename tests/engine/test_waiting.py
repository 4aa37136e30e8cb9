# SPDX-License-Identifier: Apache-2.0
"""The sentence about a loader that did not keep up: when it is said, its numbers, and what it recommends."""

from dataclasses import replace

import pytest

from detectron_libra.engine.waiting import FEWEST, GIB, LIMIT, SKIPPED, Reading, Waiting, remedies, verdict
from tests.engine.toy import run

FACTS = Reading(
    workers=4,
    cores=16,
    busy=1,
    cache="none",
    capacity=2 * GIB,
    free_memory=100 * GIB,
    decoded=GIB // 2,
    epochs=10.0,
    reader="pillow",
    faster="",
    package="simplejpeg",
    jpegs=True,
    reducible=False,
    draft=True,
)


def waited(share, steps=100, images=8, seconds=0.5):
    waiting = Waiting()
    for step in range(SKIPPED + steps):
        slow = step < SKIPPED  # must not count
        waiting.add(
            step, images=images, seconds=60 if slow else seconds, waited=50 if slow else share * seconds
        )
    return waiting


def advice(**changes):
    return "; ".join(remedies(replace(FACTS, **changes), 0.5))


def test_it_has_the_share_both_rates_and_what_to_change():
    text = verdict(waited(0.36), FACTS)
    assert text.startswith("the loader was the bottleneck: 36% of the time")
    assert "16.0 images/s came" in text and "could take 25.0" in text
    assert "raise DATA.WORKERS (or DATA_LOADER.NUM_THREADS) from 4 to 8" in text
    assert "set DATA.CACHE ram (the decoded images take 0.5 GiB)" in text
    assert "set DATA.READER simplejpeg (pip install simplejpeg)" in text and "\n" not in text


def test_nothing_is_said_where_the_loader_kept_up_or_little_was_seen():
    assert verdict(waited(LIMIT - 0.01), FACTS) == "" != verdict(waited(LIMIT + 0.01), FACTS)
    assert verdict(waited(0.5, steps=FEWEST - 1), FACTS) == "" != verdict(waited(0.5, steps=FEWEST), FACTS)
    assert Waiting().share is None


def test_a_model_that_takes_no_time_has_no_rate():
    assert "the model took no time" in verdict(waited(1.0), FACTS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "from 4 to 9"),
        ({"workers": 12}, "from 12 to 15"),
        ({"workers": 15}, None),
        ({"busy": 14}, None),
        ({"workers": 0}, "set DATA.WORKERS 4, which read while the model computes"),
        ({"workers": 0, "cores": 2, "busy": 2}, "set DATA.WORKERS 1, "),
    ],
)
def test_workers_are_recommended_where_cores_are_free(changes, words):
    text = advice(**changes)
    assert words in text if words else "WORKERS" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"decoded": GIB}, "set DATA.CACHE ram (the decoded images take 1 GiB)"),
        ({"decoded": 10 * GIB}, "set DATA.CACHE ram and DATA.CACHE_GB 10 (the"),
        ({"decoded": 80 * GIB}, "set DATA.CACHE disk and DATA.CACHE_GB 80 (the"),
        ({"decoded": GIB, "free_memory": GIB}, "set DATA.CACHE disk and DATA.CACHE_GB 1 (the"),
        ({"decoded": 3 * GIB, "cache": "ram"}, "set DATA.CACHE ram and DATA.CACHE_GB 3 (the"),
        ({"cache": "ram"}, None),
        ({"cache": "disk"}, None),
        ({"epochs": 1.0}, None),
    ],
)
def test_a_cache_is_recommended_where_images_come_again(changes, words):
    text = advice(**changes)
    assert words in text if words else "CACHE" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"faster": "simplejpeg"}, "set DATA.READER simplejpeg (is installed)"),
        ({"reader": "simplejpeg"}, None),
        ({"jpegs": False}, None),
        ({"cache": "ram"}, None),
        ({"cache": "ram", "decoded": 9 * GIB}, "set DATA.READER"),
        ({"reducible": True, "draft": False}, "set DATA.DRAFT True"),
        ({"reducible": True, "draft": True}, "BOX_GEOMETRY continuous"),
        ({"reducible": True, "jpegs": False}, None),
    ],
)
def test_decoding_is_made_faster_where_decoding_is_what_takes_time(changes, words):
    text = advice(**changes)
    assert words in text if words else not {"DATA.READER", "DATA.DRAFT", "BOX_GEOMETRY"} & set(text.split())


def test_there_is_always_something_to_do():
    assert remedies(replace(FACTS, workers=15, cache="ram"), 0.5) == [
        "store the images at about the size that they are trained at, or use more cores"
    ]


def test_the_training_tells_of_each_step(tmp_path):
    waiting = Waiting()
    run(tmp_path, max_iter=SKIPPED + FEWEST + 1, waiting=waiting)
    assert waiting.steps == FEWEST + 1 and waiting.images == 2 * waiting.steps
    assert 0 <= waiting.share < 1
