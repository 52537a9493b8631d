"""Every item in exactly one share, the same whoever asks; what launchers say of a process."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kits.core.errors import KitsError
from kits.core.sharding import Place, choose_shard, launched, share, started_by_srun

SIZES = st.lists(st.integers(1, 1000), max_size=40)


@settings(deadline=None)
@given(SIZES, st.integers(1, 9), st.booleans())
def test_shares_are_a_partition_in_order(sizes: list[int], shards: int, by_size: bool) -> None:
    items = [f"case_{number:05d}" for number in range(len(sizes))]
    parts = [share(items, shard, shards, sizes if by_size else None) for shard in range(shards)]
    assert sorted(item for part in parts for item in part) == items
    assert all(part == sorted(part) for part in parts)
    if not by_size:
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(deadline=None)
@given(SIZES.filter(bool), st.integers(1, 9))
def test_the_largest_share_is_close_to_the_best_possible(sizes: list[int], shards: int) -> None:
    loads = [sum(share(sizes, shard, shards, sizes)) for shard in range(shards)]
    # Graham's bound for a list in any order; the largest first does not do worse.
    assert max(loads) <= sum(sizes) / shards + (1 - 1 / shards) * max(sizes) + 1e-9


@pytest.mark.parametrize(("shard", "shards"), [(2, 2), (-1, 2), (0, 0)])
def test_a_share_that_does_not_exist_is_refused(shard: int, shards: int) -> None:
    with pytest.raises(KitsError, match=f"shard={shard} shards={shards}: give a shard from 0"):
        share(["a"], shard, shards)


def started(environment: dict[str, str]) -> tuple[Place, bool]:
    """Where this process stands in an environment that has these variables alone, and whether srun started it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", environment)
        return launched(), started_by_srun()


def test_launchers_tell_a_process_its_number() -> None:
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
    srun = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4"}
    assert started(torchrun) == (Place(5, 8, 1, "torchrun"), False)
    assert started(srun) == (Place(3, 4, 1, "srun"), True)
    assert started({}) == (Place(0, 1, 0, None), False)
    assert started({**srun, **torchrun}) == (Place(5, 8, 1, "torchrun"), True)  # torchrun within a SLURM job


def test_a_batch_script_without_srun_does_all_the_work() -> None:
    batch = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}
    assert started(batch) == (Place(), False)


@pytest.mark.parametrize(
    "left", [{"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": "2"}, {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"}]
)
def test_what_another_program_left_in_the_environment_is_no_launcher(left: dict[str, str]) -> None:
    assert started(left)[0] == Place()


def test_a_broken_environment_is_named() -> None:
    with pytest.raises(KitsError, match="RANK=zero: the environment holds no whole number"):
        started({"RANK": "zero", "WORLD_SIZE": "2", "LOCAL_RANK": "0"})


def test_a_shard_is_given_whole_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert choose_shard(None, None) == (1, 2)
    assert choose_shard(3, 4) == (3, 4)
    for shard, shards in ((0, None), (None, 4)):
        with pytest.raises(KitsError, match="give both"):
            choose_shard(shard, shards)
    with pytest.raises(KitsError, match="shard=4 shards=4"):
        choose_shard(4, 4)
