"""Operations: tensors go in, tensors come out; nothing here reads options or looks up names.

Networks, losses, data, evaluation and inference call it.
"""

from llie.ops.dark_channel import haze_regions
from llie.ops.deform_conv import DeformConv2d, deform_conv2d
from llie.ops.fusion import fuse
from llie.ops.region_conv import RegionConv2d

__all__ = ["DeformConv2d", "RegionConv2d", "deform_conv2d", "fuse", "haze_regions"]
