"""What a model is said to take, by the header of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llama_tui.library import fit
from llama_tui.library.fit import RAM, Gpu, Network
from llama_tui.library.gguf import read_header
from llama_tui.settings.items import Adapter, Override
from llama_tui.settings.params import BY_NAME, defaults
from llama_tui.settings.values import BadValue, Value
from tests import ggufs

MIB = 2**20


def params(**changes: Value) -> dict[str, Value]:
    return defaults("load") | {"n_ctx": 4096} | changes


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    """Four blocks of 256 values; the output is a matrix of its own."""
    path = ggufs.write_tiny_llama(tmp_path_factory.mktemp("fit") / "model.gguf", n_embd=256, n_layer=4)
    return Network.of([read_header(path)])


class TestShares:
    def test_the_ram_holds_all_without_a_gpu(self, network: Network) -> None:
        found = fit.estimate(network, params(n_gpu_layers=-1))
        (ram,) = found.shares
        assert ram.weights == sum(network.blocks) + network.embeddings + network.output
        assert ram.kv == 4 * 4096 * 2 * 256 * 2
        assert found.mapped == ram.weights
        assert found.inexact == ""

    def test_the_last_layers_go_to_the_gpu_and_the_output_first(self, network: Network) -> None:
        ram, gpu = fit.estimate(network, params(n_gpu_layers=3), [Gpu("CUDA0", 0)]).shares
        assert gpu.weights == network.blocks[2] + network.blocks[3] + network.output
        assert gpu.kv == ram.kv == 2 * 4096 * 2 * 256 * 2
        assert ram.weights == network.blocks[0] + network.blocks[1] + network.embeddings
        assert gpu.other == fit.CONTEXT_BYTES

    def test_the_cache_stays_in_ram_if_it_shall(self, network: Network) -> None:
        ram, gpu = fit.estimate(network, params(n_gpu_layers=-1, offload_kqv=False), [Gpu("CUDA0", 0)]).shares
        assert (ram.kv, gpu.kv) == (4 * 4096 * 2 * 256 * 2, 0)

    @pytest.mark.parametrize(
        ("changes", "blocks"),
        [
            ({}, (2, 2)),  # by what is free: three parts to one, of four blocks and the output
            ({"tensor_split": (1.0, 4.0)}, (1, 3)),
            ({"split_mode": "none", "main_gpu": 1}, (0, 4)),
            ({"devices": ("CUDA1",)}, (0, 4)),
        ],
    )
    def test_over_two_gpus(self, network: Network, changes: dict[str, Value], blocks: tuple[int, int]) -> None:
        gpus = [Gpu("CUDA0", 40 * MIB), Gpu("CUDA1", 60 * MIB)]
        found = fit.estimate(network, params(n_gpu_layers=-1, **changes), gpus)
        held = {share.device: share.kv // (4096 * 2 * 256 * 2) for share in found.shares}
        assert (held.get("CUDA0", 0), held.get("CUDA1", 0)) == blocks

    def test_a_gpu_gets_a_copy_of_tied_embeddings(self, tmp_path: Path) -> None:
        path = ggufs.write_tiny_llama(tmp_path / "tied.gguf", n_embd=256, tied=True)
        tied = Network.of([read_header(path)])
        ram, gpu = fit.estimate(tied, params(n_gpu_layers=1), [Gpu("CUDA0", 0)]).shares
        assert gpu.weights == tied.embeddings + tied.output
        assert ram.weights == tied.embeddings + sum(tied.blocks)

    @pytest.mark.parametrize(("type_", "bits"), [("f32", 32), ("f16", 16), ("q8_0", 8.5), ("iq4_nl", 4.5)])
    def test_a_cache_of_another_type(self, network: Network, type_: str, bits: float) -> None:
        found = fit.estimate(network, params(type_k=type_, type_v=type_))
        assert found.ram.kv == 4 * 4096 * 2 * 256 * bits / 8

    def test_weights_that_are_not_mapped_cannot_be_dropped(self, network: Network) -> None:
        assert fit.estimate(network, params(use_mmap=False)).mapped == 0
        assert fit.estimate(network, params(use_mlock=True)).mapped == 0


class TestSearches:
    def test_the_longest_context_is_the_longest(self, network: Network) -> None:
        wanted = params(n_ctx=65536)
        room = 200 * MIB
        n_ctx = fit.longest_context(network, wanted, [], room)
        assert 0 < n_ctx < 65536
        assert fit.estimate(network, wanted | {"n_ctx": n_ctx}).ram.total <= room
        assert fit.estimate(network, wanted | {"n_ctx": n_ctx + 256}).ram.total > room
        assert fit.longest_context(network, wanted, [], MIB) == 0

    def test_the_most_layers_are_the_most(self, network: Network) -> None:
        gpus = [Gpu("CUDA0", fit.CONTEXT_BYTES + 40 * MIB)]
        layers = fit.most_layers(network, params(n_ctx=16384), gpus, 2**33)
        assert 0 < layers < 5
        assert fit.fits(fit.estimate(network, params(n_ctx=16384), gpus, layers), gpus, 2**33)
        assert not fit.fits(fit.estimate(network, params(n_ctx=16384), gpus, layers + 1), gpus, 2**33)
        assert fit.most_layers(network, params(), [], 2**33) == 0


class TestUnusual:
    @pytest.mark.parametrize(
        ("key", "reason"),
        [
            ("attention.kv_lora_rank", "latent attention"),
            ("ssm.state_size", "recurrent layers"),
            ("expert_count", "a mixture of experts"),
        ],
    )
    def test_what_is_not_plain_attention_is_called_so_and_never_takes_less(
        self, tmp_path: Path, key: str, reason: str
    ) -> None:
        path = ggufs.write_tiny_llama(tmp_path / "model.gguf", n_embd=256)
        header = read_header(path)
        plain = Network.of([header])
        unusual = Network.of([header], [Override(f"llama.{key}", "int", 16)])
        assert (plain.inexact, unusual.inexact) == ("", reason)
        ours, theirs = (fit.estimate(network, params()).ram for network in (plain, unusual))
        assert theirs.kv >= ours.kv
        assert theirs.compute >= ours.compute

    def test_a_file_without_the_usual_keys(self, tmp_path: Path) -> None:
        odd = Network.of([read_header(ggufs.write_one_tensor(tmp_path / "odd.gguf"))])
        assert odd.inexact
        assert fit.estimate(odd, params()).ram.weights == 64 * 32 * 4

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.dictionaries(
            st.sampled_from([
                "block_count", "embedding_length", "attention.head_count", "attention.head_count_kv",
                "attention.key_length", "feed_forward_length", "ssm.inner_size", "attention.sliding_window",
            ]),
            st.one_of(st.integers(-(2**63), 2**64), st.floats(), st.text(max_size=3), st.booleans()),
        )
    )  # fmt: skip
    def test_whatever_a_header_claims_there_is_an_answer(self, tiny_model: Path, claims: dict[str, object]) -> None:
        overrides = [Override(f"llama.{key}", "int", value) for key, value in claims.items()]  # pyright: ignore[reportArgumentType]
        found = Network.of([read_header(tiny_model)], overrides)
        assert len(found.blocks) <= 2
        assert fit.estimate(found, params(n_gpu_layers=-1), [Gpu("CUDA0", 1)]).shares[0].device == RAM


class TestItems:
    @pytest.mark.parametrize(
        ("item", "path", "scale"),
        [
            ("style.gguf:0.5", "/models/style.gguf", 0.5),
            ("style.gguf", "/models/style.gguf", 1.0),
            ("sub/odd:name.gguf:-2", "/models/sub/odd:name.gguf", -2.0),
            ("/abs/style:1.gguf", "/abs/style:1.gguf", 1.0),
        ],
    )
    def test_an_adapter(self, item: str, path: str, scale: float) -> None:
        assert Adapter.of(item, "/models/model.gguf") == Adapter(Path(path), scale)

    @pytest.mark.parametrize(
        ("item", "override"),
        [
            ("a.b=int:-3", Override("a.b", "int", -3)),
            ("a.b=float:1e-5", Override("a.b", "float", 1e-5)),
            ("a.b=bool:false", Override("a.b", "bool", False)),
            ("a.b=str:x=y:z", Override("a.b", "str", "x=y:z")),
        ],
    )
    def test_an_override(self, item: str, override: Override) -> None:
        assert BY_NAME["kv_overrides"].check([item]) == (item,)
        assert Override.of(item) == override

    @pytest.mark.parametrize(
        "item", ["a.b", "a.b=3", "a.b=int:x", "a.b=bool:yes", "=int:3", "a.b=float:.", "a.b=int:" + "9" * 19]
    )
    def test_no_override(self, item: str) -> None:
        with pytest.raises(BadValue):
            BY_NAME["kv_overrides"].check([item])

    @pytest.mark.parametrize("item", ["host", "host:", ":50052", "http://host:1", "host:123456"])
    def test_no_rpc_server(self, item: str) -> None:
        with pytest.raises(BadValue):
            BY_NAME["rpc_servers"].check([item])

    def test_auto_is_a_number_of_layers(self) -> None:
        layers = BY_NAME["n_gpu_layers"]
        assert layers.parse("auto") is layers.check("auto") is None
        assert layers.format(None) == "auto"
        assert (layers.parse("-1"), layers.default) == (-1, 0)
