# SPDX-License-Identifier: Apache-2.0
"""Libra R-CNN for RetinaNet and Faster R-CNN, in the shape of Detectron.

import detectron_libra
detections = detectron_libra.load("out/quickstart").predict(["image.jpg"])
"""

__version__ = "0.1.0"


def load(place, *, cfg=None):
    """A trained detector from weights or from the output folder of a run; see ``builders.predict.load``."""
    # Imported when called: `import detectron_libra.ops` alone must not read images or configurations.
    from detectron_libra.builders.predict import load as load_predictor

    return load_predictor(place, cfg=cfg)
