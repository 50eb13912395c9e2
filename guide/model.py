"""A plain llama in PyTorch, laid out so that llama.cpp computes the same thing.

Rotary embedding turns neighbouring pairs (0,1), (2,3), …: that is what llama.cpp does for the
`llama` architecture, so the weights are exported without a permutation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. Widths are multiples of 32, because Q8_0 packs 32 weights a block."""

    n_vocab: int
    n_embd: int = 256
    n_layer: int = 4
    n_head: int = 4
    n_ff: int = 704
    n_ctx: int = 2048
    rope_base: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head


class Norm(nn.Module):
    """Root-mean-square norm, as llama.cpp computes it."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Scale every vector to unit mean square."""
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.n_head = shape.n_head
        self.q = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.k = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.v = nn.Linear(shape.n_embd, shape.n_embd, bias=False)
        self.out = nn.Linear(shape.n_embd, shape.n_embd, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Mix each position with those before it. Padding stands at the end, so no mask is needed."""
        batch, length, width = x.shape
        heads = (batch, length, self.n_head, width // self.n_head)
        q = rotate(self.q(x).view(heads).transpose(1, 2), cos, sin)
        k = rotate(self.k(x).view(heads).transpose(1, 2), cos, sin)
        v = self.v(x).view(heads).transpose(1, 2)
        # Written out: on a CPU the fused kernel takes five times as long going back over short rows.
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        seen = torch.ones(length, length, dtype=torch.bool).tril()
        y = scores.masked_fill(~seen, float("-inf")).float().softmax(-1).to(v.dtype) @ v
        return self.out(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    """Attention and a gated feed-forward, each on a normed copy added back to the stream."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        self.attn_norm = Norm(shape.n_embd, shape.norm_eps)
        self.attn = Attention(shape)
        self.ffn_norm = Norm(shape.n_embd, shape.norm_eps)
        self.gate = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.up = nn.Linear(shape.n_embd, shape.n_ff, bias=False)
        self.down = nn.Linear(shape.n_ff, shape.n_embd, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """One layer."""
        x = x + self.dropout(self.attn(self.attn_norm(x), cos, sin))
        y = self.ffn_norm(x)
        return x + self.dropout(self.down(F.silu(self.gate(y)) * self.up(y)))


class Guide(nn.Module):
    """The whole network: token ids in, logits out."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.n_vocab, shape.n_embd)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.n_layer))
        self.norm = Norm(shape.n_embd, shape.norm_eps)
        self.head = nn.Linear(shape.n_embd, shape.n_vocab, bias=False)
        self.dropout = nn.Dropout(dropout)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                # Layers that write into the stream start smaller, so that depth does not add noise.
                deep = name.endswith(("attn.out.weight", "down.weight"))
                scale = 0.02 / (2 * shape.n_layer) ** 0.5 if deep else 0.02
                nn.init.normal_(weight, std=scale * (256 / shape.n_embd) ** 0.5)
        cos, sin = rotation(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def hidden(self, ids: Tensor) -> Tensor:
        """The normed stream before the head."""
        length = ids.shape[1]
        x = self.dropout(self.embed(ids))
        for block in self.blocks:
            x = block(x, self.cos[:length], self.sin[:length])
        return self.norm(x)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of every position."""
        return self.head(self.hidden(ids))

    @torch.no_grad()
    def greedy(self, ids: list[int], stop: int, limit: int = 300) -> list[int]:
        """The most probable continuation, without a cache: for checks, not for speed."""
        out: list[int] = []
        while len(out) < limit:
            token = int(self(torch.tensor([ids + out]))[0, -1].argmax())
            if token == stop:
                break
            out.append(token)
        return out


def rotation(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every position's angles, one column a pair."""
    pairs = torch.arange(0, shape.head_dim, 2, dtype=torch.float32)
    angles = torch.outer(torch.arange(shape.n_ctx, dtype=torch.float32), shape.rope_base ** (-pairs / shape.head_dim))
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of the last axis by their position's angle."""
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2)
