# SPDX-License-Identifier: Apache-2.0
"""Ids and texts in arrays come out as they went in."""

import pytest

from detectron_libra.data.packed import Numbers, Texts, pack_ids


@pytest.mark.parametrize(
    "ids",
    [
        (),
        (3, -1, 2**63 - 1, -(2**63)),
        ("b", "", "日本語", "\ud800", "a" * 300),
        (1, "1"),
        (2**63, 1),
        (10**400,),
    ],
)
def test_ids_come_out_as_they_went_in(ids):
    packed = pack_ids(ids)
    assert tuple(packed) == ids and len(packed) == len(ids)
    assert [packed[k] for k in range(len(ids))] == list(ids)
    assert list(packed[1:3]) == list(ids[1:3])
    assert all(type(a) is type(b) for a, b in zip(packed, ids, strict=True))
    with pytest.raises(IndexError):
        packed[len(ids)]


def test_numbers_and_texts_are_arrays():
    assert isinstance(pack_ids((1, 2)), Numbers) and isinstance(pack_ids(("1", "2")), Texts)
    texts = Texts.of([f"{k:012d}.jpg" for k in range(1000)])
    assert texts[-1] == "000000000999.jpg" and "000000000007.jpg" in texts
