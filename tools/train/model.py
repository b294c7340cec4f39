"""The default model: a small llama (RMSNorm, rotary pairs (2i, 2i+1), grouped queries, SwiGLU, tied head).

Linear layers and attention run in bfloat16 (oneDNN's AMX path makes that about four times as fast as
float32 on our CPU), norms and the residual stream's sums in float32 where it matters.
"""
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    vocab: int = 4096
    dim: int = 256
    layers: int = 6
    heads: int = 8
    kv_heads: int = 4
    ff: int = 704
    rope_base: float = 20000.0
    eps: float = 1e-5
    context: int = 4096

    @property
    def head_dim(self):
        return self.dim // self.heads


def rotary_table(config, n):
    """cos and sin, [n, head_dim / 2]."""
    inverse = config.rope_base ** (-torch.arange(0, config.head_dim, 2).float() / config.head_dim)
    angles = torch.outer(torch.arange(n).float(), inverse)
    return torch.cos(angles).bfloat16(), torch.sin(angles).bfloat16()


def rotate(x, cos, sin):
    """x [batch, heads, n, head_dim]; the pairs are neighbours, as GGUF's llama tensors expect."""
    pairs = x.unflatten(-1, (-1, 2))
    a, b = pairs[..., 0], pairs[..., 1]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def rms_norm(x, weight, eps):
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    return x * scale.to(x.dtype) * weight.to(x.dtype)


def linear(x, weight):
    return F.linear(x, weight.to(x.dtype))


QUERY_BLOCK = 256


def attention(q, k, v, scale):
    """Causal attention in blocks of queries, so that about half of the scores are never computed.
    q, k, v [batch * heads, n, head_dim]."""
    n, out = q.shape[1], []
    for start in range(0, n, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, n)
        scores = torch.bmm(q[:, start:end] * scale, k[:, :end].transpose(1, 2))
        mask = torch.full((end - start, end), float("-inf"), dtype=scores.dtype).triu(start + 1)
        out.append(torch.bmm(torch.softmax(scores + mask, -1), v[:, :end]))
    return torch.cat(out, 1)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        kv = c.kv_heads * c.head_dim
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(c.dim)), nn.Parameter(torch.ones(c.dim))
        self.q, self.k, self.v = matrix(c.dim, c.dim), matrix(kv, c.dim), matrix(kv, c.dim)
        self.o = nn.Parameter(torch.zeros(c.dim, c.dim))
        self.gate, self.up = matrix(c.ff, c.dim), matrix(c.ff, c.dim)
        self.down = nn.Parameter(torch.zeros(c.dim, c.ff))

    def forward(self, x, c, cos, sin):
        x = x + self.attend(rms_norm(x, self.attn_norm, c.eps), c, cos, sin)
        h = rms_norm(x, self.ffn_norm, c.eps)
        return x + linear(F.silu(linear(h, self.gate)) * linear(h, self.up), self.down)

    def attend(self, h, c, cos, sin):
        batch, n, _ = h.shape
        q = linear(h, self.q).view(batch, n, c.heads, -1).transpose(1, 2)
        k = linear(h, self.k).view(batch, n, c.kv_heads, -1).transpose(1, 2)
        v = linear(h, self.v).view(batch, n, c.kv_heads, -1).transpose(1, 2)
        group = c.heads // c.kv_heads
        q = rotate(q, cos, sin).flatten(0, 1)
        k = rotate(k, cos, sin).repeat_interleave(group, 1).flatten(0, 1)
        v = v.repeat_interleave(group, 1).flatten(0, 1)
        out = attention(q, k, v, c.head_dim**-0.5)
        return linear(out.view(batch, c.heads, n, -1).transpose(1, 2).flatten(2), self.o)


def matrix(rows, columns):
    return nn.Parameter(torch.randn(rows, columns) * columns**-0.5 * 0.6)


class Model(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c = config
        self.embedding = nn.Parameter(torch.randn(config.vocab, config.dim) * 0.02)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.Parameter(torch.ones(config.dim))

    def forward(self, ids):
        """Logits [batch, n, vocab] in bfloat16."""
        cos, sin = rotary_table(self.c, ids.shape[1])
        x = F.embedding(ids, self.embedding).bfloat16()
        for layer in self.layers:
            x = layer(x, self.c, cos, sin)
        return linear(rms_norm(x, self.norm, self.c.eps), self.embedding)
