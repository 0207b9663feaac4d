"""Several commands at the same time."""

from __future__ import annotations

import os
import signal
import threading
import time

from llie.engine.side_by_side import side_by_side

SHOW = ["-c", "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES'), os.environ['OMP_NUM_THREADS'])"]


def test_gpus_are_shared_out(monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert side_by_side(dict.fromkeys("abc", SHOW), 3, ["4", "GPU-x"]) == {"a": 0, "b": 0, "c": 0}
    assert sorted(line[3:] for line in capfd.readouterr().out.splitlines()) == ["4 7", "4 7", "GPU-x 7"]


def test_cores_are_shared_out(monkeypatch, capfd):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    side_by_side({"a": SHOW}, 2, [])
    assert capfd.readouterr().out == "a: None 3\n"


def test_exit_codes_and_no_more_at_the_same_time_than_asked_for(tmp_path):
    code = (
        "import os, sys, time\n"
        f"mine = os.path.join({str(tmp_path)!r}, sys.argv[1]); open(mine, 'w').close()\n"
        f"both = len(os.listdir({str(tmp_path)!r})); time.sleep(0.2); os.remove(mine); sys.exit(both)"
    )
    codes = side_by_side({name: ["-c", code, name] for name in "abcd"}, 1, [])
    assert set(codes.values()) == {1}


def test_a_signal_is_passed_on_and_no_others_begin(tmp_path):
    ready = tmp_path / "ready"
    wait = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        f"pathlib.Path({str(ready)!r}).touch()\n"
        "while True: time.sleep(0.05)"
    )

    def stop():
        while not ready.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop).start()
    before = signal.getsignal(signal.SIGTERM)
    assert side_by_side({"a": ["-c", wait], "b": SHOW}, 1, []) == {"a": 9, "b": 143}
    assert signal.getsignal(signal.SIGTERM) is before
