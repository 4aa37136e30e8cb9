# SPDX-License-Identifier: Apache-2.0
"""tools/benchmark_growth.py as users call it, on few small sizes."""

import json

from tests.tools.runs import refused, run


def test_a_quick_run_writes_table_figures_and_plot_and_keeps_other_axes(tmp_path):
    out = tmp_path / "docs"
    first = run("benchmark_growth.py", "--axis", "boxes", "--quick", "--out", out)
    assert first.code == 0, first.err
    assert "matching of a RetinaNet's anchors" in first.out and "## Classes" not in first.out
    second = run(
        "benchmark_growth.py", "--axis", "data", "--quick", "--out", out, "--json", tmp_path / "f.json"
    )
    assert second.code == 0, second.err
    content = json.loads((out / "growth/growth.json").read_text())
    assert list(content) == ["boxes", "data"] and content == json.loads((tmp_path / "f.json").read_text())
    for axis in content.values():
        for curve in axis["curves"]:
            assert len(curve["points"]) == 3
            assert all(p["seconds"] > 0 and p["extra_bytes"] > 0 for p in curve["points"])
    text = (out / "growth/README.md").read_text()
    assert "## Ground-truth boxes per image" in text and "## Annotations of the data set" in text
    assert {p.name for p in (out / "growth").glob("*.svg")} == {"boxes.svg", "data.svg"}


def test_what_is_no_axis_and_keys_are_refused(tmp_path):
    refused(run("benchmark_growth.py", "--axis", "width"), 2, "--axis width", "classes")
    refused(run("benchmark_growth.py", "TEST.SCALE", 4), 2, "TEST.SCALE")
    (tmp_path / "growth").mkdir()
    (tmp_path / "growth/growth.json").write_text("{")
    refused(run("benchmark_growth.py", "--out", tmp_path), 3, "growth.json", "remove it")
