# SPDX-License-Identifier: Apache-2.0
"""Lines about a test under way: Detectron's form, the first image, the last one and every tenth, read back."""

import logging
import re

from detectron_libra.engine.progress import Progress, last_image


def test_lines_have_detectrons_form_and_count_from_1(caplog):
    progress = Progress(first=3, count=24, total=40)
    with caplog.at_level(logging.INFO):
        for done in range(1, 25):
            progress(done)
    lines = [r.getMessage() for r in caplog.records]
    form = r"im_detect: range \[4, 27\] of 40: (\d+)/27 \d+\.\d{3}s \(eta: \d+:\d\d:\d\d\)"
    assert [int(re.fullmatch(form, line)[1]) for line in lines] == [4, 14, 24, 27]


def test_batches_that_step_over_a_tenth_image_tell_once(caplog):
    progress = Progress(0, 30, 30)
    with caplog.at_level(logging.INFO):
        for done in (8, 16, 24, 30):
            progress(done)
    assert [r.args[3] for r in caplog.records] == [8, 24, 30]


def test_the_last_line_of_a_log_is_found(tmp_path):
    file = tmp_path / "log"
    assert last_image(file) is None
    file.write_text("INFO: something else\n")
    assert last_image(file) is None
    line = "INFO progress.py:  45: im_detect: range [4, 27] of 40: {}/27 0.123s (eta: 0:00:01)\n"
    file.write_text(line.format(4) + line.format(14) + "x" * 50 + "\n" + "im_detect: range [4, 27] of 40: 2")
    assert last_image(file) == 14
