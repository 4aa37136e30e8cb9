# SPDX-License-Identifier: Apache-2.0
"""Small data sets in memory whose numbers can be counted by hand."""

from detectron_libra.analysis.inventory import take_inventory
from detectron_libra.data.coco import from_content


def dataset(*images, extent=0.0, name="set"):
    """A data set of images (source, height, width, [(class, x, y, width, height[, crowd]), ...]); classes a, b, c."""
    listed, annotations = [], []
    for k, (source, height, width, boxes) in enumerate(images, 1):
        entry = {"id": k, "file_name": f"{k}.jpg", "height": height, "width": width}
        listed.append(entry if source is None else entry | {"source": source})
        for c, x, y, w, h, *crowd in boxes:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": k,
                    "category_id": c,
                    "bbox": [x, y, w, h],
                    "iscrowd": int(bool(crowd)),
                }
            )
    content = {
        "images": listed,
        "annotations": annotations,
        "categories": [{"id": c, "name": n} for c, n in ((1, "a"), (2, "b"), (3, "c"))],
    }
    return from_content(content, name, "images", f"{name}.json", extent=extent)


def inventory(*images, side=100, max_size=1000, extent=0.0):
    """The inventory of ``dataset``."""
    return take_inventory([dataset(*images, extent=extent)], extent=extent, side=side, max_size=max_size)
