# SPDX-License-Identifier: Apache-2.0
"""EXPECTED_RESULTS: what is near enough passes and what is not fails, bounds included."""

import pytest

from detectron_libra.errors import UsageError
from detectron_libra.evaluation.expected import check_form, misses

RESULTS = {"set": {"box": {"AP": 0.5, "APs": None, "per_class": {"cat": 0.1}}}}
TOLERANCES = {"rtol": 0.25, "atol": 0.125, "sigma_tol": 4}


def missed(*entry):
    return misses(RESULTS, [list(entry)], **TOLERANCES)


@pytest.mark.parametrize(
    ("value", "met"),
    [
        (0.5, True),
        (0.3, True),  # within 0.125 + 0.25 * 0.3
        (0.29, False),
        (0.8333, True),  # 0.3333 off, 0.3333 allowed
        (0.84, False),
        ([0.25, 0.0625], True),  # 4 deviations: 0.25
        ([0.24, 0.0625], False),
        ([0.5, 0], True),
    ],
)
def test_a_value_passes_within_its_tolerance_and_not_beyond(value, met, caplog):
    with caplog.at_level("INFO"):
        assert (missed("set", "box", "AP", value) == []) is met
    assert caplog.records[0].getMessage().startswith("PASS" if met else "FAIL")
    assert caplog.records[0].levelname == ("INFO" if met else "ERROR")


def test_a_result_that_could_not_be_computed_is_a_miss():
    (line,) = missed("set", "box", "APs", 0.0)
    assert "set > box > APs: none" in line


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (("other", "box", "AP", 0.5), "other: there is no such result; there are set"),
        (("set", "mask", "AP", 0.5), "set > mask: there is no such result; there are box"),
        (("set", "box", "AP99", 0.5), "AP99: there is no such result; there are AP, APs"),
        (("set", "box", "per_class", 0.5), "per_class: that is no number"),
    ],
)
def test_a_result_that_there_is_not_is_named_with_those_there_are(entry, says):
    with pytest.raises(UsageError, match="EXPECTED_RESULTS") as error:
        missed(*entry)
    assert says in str(error.value)


@pytest.mark.parametrize(
    "entry",
    [
        "set",
        ["set", "box", "AP"],
        ["set", "box", "AP", "0.5"],
        ["set", "box", "AP", [0.5]],
        ["set", 1, "AP", 0.5],
        ["set", "box", "AP", True],
    ],
)
def test_another_form_is_refused_with_the_entry(entry):
    with pytest.raises(UsageError) as error:
        check_form([["set", "box", "AP", [0.5, 0.1]], entry])
    assert repr(entry) in str(error.value)
