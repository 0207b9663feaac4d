"""Figures that can be verified elsewhere: files of published sets, and the arithmetic of official evaluations."""

import cv2
import pytest
import torch

from llie.data.readers import read_image
from llie.metrics import niqe, psnr, ssim

# PSNR, SSIM, GT-mean PSNR, GT-mean SSIM, measured by independent code on the same files
OUTPUTS = {
    "low00733_darkir.png": (27.6964, 0.9484, 35.3782, 0.9527),
    "low00733_retinexformer.png": (28.4805, 0.9104, 28.8421, 0.9117),
    "low00733_snr_aware.png": (22.0588, 0.9309, 23.3287, 0.9318),
}
INPUTS = {
    "lolv1_eval15": (7.8749, 0.1938, 17.8921, 0.4720),
    "lolv2_real_test": (9.2384, 0.2308, 19.1980, 0.5176),
    "lolv2_syn_test": (10.3584, 0.4505, 17.9875, 0.7476),
}


def figures(pred, gt):
    return [metric(pred, gt, protocol) for protocol in ("rgb8", "rgb8-gtmean") for metric in (psnr, ssim)]


@pytest.mark.parametrize("name", OUTPUTS)
def test_scores_of_published_outputs(real, name):
    reference = read_image(real / "lolv2_real_test/high/normal00733.png")
    found = figures(read_image(real / "published_outputs" / name), reference)
    assert [round(value, 4) for value in found] == list(OUTPUTS[name])


@pytest.mark.parametrize("name", INPUTS)
def test_scores_of_unprocessed_inputs(real, name):
    pairs = zip(sorted((real / name / "low").iterdir()), sorted((real / name / "high").iterdir()), strict=True)
    found = torch.tensor([figures(read_image(low), read_image(high)) for low, high in pairs]).double().mean(0)
    assert found.tolist() == pytest.approx(INPUTS[name], abs=5.1e-5)


def test_hvi_evaluation(golden):
    vector = golden("hvi_metrics")
    prediction, gt = vector["pred_float"].permute(2, 0, 1), vector["gt_uint8"].numpy()
    for protocol, suffix in (("rgb8-trunc", ""), ("rgb8-trunc-gtmean", "_gt_mean")):
        assert psnr(prediction, gt, protocol) == pytest.approx(float(vector[f"psnr{suffix}"]), abs=1e-3)
        assert ssim(prediction, gt, protocol) == pytest.approx(float(vector[f"ssim{suffix}"]), abs=1e-6)
    assert psnr(vector["pred_uint8"].numpy(), gt, "rgb8") == psnr(prediction, gt, "rgb8-trunc")


def test_niqe_in_both_channel_orders(golden):
    vector = golden("hvi_metrics")
    image = vector["niqe_image_uint8"].numpy()
    assert niqe(image) == pytest.approx(float(vector["niqe_correct_order"]), abs=1e-2)
    assert niqe(cv2.cvtColor(image, cv2.COLOR_RGB2BGR)) == pytest.approx(
        float(vector["niqe_rgb_passed_as_bgr"]), abs=1e-2
    )


def test_snr_aware_evaluation(golden):
    vector = golden("snr_metrics")
    values = vector.meta["values"]
    assert psnr(vector["pred"], vector["target"]) == pytest.approx(values["psnr"], abs=1e-4)
    assert ssim(vector["pred"], vector["target"]) == pytest.approx(values["ssim"], abs=1e-6)
