"""`benchmarks/gpu.py` with tiny networks on the CPU: all of its logic, so that it works on the day of a GPU."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """The scripts import each other by name, in child processes, too."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent), *sys.path]))


def fails():
    raise ValueError("no such kernel\nmore")


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def hangs():
    time.sleep(1000)


def test_everything_runs_and_is_written(tmp_path):
    import gpu

    # The checks take the smallest network; the training is always that of HVI-SMM.
    tiny = {"HVISMM": {"channels": [4, 4, 8, 16], "heads": [1, 1, 2, 2]}}
    argv = ["--device", "cpu", "-o", str(tmp_path), "--networks", "ZeroDCE", "--tiny", json.dumps(tiny)]
    code = gpu.main([*argv, "--minutes", "600", "--train-minutes", "0.001"])

    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert [(row["check"], row.get("reason")) for row in rows if row["status"] != "ok"] == []
    assert code == 0
    by_check = {row["check"]: row for row in rows}
    assert {"scan", "processes: 2", "CPU = GPU", "bf16", "no synchronisation", "exact resume", "compile"} <= set(
        by_check
    )
    assert 0 < by_check["processes: 2"]["update"] < 1e-2
    assert 0 < by_check["scan"]["gradient of A"] < 1e-4 or by_check["scan"]["backend"] == "torch"
    assert set(by_check["training step 40x32"]["variants"]) == {"literal", "llie"}
    assert by_check["inference 40x32"]["difference"] < 1e-4
    assert by_check["training"]["psnr/rgb8"] > 0
    page = (tmp_path / "gpu.md").read_text()
    assert "| ZeroDCE |" in page and "## Times" in page and "## Training" in page and "## Failures" not in page


@pytest.mark.parametrize(
    ("function", "seconds", "status", "reason"),
    [
        (fails, 600, "failed", "ValueError: no such kernel"),
        (dies, 600, "died", "killed by SIGKILL"),
        (hangs, 0.1, "timeout", "no result within 0 s"),
    ],
)
def test_what_goes_wrong_is_a_row(tmp_path, function, seconds, status, reason):
    import isolated

    row = isolated.run(function, seconds=seconds, log=tmp_path / "log")
    assert (row["status"], row["reason"]) == (status, reason)
    assert function is not fails or "Traceback" in (tmp_path / "log").read_text()


def test_a_check_ends_with_the_script(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import os, pathlib, time\n"
        "def check(file):\n"
        "    pathlib.Path(file + '.part').write_text(str(os.getpid()))\n"
        "    os.replace(file + '.part', file); time.sleep(1000)\n"
    )
    script = (
        "import pathlib, sys, isolated, slow\n"
        "if __name__ == '__main__':\n"
        "    isolated.run(slow.check, sys.argv[1], seconds=1000, log=pathlib.Path(sys.argv[1] + '.log'))\n"
    )
    (tmp_path / "script.py").write_text(script)
    file = tmp_path / "pid"
    places = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py"), str(file)], env=os.environ | {"PYTHONPATH": places}
    )
    while not file.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    end = time.monotonic() + 300
    while runs(int(file.read_text())):
        assert time.monotonic() < end
        time.sleep(0.05)


def runs(pid):
    """Whether a process runs; one that ended, but that nobody waited for, does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_failures_are_listed_and_checks_without_time_are_not_run(tmp_path):
    import gpu

    table = gpu.Table(tmp_path, minutes=0, seconds=600)
    table.add("later", "HVISMM", fails)
    table.add("now", "HVISMM", fails, seconds=600)
    page = (tmp_path / "gpu.md").read_text()
    assert "| later | HVISMM | not run | the time was up |" in page
    assert "| now | HVISMM | failed | ValueError: no such kernel |" in page
