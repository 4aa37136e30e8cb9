# SPDX-License-Identifier: Apache-2.0
"""Anchors: a few base boxes per level, repeated over the cells of its feature map.

Source: Detectron's modeling/generate_anchors.py; mmdetection's AnchorGenerator for exact sides; torchvision's
anchor_utils.py for whole ones.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from detectron_libra.geometry import Geometry

#: Feature-map sizes whose anchors are kept: batches of a few shapes recur, and one set can take megabytes.
CACHED_SIZES = 32


def base_anchors(
    stride: float, sizes: Sequence[float], ratios: Sequence[float], *, geometry: Geometry
) -> Tensor:
    """The anchors of the first cell, ratio by ratio, in each ratio size by size.

    Args:
        stride: stride of the level in pixels.
        sizes: sides of the square of the same area, in pixels.
        ratios: height / width.
        geometry: with ``round_anchors`` the ratio is taken of a cell with whole sides, which is then scaled,
            so that sides are not exact, and the centre is (stride - 1) / 2; otherwise exact, centred at 0; with
            ``whole_anchors`` the corners are then rounded.

    Returns:
        (A, 4) float32 x1 y1 x2 y2 in pixels, A = ratios x sizes.
    """
    ratio = torch.tensor(ratios, dtype=torch.float64)[:, None]
    size = torch.tensor(sizes, dtype=torch.float64)
    if geometry.round_anchors:
        cell_width = (stride**2 / ratio).sqrt().round()
        cell_height = (cell_width * ratio).round()
        width, height = cell_width * size / stride, cell_height * size / stride
        centre = (stride - 1) / 2
    else:
        width, height = size / ratio.sqrt(), size * ratio.sqrt()
        centre = 0.0
    half = torch.stack((width, height), -1).view(-1, 2) / 2
    # A box whose corners are its first and last pixel reaches half a pixel less to either side.
    half = half - geometry.extent / 2
    if geometry.whole_anchors:
        half = half.round()
    return torch.cat((centre - half, centre + half), 1).float()


def octave_anchors(
    stride: float,
    ratios: Sequence[float],
    *,
    scales_per_octave: int = 3,
    anchor_scale: float = 4,
    geometry: Geometry,
) -> Tensor:
    """RetinaNet's anchors of the first cell, octave by octave, in each octave ratio by ratio.

    Args:
        stride: stride of the level in pixels.
        ratios: height / width, in the order of the head's channels.
        scales_per_octave: sizes between one level and the next, each 2^(1/scales_per_octave) larger.
        anchor_scale: smallest size in strides.
        geometry: see ``base_anchors``.

    Returns:
        (A, 4) float32 x1 y1 x2 y2 in pixels, A = scales_per_octave x ratios.
    """
    octaves = [2 ** (octave / scales_per_octave) for octave in range(scales_per_octave)]
    sizes = [stride * anchor_scale * octave for octave in octaves]
    if geometry.whole_anchors:
        sizes = [int(size) for size in sizes]
    return torch.cat([base_anchors(stride, [size], ratios, geometry=geometry) for size in sizes])


def shift_over_cells(base: Tensor, steps: tuple[float, float], height: int, width: int) -> Tensor:
    """Base anchors (A, 4) moved to each cell of a (height, width) map: (height*width*A, 4), y, x, anchor.

    ``steps``: pixels from a cell to the next one in y and in x.
    """
    y = torch.arange(height, dtype=torch.float32, device=base.device) * steps[0]
    x = torch.arange(width, dtype=torch.float32, device=base.device) * steps[1]
    y, x = torch.meshgrid(y, x, indexing="ij")
    shift = torch.stack((x, y, x, y), -1).view(-1, 1, 4)
    return (shift + base).view(-1, 4)


class AnchorGrid:
    """The anchors of every level, kept for the sizes seen last.

    Args:
        bases: per level the (A, 4) anchors of its first cell, pixels.
        strides: per level the distance of neighbouring cells in pixels.
        fit: a level whose size was rounded up has its cells closer together, (image side // cells) apart.
    """

    def __init__(self, bases: Sequence[Tensor], strides: Sequence[float], *, fit: bool = False):
        if len(bases) != len(strides):
            raise ValueError(f"{len(bases)} levels of anchors, but {len(strides)} strides")
        self.bases, self.strides, self.fit = list(bases), list(strides), fit
        self._kept: OrderedDict[tuple, list[Tensor]] = OrderedDict()

    @property
    def anchors_per_cell(self) -> list[int]:
        """A of each level."""
        return [len(base) for base in self.bases]

    def __call__(self, sizes: Sequence[tuple[int, int]], device: torch.device | str) -> list[Tensor]:
        """Anchors of one batch, which has the same anchors in every image.

        Args:
            sizes: per level height and width of its feature map, in cells.
            device: where the anchors are wanted.

        Returns:
            Per level (H*W*A, 4) float32 pixels in the order y, x, anchor. Not to be written to.
        """
        if len(sizes) != len(self.bases):
            raise ValueError(f"{len(sizes)} feature maps, but anchors of {len(self.bases)} levels")
        key = (tuple((int(h), int(w)) for h, w in sizes), str(device))
        if key not in self._kept:
            self._kept[key] = [
                shift_over_cells(base.to(device), steps, *size)
                for base, steps, size in zip(self.bases, self.steps(key[0]), key[0], strict=True)
            ]
            if len(self._kept) > CACHED_SIZES:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]

    def steps(self, sizes: Sequence[tuple[int, int]]) -> list[tuple[float, float]]:
        """Pixels from cell to cell in y and x on each level; ``sizes`` as for the anchors."""
        if not self.fit:
            return [(stride, stride) for stride in self.strides]
        image = [cells * self.strides[0] for cells in sizes[0]]  # the finest level divides a padded image
        return [(image[0] // height, image[1] // width) for height, width in sizes]
