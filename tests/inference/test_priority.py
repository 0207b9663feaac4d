"""Encoders do not keep a priority that they gave to this process."""

from __future__ import annotations

import os
import threading

import pytest

pytest.importorskip("av", reason="needs PyAV: pip install 'llie[video]'")

import av

from llie.inference.video.priority import TASKS, usual_priority

pytestmark = pytest.mark.skipif(not TASKS.is_dir(), reason="needs Linux, where threads have policies")


def policies():
    return {os.sched_getscheduler(int(task.name)) for task in TASKS.iterdir()}


def test_all_threads_are_scheduled_as_before():
    before, end, started = policies(), threading.Event(), threading.Event()

    def thread():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        started.set()
        end.wait()

    with usual_priority():
        other = threading.Thread(target=thread)
        other.start()
        started.wait()
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        assert os.SCHED_BATCH in policies()
    try:
        assert policies() == before
    finally:
        end.set()
        other.join()


@pytest.mark.skipif("libsvtav1" not in av.codecs_available, reason="needs a PyAV with SVT-AV1")
def test_opening_svt_av1_changes_nothing():
    """As root, it asks for real-time priority."""
    from av.video.format import VideoFormat

    from llie.inference.video.encoders import _opens

    before = policies()
    assert _opens("libsvtav1", "yuv420p", VideoFormat("yuv420p", 64, 64))
    assert policies() == before
