"""The network: Gemma 3's shape, small, so that any GGUF engine that knows `gemma3` can run it.

A block normalises its input and its output, queries and keys are normalised by head, the gate is GELU's tanh form,
the head is tied. Every `period`-th layer sees the whole text, the others a window: at 6,000 tokens attention then
costs a third. Matrices and attention run in bfloat16 on a GPU; norms and the loss in float32.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

try:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
except ImportError:  # an older PyTorch: dense masks, for small runs on a CPU
    create_block_mask = flex_attention = None


@dataclass
class Config:
    vocab: int = 8192
    dim: int = 512
    layers: int = 12
    heads: int = 8
    kv_heads: int = 2
    head_dim: int = 64
    ff: int = 1024
    period: int = 3
    window: int = 512
    rope_base: float = 1e6
    window_rope_base: float = 1e4
    eps: float = 1e-6
    context: int = 8192
    dropout: float = 0.1  # of what a block adds, while training

    def windowed(self, layer):
        return layer % self.period != self.period - 1


SIZES = {
    "read": Config(),
    "small": Config(dim=256, layers=8, heads=4, ff=768, period=2, dropout=0.0),
    "tiny": Config(dim=64, layers=2, heads=2, kv_heads=1, head_dim=32, ff=128, period=2, window=64, context=256, dropout=0.0),
}


def rotary_table(base, head_dim, n, device):
    """cos and sin, [n, head_dim / 2], of the pairs (i, head_dim / 2 + i)."""
    inverse = base ** (-torch.arange(0, head_dim, 2, device=device).float() / head_dim)
    angles = torch.outer(torch.arange(n, device=device).float(), inverse)
    return torch.cos(angles), torch.sin(angles)


def rotate(x, cos, sin):
    """x [batch, heads, n, head_dim]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1).to(x.dtype)


def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def linear(x, weight):
    return F.linear(x, weight.to(x.dtype))


def masks(documents, window):
    """Who sees whom: the same document, not later, and in windowed layers less than `window` away.

    documents [batch, n] numbers the document of each token. Returns (whole, windowed), each a block mask of
    flex_attention on a GPU and a boolean tensor [batch, 1, n, n] elsewhere.
    """
    batch, n = documents.shape
    if not documents.is_cuda:
        at = torch.arange(n)
        seen = (documents[:, :, None] == documents[:, None, :]) & (at[:, None] >= at[None, :])
        return seen[:, None], (seen & (at[:, None] - at[None, :] < window))[:, None]

    def whole(b, h, q, k):
        return (documents[b, q] == documents[b, k]) & (q >= k)

    def near(b, h, q, k):
        return (documents[b, q] == documents[b, k]) & (q >= k) & (q - k < window)

    return tuple(create_block_mask(rule, batch, None, n, n, device=documents.device) for rule in (whole, near))


def attention(q, k, v, mask):
    """q [batch, heads, n, head_dim]; k, v [batch, kv_heads, n, head_dim]; scores over sqrt(head_dim)."""
    if q.is_cuda:
        return flex_attention(q, k, v, block_mask=mask, enable_gqa=True)
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    return torch.softmax(scores.float().masked_fill(~mask, float("-inf")), -1).to(q.dtype) @ v


def matrix(rows, columns):
    return nn.Parameter(torch.randn(rows, columns) * columns**-0.5 * 0.6)


def gain(n, value=1.0):
    return nn.Parameter(torch.full((n,), value))


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, kv, added = c.heads * c.head_dim, c.kv_heads * c.head_dim, (2 * c.layers) ** -0.5
        self.attn_norm, self.attn_post, self.ffn_norm = gain(c.dim), gain(c.dim, added), gain(c.dim)
        self.ffn_post, self.q_norm, self.k_norm = gain(c.dim, added), gain(c.head_dim, 1.5), gain(c.head_dim, 1.5)
        self.q, self.k, self.v, self.o = matrix(width, c.dim), matrix(kv, c.dim), matrix(kv, c.dim), matrix(c.dim, width)
        self.gate, self.up, self.down = matrix(c.ff, c.dim), matrix(c.ff, c.dim), matrix(c.dim, c.ff)

    def forward(self, x, c, table, mask):
        h = rms_norm(self.attend(rms_norm(x, self.attn_norm, c.eps), c, table, mask), self.attn_post, c.eps)
        x = x + F.dropout(h, c.dropout, self.training)
        h = rms_norm(x, self.ffn_norm, c.eps)
        h = linear(F.gelu(linear(h, self.gate), approximate="tanh") * linear(h, self.up), self.down)
        return x + F.dropout(rms_norm(h, self.ffn_post, c.eps), c.dropout, self.training)

    def attend(self, h, c, table, mask):
        batch, n, _ = h.shape
        q, k, v = (linear(h, w).view(batch, n, -1, c.head_dim).transpose(1, 2) for w in (self.q, self.k, self.v))
        q = rotate(rms_norm(q, self.q_norm, c.eps), *table)
        k = rotate(rms_norm(k, self.k_norm, c.eps), *table)
        return linear(attention(q, k, v, mask).transpose(1, 2).reshape(batch, n, -1), self.o)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c = config
        self.embedding = nn.Parameter(torch.randn(config.vocab, config.dim) * config.dim**-0.5)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = gain(config.dim)

    def forward(self, ids, whole, near):
        """ids [batch, n] and their masks -> logits [batch, n, vocab]."""
        c, n = self.c, ids.shape[1]
        tables = [rotary_table(b, c.head_dim, n, ids.device) for b in (c.rope_base, c.window_rope_base)]
        x = F.embedding(ids, self.embedding) * c.dim**0.5
        x = x.bfloat16() if ids.is_cuda else x
        for i, layer in enumerate(self.layers):
            w = c.windowed(i)
            x = layer(x, c, tables[w], near if w else whole)
        return linear(rms_norm(x, self.norm, c.eps), self.embedding)
