"""The synthetic haze follows the scattering model, depth maps are read as documented, and the demo is what it says."""

import numpy as np
import pytest
import torch

from llie.cli import main
from llie.data import build_dataset, demo, read_image
from llie.data.haze import Haze, depth_from_disparity, normalise_depth, ramp_depth, read_depth
from llie.data.readers import to_tensor, write_image
from llie.errors import UserError


def grey16(depth):
    """A depth map in [0, 1] as an image file holds it."""
    return np.repeat(np.rint(depth * 65535).astype(np.uint16)[..., None], 3, axis=2)


class TestHaze:
    def test_it_is_the_scattering_model(self, picture):
        image, depth = picture(1), ramp_depth(24, 32)
        hazy = Haze(beta=(1.2, 1.2), airlight=(0.8, 0.8), tint=0)(image, depth, np.random.default_rng(0))
        t = np.exp(-1.2 * depth.astype(np.float64))[..., None]
        assert hazy.dtype == np.uint8
        np.testing.assert_allclose(hazy, 255 * (image / 255 * t + 0.8 * (1 - t)), rtol=0, atol=0.501)

    def test_clear_air_changes_nothing(self, picture):
        image = picture(1)
        np.testing.assert_array_equal(Haze(beta=(0, 0))(image, ramp_depth(24, 32), np.random.default_rng(0)), image)

    @pytest.mark.parametrize(
        ("ranges", "message"),
        [
            ({"beta": (2, 1)}, r"beta: \[2, 1\] is not a range of numbers at least 0"),
            ({"airlight": (-1, 0.5)}, r"airlight: \[-1, 0\.5\] is not a range of numbers in \[0, 1\]"),
            ({"tint": 5}, "tint"),
        ],
    )
    def test_invalid_ranges(self, ranges, message):
        with pytest.raises(UserError, match=message):
            Haze(**ranges)

    def test_sixteen_bits_are_read_as_such(self, picture):
        depth, haze = ramp_depth(24, 32), Haze()
        one = haze(picture(1, dtype=np.uint16), depth, np.random.default_rng(3)).astype(int)
        assert np.abs(one - haze(picture(1), depth, np.random.default_rng(3))).max() <= 1

    def test_farther_is_hazier(self):
        black = np.zeros((8, 8, 3), np.uint8)
        rows = Haze()(black, ramp_depth(8, 8), np.random.default_rng(0)).astype(int).mean((1, 2))
        assert (np.diff(rows) < 0).all(), "depth grows upwards"

    def test_draws_lie_in_the_ranges(self):
        white, far = np.zeros((1, 1, 3), np.uint8), np.full((1, 1), 1e3, np.float32)
        random = np.random.default_rng(0)
        thick = np.stack([Haze(airlight=(0.7, 0.9), tint=0.1)(white, far, random)[0, 0] / 255 for _ in range(200)])
        assert thick.min() < 0.68 and thick.min() > 0.62 and thick.max() > 0.94 and thick.max() < 1
        assert (np.ptp(thick, axis=1) > 0.02).mean() > 0.8, "tinted"

    def test_the_stream_decides_all(self, picture):
        image, depth = picture(2), ramp_depth(24, 32)
        one, two, three = (Haze()(image, depth, np.random.default_rng(seed)) for seed in (5, 5, 6))
        np.testing.assert_array_equal(one, two)
        assert (one != three).any() and (image == picture(2)).all()


class TestDepth:
    def test_unit_does_not_matter(self, tmp_path):
        metres = 1 + 4 * ramp_depth(20, 30)
        np.save(tmp_path / "metres.npy", metres)
        np.save(tmp_path / "millimetres.npy", (1000 * metres).astype(np.int32))
        write_image(tmp_path / "depth.png", grey16(metres / 8))
        depths = [read_depth(tmp_path / name) for name in ("metres.npy", "millimetres.npy", "depth.png")]
        for depth in depths:
            assert depth.dtype == np.float32 and depth.shape == (20, 30) and depth.max() == 1
            np.testing.assert_allclose(depth, metres / 5, atol=3e-4)

    def test_holes_take_the_nearest_depth(self):
        depth = np.array([[2.0, np.nan, 8.0, 0.0, 4.0], [2.0, np.inf, -1.0, 8.0, 4.0]])
        filled = normalise_depth(depth)
        assert filled[0, 0] == filled[1, 0] == 0.25 and filled[0, 4] == 0.5
        assert filled[0, 1] in (0.25, 1) and filled[0, 3] in (0.5, 1) and filled[1, 1] == 0.25 and filled[1, 2] == 1

    def test_disparity_is_inverse_depth(self):
        depth = depth_from_disparity(np.array([[10.0, 30.0, np.inf, np.nan]]), offset=10)
        assert depth[0, 0] == 2 * depth[0, 1]
        assert np.isnan(depth[0, 2:]).all()

    def test_ramp_is_a_plane_in_the_given_direction(self):
        right = ramp_depth(10, 20, angle=np.pi / 2, near=0.2)
        np.testing.assert_allclose(right, np.broadcast_to(np.linspace(0.2, 1, 20), (10, 20)), atol=1e-6)
        assert ramp_depth(1, 1).shape == (1, 1)

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((4, 5)), r"depth\.npy: no pixel .* above 0"),
            (np.ones((4, 5, 3)), r"depth\.npy is not a depth map: it contains float64 of shape \(4, 5, 3\)"),
            (np.full((4, 5), "far"), r"depth\.npy is not a depth map"),
        ],
    )
    def test_files_that_are_not_depth_maps(self, tmp_path, array, message):
        np.save(tmp_path / "depth.npy", array)
        with pytest.raises(UserError, match=message):
            read_depth(tmp_path / "depth.npy")

    def test_damaged_file(self, tmp_path):
        (tmp_path / "depth.npy").write_bytes(b"\x93NUMPY broken")
        with pytest.raises(UserError, match=r"cannot read the depth map .*depth\.npy"):
            read_depth(tmp_path / "depth.npy")


class TestDataset:
    @pytest.fixture
    def roots(self, tmp_path, put):
        put(tmp_path, "clear/1.png", "clear/sub/2.jpg")
        (tmp_path / "depth/sub").mkdir(parents=True)
        np.save(tmp_path / "depth/1.npy", 3 + 5 * ramp_depth(24, 32))
        write_image(tmp_path / "depth/sub/2.png", grey16(ramp_depth(24, 32, 0.5)))
        return {"dataroot_gt": str(tmp_path / "clear"), "dataroot_depth": str(tmp_path / "depth")}

    def build(self, roots, phase="train", **options):
        return build_dataset({"type": "SyntheticHazeDataset", **roots, **options}, phase)

    def test_haze_is_new_in_each_epoch_and_repeats(self, roots):
        dataset = self.build(roots, gt_size=16)
        item = dataset[3, 1]
        assert item["lq"].shape == (3, 16, 16) and item["gt_path"].endswith("clear/sub/2.jpg")
        assert item["lq"].std() < item["gt"].std() and item["lq"].mean() > item["gt"].mean()
        assert torch.equal(item["lq"], dataset[3, 1]["lq"]) and not torch.equal(item["lq"], dataset[4, 1]["lq"])
        assert not torch.equal(item["lq"], self.build(roots, gt_size=16, seed=1)[3, 1]["lq"])

    def test_evaluation_sees_the_whole_photograph_and_its_depth(self, roots):
        exact = {"beta": [1.0, 1.0], "airlight": [1.0, 1.0], "tint": 0.0}
        item = self.build(roots, "val", gt_size=16, **exact)[0]
        clear = read_image(item["gt_path"])
        depth = (3 + 5 * ramp_depth(24, 32)) / 8
        hazy = Haze((1, 1), (1, 1), 0)(clear, depth, np.random.default_rng(0))
        torch.testing.assert_close(item["lq"], to_tensor(hazy), rtol=0, atol=1.01 / 255)
        assert torch.equal(item["gt"], to_tensor(clear))

    def test_depth_is_cropped_and_flipped_with_its_photograph(self, roots, tmp_path):
        """With the depth itself as the photograph, the haze of each pixel is a function of its value."""
        depth = ramp_depth(24, 32, 0.3)
        write_image(tmp_path / "clear/1.png", grey16(depth))
        np.save(tmp_path / "depth/1.npy", depth)
        fixed = {"beta": [2.0, 2.0], "airlight": [1.0, 1.0], "tint": 0.0, "gt_size": 16, "use_rot": True}
        dataset = self.build(roots, use_hflip=True, cache="ram", **fixed)
        for epoch in range(6):
            item = dataset[epoch, 0]
            t = torch.exp(-2 * item["gt"])
            torch.testing.assert_close(item["lq"], item["gt"] * t + 1 - t, rtol=0, atol=1 / 255)

    def test_missing_depth_map_is_named(self, roots, tmp_path):
        (tmp_path / "depth/1.npy").unlink()
        with pytest.raises(UserError, match=r"1 images .* have no partner: .*clear/1\.png"):
            self.build(roots)

    def test_depth_of_another_size_is_named(self, roots, tmp_path):
        np.save(tmp_path / "depth/1.npy", ramp_depth(24, 30))
        with pytest.raises(UserError, match=r"depth/1\.npy is 30x24, but .*clear/1\.png is 32x24"):
            self.build(roots)[0]


class TestDemo:
    @pytest.fixture(scope="class")
    def folder(self, tmp_path_factory):
        return demo.make_haze(tmp_path_factory.mktemp("demo") / "haze")

    def test_whole_photographs_are_held_out(self, folder):
        train, val = ({path.stem[:-2] for path in (folder / split / "clear").iterdir()} for split in ("train", "val"))
        assert train.isdisjoint(val) and "motorcycle_left" in train

    def test_stereo_photograph_has_its_measured_depth(self, folder):
        depth = read_depth(folder / "train/depth/motorcycle_left_0.png")
        height, width = depth.shape
        tank, wall = depth[int(0.48 * height), int(0.5 * width)], depth[int(0.05 * height), int(0.1 * width)]
        assert wall > 1.5 * tank and depth.min() > 0.3

    def test_hazy_pairs_are_hazy(self, folder):
        dataset = build_dataset({"type": "PairedImageDataset", "dataroot": str(folder / "val")}, "val")
        assert len(dataset) == len(demo.VAL) * demo.VAL_VARIANTS
        for item in (dataset[index] for index in range(len(dataset))):
            assert item["lq"].std() < 0.75 * item["gt"].std() and item["lq"].min() > 0.1 > item["gt"].min()

    def test_a_second_call_costs_nothing(self, folder, capsys):
        first = folder / "val/hazy/chelsea_0.png"
        content, when = first.read_bytes(), first.stat().st_mtime_ns
        assert main(["data", "demo", str(folder), "--haze"]) in (0, None)
        assert first.stat().st_mtime_ns == when and "already there" in capsys.readouterr().out
        first.unlink()
        demo.make_haze(folder)
        assert first.read_bytes() == content, "made again, it is the same"
