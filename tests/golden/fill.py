"""Deterministic parameter values for golden vectors.

A golden file stores no weights. It stores the official parameter names and
shapes plus a seed; `fill` turns those into the same values on every machine
(numpy's legacy RandomState stream is frozen by NEP 19).
"""

import json
import zlib

import numpy as np


def fill(shapes, seed):
    """Values for every entry of an official state dict.

    Args:
        shapes: mapping of official parameter name -> shape.
        seed: non-negative integer stored with the golden vector.

    Returns:
        dict of name -> float32 array of that shape (int64 zeros for
        BatchNorm's `num_batches_tracked`).
    """
    values = {}
    for name, shape in shapes.items():
        shape = tuple(shape)
        if name.endswith("num_batches_tracked"):
            values[name] = np.zeros(shape, np.int64)
            continue
        rng = np.random.RandomState((seed * 1000003 + zlib.crc32(name.encode())) % 2**32)
        noise = rng.standard_normal(shape)
        if name.endswith("running_var"):
            value = 1.0 + 0.1 * np.abs(noise)
        elif len(shape) >= 2:
            value = noise / np.sqrt(max(1, int(np.prod(shape[1:]))))
        elif name.endswith("weight"):
            value = 1.0 + 0.1 * noise
        else:
            value = 0.1 * noise
        values[name] = np.asarray(value, np.float32)
    return values


def low_light_input(height, width, seed, batch=1):
    """A smooth, dark, noisy RGB batch in [0, 1], shape (batch, 3, height, width), float32."""
    rng = np.random.RandomState(seed)
    y, x = np.mgrid[0:height, 0:width] / float(max(height, width))
    image = np.empty((batch, 3, height, width))
    for b in range(batch):
        for c in range(3):
            fy, fx, phase = rng.uniform(1, 6), rng.uniform(1, 6), rng.uniform(0, 6.28)
            image[b, c] = 0.12 + 0.1 * np.sin(fy * 6.28 * y + fx * 6.28 * x + phase)
    image += 0.02 * rng.standard_normal(image.shape)
    return np.clip(image, 0.0, 1.0).astype(np.float32)


def save(path, shapes, seed, arrays, **facts):
    """Write one golden vector: names, shapes, seed and facts as JSON, beside named arrays."""
    meta = {"shapes": {k: list(v) for k, v in shapes.items()}, "seed": seed, **facts}
    np.savez_compressed(path, meta=np.array(json.dumps(meta)), **arrays)


def load(path):
    """Read one golden vector back: (meta dict, dict of arrays)."""
    with np.load(path, allow_pickle=False) as data:
        arrays = {k: data[k] for k in data.files if k != "meta"}
        return json.loads(str(data["meta"])), arrays
