"""Freed memory that stays with the process."""

import resource

import pytest
import torch

from kits.models.memory import keep_freed_memory


def test_a_block_that_was_freed_is_not_fetched_again():
    if not keep_freed_memory():
        pytest.skip("another C library than glibc")

    def faults() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(16 * 2**20)  # 64 MiB, 16384 pages
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    # By default every single block is fetched, all its pages. The first ones may still have to be, and a system that is short of
    # memory may take some pages back.
    assert min(faults() for _ in range(10)) < 12_000
