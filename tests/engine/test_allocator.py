import os
import platform
import subprocess
import sys

import pytest

# In a process of its own, because the setting lasts for its life: faults of the tenth 64 MiB tensor.
SCRIPT = """
import resource, torch
from llie.engine.allocator import keep_large_blocks, suit
print(keep_large_blocks())
suit(PIXELS)
for _ in range(10):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(1 << 24)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults)
"""


def run(pixels=10, **environment):
    script = SCRIPT.replace("PIXELS", str(pixels))
    process = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    took_effect, faults = process.stdout.split()
    return took_effect == "True", int(faults)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_tensors_are_reused_without_page_faults():
    took_effect, faults = run(LLIE_KEEP_MEMORY="1")
    assert took_effect and faults < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_those_of_large_images_are_given_back():
    _, faults = run(pixels=10**6, LLIE_KEEP_MEMORY="1")
    assert faults > 10000


def test_can_be_turned_off():
    took_effect, _ = run(LLIE_KEEP_MEMORY="0")
    assert not took_effect
