"""Whose share of which memory: RAM within a container's limit, the GPUs that CUDA shows."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import psutil
import pytest

from llama_tui.engine.devices import Gpus, on_device, ram, visible
from llama_tui.engine.limits import Limit, memory_limits
from llama_tui.engine.protocol import Buffer

MIB = 2**20


class TestVisible:
    @pytest.mark.parametrize(
        ("variable", "chosen"),
        [
            (None, ["a", "b", "c"]),
            ("", []),
            ("0,1,2", ["a", "b", "c"]),
            ("2,0", ["c", "a"]),
            (" 1 , 2 ", ["b", "c"]),
            ("-1", []),
            ("1,-1,2", ["b"]),
            ("0,7,1", ["a"]),
            ("GPU-8932f937", ["a", "b", "c"]),
        ],
    )
    def test_as_cuda_reads_it(self, variable: str | None, chosen: list[str]) -> None:
        assert visible(["a", "b", "c"], variable) == chosen


class TestRam:
    def test_without_a_limit_it_is_the_machines(self) -> None:
        host, here = psutil.virtual_memory(), ram(())
        assert here.total == host.total
        assert abs(here.free - host.available) < host.total / 4  # others work here too

    def test_the_tightest_limit_counts(self) -> None:
        wide, tight = Limit(8 * MIB, 1 * MIB), Limit(6 * MIB, 5 * MIB)
        assert (ram([wide, tight]).total, ram([wide, tight]).free) == (6 * MIB, 1 * MIB)

    def test_a_limit_above_the_machine_is_none(self) -> None:
        assert ram([Limit(2**62, 6 * MIB)]).total == psutil.virtual_memory().total

    def test_a_group_over_its_limit_has_nothing_free(self) -> None:
        assert ram([Limit(4 * MIB, 5 * MIB)]).free == 0


class TestLimits:
    """Folders as the kernel shows them."""

    def version_2(self, folder: Path, limit: str, current: int, cache: int, high: str = "max") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.high").write_text(high + "\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 1\nfile 77\ninactive_file {cache - 3}\nactive_file 3\n")

    def own(self, tmp_path: Path, line: str) -> Path:
        own = tmp_path / "own"
        own.write_text(f"3:cpuset:/elsewhere\n{line}\n")
        return own

    def test_every_group_around_the_process_counts(self, tmp_path: Path) -> None:
        root = tmp_path / "cgroup"
        self.version_2(root / "user.slice", str(8 * MIB), 6 * MIB, 5 * MIB)
        self.version_2(root / "user.slice" / "job", "max", 1 * MIB, 10, high=str(3 * MIB))
        (root / "memory.stat").write_text("")  # the root has statistics and no limit
        found = list(memory_limits(root, self.own(tmp_path, "0::/user.slice/job")))
        assert [(limit.total, limit.used) for limit in found] == [(3 * MIB, 1 * MIB - 10), (8 * MIB, 1 * MIB)]

    def test_in_a_container_the_group_is_what_is_mounted(self, tmp_path: Path) -> None:
        self.version_2(tmp_path / "cgroup", str(8 * MIB), 6 * MIB, 5 * MIB)
        (found,) = memory_limits(tmp_path / "cgroup", self.own(tmp_path, "0::/docker/1234"))
        assert found.free == 7 * MIB

    def test_a_group_without_a_limit_is_none(self, tmp_path: Path) -> None:
        self.version_2(tmp_path / "cgroup", "max", 6 * MIB, 5 * MIB)
        assert list(memory_limits(tmp_path / "cgroup", self.own(tmp_path, "0::/"))) == []

    def test_version_1(self, tmp_path: Path) -> None:
        folder = tmp_path / "cgroup" / "memory" / "job"
        folder.mkdir(parents=True)
        (folder / "memory.limit_in_bytes").write_text(f"{8 * MIB}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{6 * MIB}\n")
        (folder / "memory.stat").write_text(f"cache 1\ntotal_inactive_file {2 * MIB}\ntotal_active_file {MIB}\n")
        (found,) = memory_limits(tmp_path / "cgroup", self.own(tmp_path, "4:memory:/job"))
        assert (found.total, found.free) == (8 * MIB, 5 * MIB)

    def test_where_there_are_no_groups(self, tmp_path: Path) -> None:
        assert list(memory_limits(tmp_path, tmp_path / "absent")) == []


class TestOnDevice:
    buffers = (
        Buffer("CPU", True, 1, 2, 4),
        Buffer("CPU_Mapped", True, 8, 0, 0),
        Buffer("CUDA0", False, 16, 32, 64),
        Buffer("CUDA0_Split", False, 128, 0, 0),
        Buffer("CUDA1", False, 256, 0, 0),
        Buffer("CUDA_Host", True, 512, 0, 0),
    )

    @pytest.mark.parametrize(("device", "size"), [("CUDA0", 16 + 32 + 64 + 128), ("CUDA1", 256), ("CUDA2", 0)])
    def test_adds_up_what_is_there(self, device: str, size: int) -> None:
        assert on_device(self.buffers, device) == size


class TestGpus:
    def test_without_a_driver_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        nvml = fake_nvml([])

        def no_driver() -> None:
            raise nvml.NVMLError("no driver")

        nvml.__dict__["nvmlInit"] = no_driver
        monkeypatch.setitem(sys.modules, "pynvml", nvml)
        assert Gpus().read() == []

    def test_those_that_cuda_shows_by_their_new_numbers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([(80, 10), (24, 20), (16, 1)]))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
        assert [(gpu.name, gpu.label, gpu.total, gpu.used) for gpu in Gpus().read()] == [
            ("CUDA0", "GPU0", 24, 20),
            ("CUDA1", "GPU1", 80, 10),
        ]

    def test_one_that_fails_is_left_out_and_the_others_keep_their_names(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", fake_nvml([(80, 10), None, (16, 1)]))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        assert [gpu.name for gpu in Gpus().read()] == ["CUDA0", "CUDA2"]


def fake_nvml(gpus: list[tuple[int, int] | None]) -> types.ModuleType:
    """A driver with GPUs of this (total, used); None fails when it is read."""

    class NVMLError(Exception):
        pass

    def memory(number: int) -> object:
        gpu = gpus[number]
        if gpu is None:
            raise NVMLError("fell off the bus")
        return types.SimpleNamespace(total=gpu[0], used=gpu[1])

    nvml = types.ModuleType("pynvml")
    nvml.__dict__.update(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(gpus),
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetMemoryInfo=memory,
    )
    return nvml
