"""How many threads an engine uses by default."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llama_tui.worker import threads


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four cores of two hardware threads each, all of them usable, no quota."""
    for cpu in range(8):
        folder = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    (tmp_path / "cgroup").mkdir()
    monkeypatch.setattr(threads, "_TOPOLOGY", tmp_path / "cpu")
    monkeypatch.setattr(threads, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    return tmp_path


@pytest.mark.usefixtures("machine")
class TestPhysicalCores:
    def test_two_threads_of_a_core_count_once(self) -> None:
        assert threads.physical_cores() == 4

    @pytest.mark.parametrize(("cpus", "cores"), [({0}, 1), ({0, 4}, 1), ({0, 1}, 2), ({3, 6, 7}, 2)])
    def test_only_those_that_this_process_may_use(
        self, monkeypatch: pytest.MonkeyPatch, cpus: set[int], cores: int
    ) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: cpus)
        assert threads.physical_cores() == cores

    @pytest.mark.parametrize(
        ("quota", "cores"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1)]
    )
    def test_a_containers_quota(self, machine: Path, quota: str, cores: int) -> None:
        (machine / "cgroup" / "cpu.max").write_text(quota + "\n")
        assert threads.physical_cores() == cores

    @pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("300000", 3)])
    def test_the_older_cgroups(self, machine: Path, quota: str, cores: int) -> None:
        folder = machine / "cgroup" / "cpu"
        folder.mkdir()
        (folder / "cpu.cfs_quota_us").write_text(quota)
        (folder / "cpu.cfs_period_us").write_text("100000")
        assert threads.physical_cores() == cores

    def test_without_topology_every_cpu_is_a_core(self, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(threads, "_TOPOLOGY", machine / "none")
        assert threads.physical_cores() == 8


@pytest.mark.usefixtures("machine")
class TestDefault:
    def test_all_cores_where_each_has_a_thread_to_spare(self) -> None:
        assert threads.default_threads() == 4

    @pytest.mark.parametrize(("cpus", "count"), [({0, 1, 2, 3}, 3), ({0, 1, 2}, 3), ({0, 1}, 2), ({5}, 1)])
    def test_one_less_where_many_are_all(self, monkeypatch: pytest.MonkeyPatch, cpus: set[int], count: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: cpus)
        assert threads.default_threads() == count

    @pytest.mark.parametrize(("quota", "count"), [("400000", 3), ("350000", 3), ("450000", 4), ("200000", 2)])
    def test_a_quota_is_not_used_up(self, machine: Path, quota: str, count: int) -> None:
        (machine / "cgroup" / "cpu.max").write_text(f"{quota} 100000\n")
        assert threads.default_threads() == count


def test_this_machine() -> None:
    assert 1 <= threads.default_threads() <= threads.physical_cores() <= (os.cpu_count() or 1)
