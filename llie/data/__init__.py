"""Data: folders of images go in, items and batches of tensors in [0, 1] come out.

`build` makes data sets from options, `loader` makes batches; both use readers, pairing, layouts and transforms. Called
by training, evaluation, inference (for files) and `llie data`.
"""

from llie.data.build import build_dataset, build_train_set, build_validation_set
from llie.data.loader import build_train_loader
from llie.data.readers import read_image, write_image
from llie.data.transforms import build_batch_transform

__all__ = [
    "build_batch_transform",
    "build_dataset",
    "build_train_loader",
    "build_train_set",
    "build_validation_set",
    "read_image",
    "write_image",
]
