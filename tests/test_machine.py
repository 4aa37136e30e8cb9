# SPDX-License-Identifier: Apache-2.0
"""What is told about the machine and the sources is theirs, or nothing."""

import subprocess
import sys

from detectron_libra import machine


def git(folder, *words):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def test_the_commit_is_that_of_the_sources_with_a_mark_where_they_differ(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "ROOT", tmp_path)
    git(tmp_path, "init")
    (tmp_path / "file").write_text("1")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    name = machine.commit()
    assert name and not name.endswith("-dirty")
    (tmp_path / "file").write_text("2")
    assert machine.commit() == f"{name}-dirty"


def test_a_package_inside_of_another_checkout_has_no_commit(tmp_path, monkeypatch):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "somebody else's")
    (tmp_path / "site-packages").mkdir()
    monkeypatch.setattr(machine, "ROOT", tmp_path / "site-packages")
    assert machine.first_line(["git", "rev-parse", "HEAD"]) and machine.commit() is None


def test_a_command_that_fails_or_is_not_there_tells_nothing():
    assert machine.first_line([sys.executable, "-c", "print('a\\nb')"]) == "a"
    assert machine.first_line([sys.executable, "-c", "print('a'); exit(1)"]) is None
    assert machine.first_line(["no-such-command"]) is None
    assert machine.cores() >= 1
