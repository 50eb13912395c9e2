"""Headers of GGUF files, whole and broken."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

import gguf
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_tui.errors import BadModelFile
from llama_tui.library.gguf import KEPT_ITEMS, Header, Skipped, read_header
from llama_tui.library.tensors import FILE_TYPES, TENSOR_TYPES
from tests.effort import counted
from tests.ggufs import (
    CHATML,
    bad_magic,
    big_endian,
    patch,
    truncate,
    uint16,
    unknown_architecture,
    write_metadata_only,
    write_one_tensor,
    write_tiny_llama,
    wrong_version,
)

VOCABS = Path(__file__).parents[3] / "shared" / "corpus" / "vocabs"


def refused(path: Path) -> BadModelFile:
    with pytest.raises(BadModelFile) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    return caught.value


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


def raw(path: Path, body: bytes, *, tensors: int = 0, keys: int = 0) -> Path:
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, tensors, keys) + body)
    return path


def tensor(name: bytes, shape: tuple[int, ...], kind: int, offset: int = 0) -> bytes:
    return string(name) + struct.pack(f"<I{len(shape)}qIQ", len(shape), *shape, kind, offset)


class TestWhole:
    @pytest.mark.parametrize("quantization", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
    def test_says_what_gguf_py_says(self, tmp_path: Path, quantization: str) -> None:
        path = write_tiny_llama(
            tmp_path / "m.gguf", quantization=quantization, n_ctx_train=1024, n_layer=3, name="Tiny"
        )
        header = read_header(path)
        reader = gguf.GGUFReader(path)
        assert header.quantization == quantization
        assert (header.architecture, header.name, header.n_layer, header.n_ctx_train) == ("llama", "Tiny", 3, 1024)
        assert header.n_tensors == len(reader.tensors)
        assert header.n_params == sum(int(each.n_elements) for each in reader.tensors)
        assert header.tensor_bytes == sum(int(each.n_bytes) for each in reader.tensors)
        assert header.data_offset == reader.data_offset
        assert header.needed_bytes <= header.file_size == path.stat().st_size
        assert header.metadata["tokenizer.chat_template"] == CHATML
        assert header.has_chat_template
        assert header.is_model

    def test_leaves_the_vocabulary_out_but_for_its_size(self, tmp_path: Path) -> None:
        header = read_header(write_tiny_llama(tmp_path / "m.gguf"))
        tokens = header.metadata["tokenizer.ggml.tokens"]
        assert isinstance(tokens, Skipped)
        assert tokens.count > KEPT_ITEMS
        assert header.metadata["tokenizer.ggml.merges"] == (
            "t h", "th e", "Ġ the", "i n", "e r", "o n", "a n", "Ġ a", "r e", "l l", "e ll", "h ell", "hell o",
        )  # fmt: skip

    def test_commonest_tensor_type_where_the_file_does_not_say(self, tmp_path: Path) -> None:
        path = write_tiny_llama(tmp_path / "m.gguf", quantization="Q8_0", drop_key="general.file_type")
        assert read_header(path).quantization == "Q8_0"

    def test_every_kind_of_value(self, tmp_path: Path) -> None:
        pairs = b"".join(
            string(key) + struct.pack("<I", kind) + value
            for key, kind, value in (
                (b"u8", 0, b"\xff"),
                (b"i8", 1, b"\xff"),
                (b"i16", 3, b"\xfe\xff"),
                (b"f32", 6, struct.pack("<f", 0.5)),
                (b"yes", 7, b"\x01"),
                (b"text", 8, string("é\n".encode())),
                (b"not utf-8", 8, string(b"a\xff")),
                (b"list", 9, struct.pack("<IQ3h", 3, 3, 1, -2, 3)),
                (b"texts", 9, struct.pack("<IQ", 8, 2) + string(b"a") + string(b"")),
                (b"long", 9, struct.pack("<IQ", 0, 1000) + bytes(1000)),
                (b"u64", 10, b"\xff" * 8),
                (b"i64", 11, b"\xff" * 8),
                (b"f64", 12, struct.pack("<d", 0.25)),
            )
        )
        header = read_header(raw(tmp_path / "m.gguf", pairs, keys=13))
        assert header.metadata == {
            "u8": 255, "i8": -1, "i16": -2, "f32": 0.5, "yes": True, "text": "é\n", "not utf-8": "a\ufffd",
            "list": (1, -2, 3), "texts": ("a", ""), "long": Skipped(1000), "u64": 2**64 - 1, "i64": -1, "f64": 0.25,
        }  # fmt: skip

    def test_a_huge_text_is_stepped_over(self, tmp_path: Path) -> None:
        body = (
            string(b"a") + struct.pack("<IQ", 8, 20 << 20) + bytes(20 << 20) + string(b"b") + struct.pack("<IB", 0, 7)
        )
        header = read_header(raw(tmp_path / "m.gguf", body, keys=2))
        assert header.metadata == {"a": Skipped(20 << 20), "b": 7}

    @pytest.mark.parametrize(
        ("architecture", "keys", "told"),
        [
            ("clip", {}, "is_projector"),
            ("llama", {"general.type": "mmproj"}, "is_projector"),
            ("llama", {"general.type": "adapter", "adapter.type": "lora"}, "is_adapter"),
            ("controlvector", {}, "is_adapter"),
        ],
    )
    def test_what_is_no_model(self, tmp_path: Path, architecture: str, keys: dict[str, object], told: str) -> None:
        header = read_header(write_one_tensor(tmp_path / "m.gguf", keys, architecture=architecture))
        assert getattr(header, told)
        assert not header.is_model

    def test_split_keys(self, tmp_path: Path) -> None:
        path = write_one_tensor(tmp_path / "m.gguf", {"split.no": uint16(1), "split.count": uint16(3)})
        header = read_header(path)
        assert (header.split_no, header.split_count) == (1, 3)

    def test_a_tensor_type_of_the_future(self, tmp_path: Path) -> None:
        body = tensor(b"a", (64,), 250) + tensor(b"b", (64,), 0, offset=96)
        path = raw(tmp_path / "m.gguf", body + bytes(1024), tensors=2)
        header = read_header(path)
        assert header.tensor_bytes is None
        assert header.n_params == 128
        assert header.types == {"type 250": 64, "F32": 64}

    def test_an_unknown_architecture_is_llama_cpps_to_refuse(self, tmp_path: Path) -> None:
        assert read_header(unknown_architecture(tmp_path / "m.gguf")).architecture == "nonesuch"

    def test_values_of_a_wrong_kind_are_unknown(self, tmp_path: Path) -> None:
        keys = {"general.file_type": "four", "llama.block_count": "many", "general.name": 3, "split.count": "x"}
        header = read_header(write_one_tensor(tmp_path / "m.gguf", keys))
        assert (header.quantization, header.n_layer, header.name, header.split_count) == ("F32", None, "", 1)


class TestBroken:
    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "m.gguf"
        path.touch()
        assert "empty" in refused(path).message

    def test_bad_magic_with_what_it_probably_is(self, tmp_path: Path) -> None:
        path = bad_magic(write_tiny_llama(tmp_path / "m.gguf"))
        error = refused(path)
        assert "not a GGUF" in error.message
        assert "PyTorch" in error.hint

    @pytest.mark.parametrize(
        ("content", "hint"),
        [
            (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
            (b"<!DOCTYPE html>", "web page"),
            (bytes(100), "not finished"),
            (b"abc", "convert"),
        ],
    )
    def test_other_files(self, tmp_path: Path, content: bytes, hint: str) -> None:
        path = tmp_path / "m.gguf"
        path.write_bytes(content)
        assert hint in refused(path).hint

    @pytest.mark.parametrize("version", [0, 1, 4, 99])
    def test_wrong_version(self, tmp_path: Path, version: int) -> None:
        path = wrong_version(write_tiny_llama(tmp_path / "m.gguf"), version)
        assert f"version {version}" in refused(path).message

    def test_big_endian(self, tmp_path: Path) -> None:
        path = big_endian(write_tiny_llama(tmp_path / "m.gguf"))
        assert "big-endian" in refused(path).message

    @pytest.mark.parametrize("missing", [1, 2, 100_000])
    def test_tensors_cut_off_by_so_many_bytes(self, tmp_path: Path, missing: int) -> None:
        path = write_tiny_llama(tmp_path / "m.gguf")
        needed = read_header(path).needed_bytes
        truncate(path, needed)
        read_header(path)
        truncate(path, needed - missing)
        verb = "is" if missing == 1 else "are"
        assert f"{missing:,} of its {needed:,} bytes {verb} missing" in refused(path).message

    def test_cut_off_anywhere_in_the_header(self, tmp_path: Path) -> None:
        path = write_tiny_llama(tmp_path / "m.gguf")
        whole = path.read_bytes()
        end = read_header(path).data_offset - 32
        for size in (*range(4, 400), *range(400, end, 97)):
            path.write_bytes(whole[:size])
            assert "cut off inside its header" in refused(path).message

    @pytest.mark.parametrize(
        ("body", "tensors", "keys", "words"),
        [
            (b"", 1 << 62, 0, "4,611,686,018,427,387,904 tensors"),
            (b"", 0, 1 << 62, "4,611,686,018,427,387,904 keys"),
            (struct.pack("<Q", 1 << 63), 0, 1, "cut off inside its header"),
            (struct.pack("<Q", 100_000), 0, 1, "a name of 100,000 bytes"),
            (string(b""), 0, 1, "a name of 0 bytes"),
            (string(b"k") + struct.pack("<I", 13), 0, 1, "unknown type 13"),
            (string(b"k") + struct.pack("<IQ", 8, 1 << 60), 0, 1, "cut off inside its header"),
            (string(b"k") + struct.pack("<IIQ", 9, 8, 1 << 62), 0, 1, "claims 4,611,686,018,427,387,904 texts"),
            (string(b"k") + struct.pack("<IIQ", 9, 8, 1 << 25), 0, 1, "claims 33,554,432 texts"),
            (string(b"k") + struct.pack("<IIQ", 9, 10, 1 << 63), 0, 1, "cut off inside its header"),
            (string(b"k") + struct.pack("<IIQ", 9, 9, 1), 0, 1, "array of the unknown type 9"),
            (string(b"k") + struct.pack("<IIQ", 9, 8, 300) + b"\xff" * 2400, 0, 1, "cut off inside its header"),
            (2 * (string(b"k") + struct.pack("<IB", 0, 1)), 0, 2, "comes twice"),
            (string(b"general.alignment") + struct.pack("<II", 4, 48), 0, 1, "power of two"),
            (string(b"general.alignment") + struct.pack("<II", 4, 0), 0, 1, "power of two"),
            (tensor(b"t", (-1, 5), 0), 1, 0, "impossible shape [-1, 5]"),
            (tensor(b"t", (1 << 62, 1 << 62), 0), 1, 0, "impossible shape"),
            (tensor(b"t", (1 << 62,), 28), 1, 0, "damaged header"),
            (tensor(b"t", (1, 1, 1, 1, 1), 0), 1, 0, "5 dimensions"),
            (string(b"t") + struct.pack("<I", 1 << 31), 1, 0, "2,147,483,648 dimensions"),
            (tensor(b"t", (33,), 2), 1, 0, "not a multiple of 32"),
            (tensor(b"t", (32,), 0, offset=1 << 63), 1, 0, "at 9,223,372,036,854,775,808"),
            (tensor(b"t", (32,), 0, offset=64), 1, 0, "at 64, not at 0"),
            (tensor(b"t", (32,), 250, offset=0) + tensor(b"u", (32,), 0, offset=1 << 63), 2, 0, "at 9,223,372,036"),
        ],
    )
    def test_absurd_counts_and_sizes_are_refused_at_once(
        self, tmp_path: Path, body: bytes, tensors: int, keys: int, words: str
    ) -> None:
        path = raw(tmp_path / "m.gguf", body, tensors=tensors, keys=keys)
        with path.open("r+b") as file:
            file.truncate(1 << 40)
        with counted() as effort:
            assert words in refused(path).message
        assert effort.calls < 10_000

    def test_a_directory(self, tmp_path: Path) -> None:
        path = tmp_path / "m.gguf"
        path.mkdir()
        assert "folder" in refused(path).message

    def test_vanished(self, tmp_path: Path) -> None:
        assert "does not exist" in refused(tmp_path / "m.gguf").message

    @pytest.mark.skipif(os.getuid() == 0, reason="root may read every file")
    def test_no_permission(self, tmp_path: Path) -> None:
        path = write_tiny_llama(tmp_path / "m.gguf")
        path.chmod(0)
        assert "permission" in refused(path).message

    def test_permission_as_the_system_reports_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def deny(*_: object) -> int:
            raise PermissionError(13, "Permission denied")

        path = write_tiny_llama(tmp_path / "m.gguf")
        monkeypatch.setattr(os, "open", deny)
        assert "permission denied" in refused(path).message

    def test_a_disk_that_fails_while_reading(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        path = write_tiny_llama(tmp_path / "m.gguf")
        monkeypatch.setattr(os, "pread", fail)
        assert "Input/output error" in refused(path).message

    def test_a_pipe_does_not_hold_the_program(self, tmp_path: Path) -> None:
        path = tmp_path / "m.gguf"
        os.mkfifo(path)
        assert "regular file" in refused(path).message

    def test_a_name_that_no_file_can_have(self) -> None:
        with pytest.raises(BadModelFile):
            read_header(Path("a\0b.gguf"))


class TestAnyBytes:
    """Whatever lies in a file, a header or `BadModelFile` comes out, soon."""

    @settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.binary(max_size=2000), tensors=st.integers(0, 5), keys=st.integers(0, 5))
    def test_after_a_good_beginning(self, tmp_path: Path, data: bytes, tensors: int, keys: int) -> None:
        check(raw(tmp_path / "m.gguf", data, tensors=tensors, keys=keys))

    @settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        changes=st.lists(
            st.tuples(st.integers(0, 1), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=9))
        )
    )
    def test_a_model_with_bytes_overwritten(self, tmp_path: Path, changes: list[tuple[int, float, bytes]]) -> None:
        path = write_metadata_only(tmp_path / "m.gguf", {"general.file_type": 15, "llama.block_count": 2})
        for spread, place, data in changes:
            patch(path, int(place * (24 if spread else path.stat().st_size)), data)
        check(path)

    @settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(place=st.floats(0, 1, exclude_max=True), data=st.binary(min_size=1, max_size=9))
    def test_a_real_header_with_bytes_overwritten(self, tmp_path: Path, place: float, data: bytes) -> None:
        path = write_tiny_llama(tmp_path / "m.gguf", n_layer=1)
        check(patch(path, int(place * read_header(path).data_offset), data))


# Headers that are nearly right: every part is well formed, and some numbers in it lie.

_absurd = (0, 255, 1 << 16, 1 << 25, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 64) - 1)
_kinds = st.sampled_from([*range(13)] * 5 + [13, 255, (1 << 32) - 1])
_sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def _lying(value: int) -> st.SearchStrategy[int]:
    """Mostly the truth."""
    return st.sampled_from([value] * 80 + [value + 1, max(0, value - 1), *_absurd])


@st.composite
def _texts(draw: st.DrawFn, text: st.SearchStrategy[bytes] = st.binary(max_size=12)) -> bytes:  # noqa: B008
    content = draw(text)
    return struct.pack("<Q", draw(_lying(len(content)))) + content


@st.composite
def _values(draw: st.DrawFn, kind: int, depth: int = 0) -> bytes:
    if kind == 8:
        return draw(_texts())
    if kind == 9 and depth < 3:
        inside = draw(_kinds)
        count = draw(st.integers(0, 70))
        items = b"".join(draw(_values(inside, depth + 1)) for _ in range(min(count, 5 if inside in (8, 9) else count)))
        return struct.pack("<IQ", inside, draw(_lying(count))) + items
    return draw(st.binary(min_size=_sizes.get(kind, 0), max_size=_sizes.get(kind, 0)))


_keys = st.sampled_from(
    [b"general.architecture", b"general.alignment", b"general.file_type", b"general.name", b"general.type",
     b"llama.block_count", b"split.count", b"split.no", b"tokenizer.ggml.tokens", b"tokenizer.chat_template"]
) | st.binary(min_size=1, max_size=4)  # fmt: skip


@st.composite
def _tensors(draw: st.DrawFn, place: int) -> tuple[bytes, int]:
    """A tensor's description, and where the next one should begin."""
    kind = draw(st.sampled_from([0, 1, 2, 8, 12, 24, 250]))
    shape = draw(st.lists(st.sampled_from([0, 1, 32, 256]), min_size=1, max_size=4))
    lies = [draw(_lying(length)) for length in shape]
    offset = draw(_lying(place)) if draw(st.booleans()) else place
    described = draw(_texts(st.just(b"blk.%d.weight" % place))) + struct.pack(
        "<I", draw(_lying(len(shape))) % (1 << 32)
    )
    described += b"".join(struct.pack("<Q", length) for length in lies) + struct.pack("<IQ", kind, offset)
    size = 4
    for length in shape:
        size *= length
    return described, place + size + -size % 32


@st.composite
def _headers(draw: st.DrawFn) -> bytes:
    keys = draw(st.lists(_keys, max_size=5, unique=draw(st.sampled_from([True, True, True, False]))))
    body = b""
    for key in keys:
        kind = draw(_kinds)
        body += draw(_texts(st.just(key))) + struct.pack("<I", kind) + draw(_values(kind))
    place, n_tensors = 0, draw(st.integers(0, 4))
    for _ in range(n_tensors):
        described, place = draw(_tensors(place))
        body += described
    version = draw(st.sampled_from([2, *[3] * 30, 4, 3 << 24]))
    head = b"GGUF" + struct.pack("<IQQ", version, draw(_lying(n_tensors)), draw(_lying(len(keys))))
    return head + body + bytes(draw(st.sampled_from([0, 31, 4096, 300_000])))


@settings(max_examples=250, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(data=_headers())
def test_a_header_whose_numbers_lie(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "lying.gguf"
    path.write_bytes(data)
    with counted() as effort:
        check(path)
    assert effort.calls < 10_000


def check(path: Path) -> None:
    try:
        header = read_header(path)
    except BadModelFile as error:
        assert str(path) in error.message
        return
    assert isinstance(header, Header)
    told = (header.architecture, header.name, header.type, header.quantization)
    assert all(isinstance(text, str) for text in told)
    assert isinstance(header.n_layer, int | None)
    assert header.needed_bytes <= header.file_size


class TestTables:
    def test_tensor_types_are_those_of_the_installed_ggml(self) -> None:
        llama_cpp = pytest.importorskip("llama_cpp")
        libraries = sorted((Path(llama_cpp.__file__).parent / "lib").glob("libggml-base.*"))
        ggml = ctypes.CDLL(str(libraries[0]))
        ggml.ggml_type_size.restype = ctypes.c_size_t
        ggml.ggml_blck_size.restype = ctypes.c_int64
        ggml.ggml_type_name.restype = ctypes.c_char_p
        for kind, (name, block, size) in TENSOR_TYPES.items():
            told = (ggml.ggml_type_name(kind).decode().upper(), ggml.ggml_blck_size(kind), ggml.ggml_type_size(kind))
            assert told == (name, block, size)

    def test_every_type_that_gguf_py_knows_is_there(self) -> None:
        assert {int(kind) for kind in gguf.GGMLQuantizationType} <= TENSOR_TYPES.keys()
        known = {int(kind) for kind in gguf.LlamaFileType if kind != gguf.LlamaFileType.GUESSED}
        assert known <= FILE_TYPES.keys()
        for kind in known:
            name = gguf.LlamaFileType(kind).name.removeprefix("ALL_").removeprefix("MOSTLY_").removesuffix("_MOE")
            assert FILE_TYPES[kind] == name


@pytest.mark.corpus
@pytest.mark.skipif(not VOCABS.is_dir(), reason=f"{VOCABS} is not there")
class TestRealVocabularies:
    def test_are_read_and_are_no_models(self) -> None:
        for path in VOCABS.glob("*.gguf"):
            header = read_header(path)
            assert header.n_tensors == 0
            assert not header.is_model
            assert isinstance(header.metadata["tokenizer.ggml.tokens"], Skipped)

    def test_quickly(self) -> None:
        path = VOCABS / "ggml-vocab-qwen2.gguf"
        with counted() as effort:
            header = read_header(path)
        assert header.metadata["tokenizer.ggml.tokens"] == Skipped(151936)
        assert effort.calls < 3 * 151936
