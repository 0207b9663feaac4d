import platform
import re
from pathlib import Path

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


def is_huge():
    """Whether a large tensor lies in memory for which huge pages are wanted."""
    keep_large_blocks()
    place, inside = torch.zeros(1 << 24).data_ptr() + (1 << 25), False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(found[1], 16) <= place < int(found[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    raise AssertionError("the tensor has no place")


def run(pixels=10, **environment):
    """In a separate process, because the setting lasts until it ends."""
    [answer] = answers(faults_of_the_tenth_tensor, pixels, **environment)
    return answer


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, the C library of most Linux systems")
def test_large_tensors_are_reused_without_page_faults():
    took_effect, faults = run(LLIE_KEEP_MEMORY="1", THP_MEM_ALLOC_ENABLE="0")
    assert took_effect and faults < 100


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, the C library of most Linux systems")
def test_those_of_large_images_are_given_back():
    _, faults = run(pixels=10**6, LLIE_KEEP_MEMORY="1", THP_MEM_ALLOC_ENABLE="0")
    assert faults > 10000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc, the C library of most Linux systems")
@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="this Linux has no huge pages")
def test_large_tensors_get_huge_pages():
    assert answers(is_huge) == [True]
    assert answers(is_huge, THP_MEM_ALLOC_ENABLE="0") == [False]


def test_can_be_turned_off():
    took_effect, _ = run(LLIE_KEEP_MEMORY="0")
    assert not took_effect
