"""NIQE: against BasicSR's, and images that have no statistics."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from llie.errors import UserError
from llie.metrics import MetricUnavailable, brisque, niqe
from tests import needs


def dark_with_flat_areas():
    return (data.chelsea() / 255 * 24).astype(np.uint8)


@needs.basicsr_only
def test_equals_basicsr_on_photographs():
    """Up to its computing in float32, which moves grey values at ties and hence statistics."""
    from llie import bridge

    bridge.basicsr()
    from basicsr.metrics import calculate_niqe

    for image in (data.chelsea(), data.coffee()[:197, 50:441], dark_with_flat_areas()):
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        assert niqe(image) == pytest.approx(calculate_niqe(bgr, crop_border=0), abs=1e-2)
        assert niqe(image, crop_border=2, convert_to="gray") == pytest.approx(
            calculate_niqe(bgr, crop_border=2, convert_to="gray"), abs=1e-2
        )


def test_noise_is_less_natural():
    image = data.chelsea()
    noise = np.random.default_rng(0).normal(0, 40, image.shape)
    assert niqe(np.clip(image + noise, 0, 255).astype(np.uint8)) > niqe(image) + 1


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.random.default_rng(0).random((95, 400, 3)), "too small"),
        (np.random.default_rng(0).random((150, 150, 3)), "too small"),
        (np.full((200, 200, 3), 0.5), "too flat"),
    ],
)
def test_an_image_without_statistics_is_nan_with_a_warning(image, reason):
    with pytest.warns(RuntimeWarning, match=reason):
        assert np.isnan(niqe(image))


def test_a_partly_flat_image_is_measured_by_its_other_blocks():
    image = data.chelsea()[:288, :384].copy()
    image[:96, :96] = 0
    assert 1 < niqe(image) < 30


def test_rounding_errors_in_flat_areas_do_not_count():
    image = dark_with_flat_areas()
    assert niqe(image + 64, convert_to="gray") == pytest.approx(niqe(image, convert_to="gray"), abs=1e-6)


def test_protocols_that_need_a_reference_are_refused():
    with pytest.raises(UserError, match="use rgb8"):
        niqe(data.chelsea(), "rgb8-gtmean")
    with pytest.raises(UserError, match="convert_to"):
        niqe(data.chelsea(), convert_to="rgb")


@pytest.fixture
def support_vectors(monkeypatch, tmp_path):
    """Made-up support vectors where piq looks for the published ones."""
    needs.package("piq", "metrics")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(0)
    vectors = torch.rand(5, generator=random) * 100, torch.rand(5, 36, generator=random) * 2 - 1
    torch.save(vectors, folder / "brisque_svm_weights.pt")


def test_brisque_is_that_of_piq(support_vectors):
    import piq

    image = data.chelsea()
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    assert brisque(image) == pytest.approx(float(piq.brisque(tensor)), rel=1e-3)
    with pytest.warns(RuntimeWarning, match="BRISQUE is NaN"):
        assert np.isnan(brisque(np.zeros((50, 50, 3))))


def test_brisque_refuses_a_file_that_could_run_code(support_vectors):
    path = Path(torch.hub.get_dir()) / "checkpoints" / "brisque_svm_weights.pt"
    path.write_bytes(pickle.dumps(print))
    with pytest.raises(MetricUnavailable, match="damaged or not what piq published"):
        brisque(data.chelsea())


def test_brisque_never_downloads(monkeypatch, tmp_path):
    needs.package("piq", "metrics")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MetricUnavailable, match=r"brisque_svm_weights\.pt"):
        brisque(data.chelsea())
