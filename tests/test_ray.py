"""The recipe for Ray Data in the guide, run as it stands there, on this machine alone."""

import importlib.util
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from llie.data.readers import read_image, write_image
from tests.conftest import REPOSITORY

if importlib.util.find_spec("ray") is None:
    pytest.skip("needs ray: pip install 'ray[data]'", allow_module_level=True)


def test_the_recipe_enhances_a_folder_and_names_what_fails(tmp_path):
    guide = (REPOSITORY / "docs/photos.md").read_text(encoding="utf-8")
    recipe = next(code for code in re.findall(r"```text\n(.*?)```", guide, re.DOTALL) if "import ray" in code)
    recipe = recipe.replace("/shared/holiday", str(tmp_path / "holiday"))
    recipe = recipe.replace("/shared/brighter", str(tmp_path / "brighter"))
    (tmp_path / "recipe.py").write_text(recipe, encoding="utf-8")
    (tmp_path / "holiday").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        write_image(tmp_path / "holiday" / name, np.full((24, 32, 3), 20, np.uint8))
    (tmp_path / "holiday" / "cut.png").write_bytes((tmp_path / "holiday" / "a.png").read_bytes()[:60])
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, tmp_path / "recipe.py"],
        env={**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 1 and "damaged or truncated" in failed[0]
    assert sorted(file.name for file in (tmp_path / "brighter").iterdir()) == ["a.png", "b.png", "c.png"]
    assert read_image(tmp_path / "brighter" / "a.png").mean() > 30
