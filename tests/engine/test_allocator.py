import platform

import pytest
import torch

from llie.engine.allocator import keep_large_blocks, suit
from tests.processes import answers


def faults_of_the_tenth_tensor(pixels):
    """Whether the setting took effect, and the page faults of the tenth tensor of 64 MiB."""
    import resource  # POSIX only

    took_effect = keep_large_blocks()
    suit(pixels)
    for _ in range(10):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.zeros(1 << 24)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    return took_effect, faults


def run(pixels=10, **environment):
    """In a separate process, because the setting lasts until it ends."""
    [answer] = answers(faults_of_the_tenth_tensor, pixels, **environment)
    return answer


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, the C library of most Linux systems")
def test_large_tensors_are_reused_without_page_faults():
    took_effect, faults = run(LLIE_KEEP_MEMORY="1")
    assert took_effect and faults < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, the C library of most Linux systems")
def test_those_of_large_images_are_given_back():
    _, faults = run(pixels=10**6, LLIE_KEEP_MEMORY="1")
    assert faults > 10000


def test_can_be_turned_off():
    took_effect, _ = run(LLIE_KEEP_MEMORY="0")
    assert not took_effect
