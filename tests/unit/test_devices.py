"""Whose share of which memory: RAM within a container's limit, the GPUs that CUDA shows."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import psutil
import pytest

from llama_tui.engine import devices
from llama_tui.engine.devices import Gpus, on_device, ram, visible
from llama_tui.engine.protocol import Buffer

GIB = 2**30


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
    @pytest.fixture
    def cgroup(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(devices, "_CGROUP", tmp_path)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=64 * GIB, available=40 * GIB))
        return tmp_path

    def limit(self, cgroup: Path, limit: str, current: int, cache: int) -> None:
        (cgroup / "memory.max").write_text(limit + "\n")
        (cgroup / "memory.current").write_text(f"{current}\n")
        (cgroup / "memory.stat").write_text(f"anon 1\nfile {cache}\n")

    def test_without_a_limit_it_is_the_machines(self, cgroup: Path) -> None:
        assert (ram().total, ram().used) == (64 * GIB, 24 * GIB)

    def test_no_limit_in_words(self, cgroup: Path) -> None:
        self.limit(cgroup, "max", 5 * GIB, 0)
        assert (ram().total, ram().used) == (64 * GIB, 24 * GIB)

    def test_a_containers_limit_without_its_page_cache(self, cgroup: Path) -> None:
        self.limit(cgroup, str(8 * GIB), 6 * GIB, 5 * GIB)
        assert (ram().total, ram().used) == (8 * GIB, 1 * GIB)

    def test_a_limit_above_the_machine_is_none(self, cgroup: Path) -> None:
        self.limit(cgroup, str(2**62), 6 * GIB, 5 * GIB)
        assert ram().total == 64 * GIB

    def test_this_machine(self) -> None:
        here = ram()
        assert 0 < here.used < here.total


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
