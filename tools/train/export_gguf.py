"""Writes a trained model as GGUF v3: Q8_0 matrices, F32 norms, tokenizer and chat template.

export_gguf.py MODEL.pt TOKENIZER.json OUT.gguf NAME
"""
import struct
import sys

import numpy as np
import torch

import bpe

ALIGNMENT = 32
TYPE_F32, TYPE_Q8_0 = 0, 8
U32, I32, F32, BOOL, TEXT, ARRAY = 4, 5, 6, 7, 8, 9
NORMAL, CONTROL = 1, 3
TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind, value):
    if kind == TEXT:
        return text(value)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], value)


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + scalar(kind, value)


def array(key, kind, values):
    head = text(key) + struct.pack("<IIQ", ARRAY, kind, len(values))
    return head + b"".join(scalar(kind, v) for v in values)


def quantise(matrix):
    """Q8_0: blocks of 32 with a float16 scale, rounded to nearest even."""
    blocks = matrix.astype(np.float32).reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1) / 127.0).astype(np.float16)
    wide = scale.astype(np.float32)[:, None]
    q = np.rint(np.divide(blocks, wide, out=np.zeros_like(blocks), where=wide > 0))
    out = np.zeros(len(blocks), dtype=[("d", "<f2"), ("q", "i1", 32)])
    out["d"], out["q"] = scale, np.clip(q, -127, 127).astype(np.int8)
    return out.tobytes()


def piece_text(piece, symbols):
    return "".join(symbols[b] for b in piece)


def tokenizer_entries(tokenizer):
    symbols = bpe.byte_symbols()
    pieces = bpe.SPECIALS + [piece_text(p, symbols) for p in tokenizer.pieces[len(bpe.SPECIALS):]]
    merges = [piece_text(a, symbols) + " " + piece_text(b, symbols) for a, b in tokenizer.merges]
    kinds = [CONTROL] * len(bpe.SPECIALS) + [NORMAL] * (len(pieces) - len(bpe.SPECIALS))
    prefix = "tokenizer.ggml."
    return [
        entry(prefix + "model", TEXT, "gpt2"),
        entry(prefix + "pre", TEXT, "smollm"),
        array(prefix + "tokens", TEXT, pieces),
        array(prefix + "token_type", I32, kinds),
        array(prefix + "merges", TEXT, merges),
        entry(prefix + "bos_token_id", U32, tokenizer.eot),
        entry(prefix + "eos_token_id", U32, tokenizer.im_end),
        entry(prefix + "padding_token_id", U32, tokenizer.eot),
        entry(prefix + "add_bos_token", BOOL, False),
        entry("tokenizer.chat_template", TEXT, TEMPLATE),
    ]


def model_entries(c, name):
    head_dim = c["dim"] // c["heads"]
    return [
        entry("general.architecture", TEXT, "llama"),
        entry("general.name", TEXT, name),
        entry("general.license", TEXT, "mit"),
        entry("general.file_type", U32, 7),
        entry("llama.vocab_size", U32, c["vocab"]),
        entry("llama.context_length", U32, c["context"]),
        entry("llama.embedding_length", U32, c["dim"]),
        entry("llama.block_count", U32, c["layers"]),
        entry("llama.feed_forward_length", U32, c["ff"]),
        entry("llama.attention.head_count", U32, c["heads"]),
        entry("llama.attention.head_count_kv", U32, c["kv_heads"]),
        entry("llama.attention.layer_norm_rms_epsilon", F32, c["eps"]),
        entry("llama.rope.dimension_count", U32, head_dim),
        entry("llama.rope.freq_base", F32, c["rope_base"]),
    ]


def tensors(state, layers):
    """(GGUF name, numpy array) in the file's order."""
    yield "token_embd.weight", state["embedding"]
    names = {"attn_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
             "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    for i in range(layers):
        for ours, theirs in names.items():
            yield f"blk.{i}.{theirs}.weight", state[f"layers.{i}.{ours}"]
    yield "output_norm.weight", state["norm"]


def pad(n):
    return (-n) % ALIGNMENT


def main():
    saved = torch.load(sys.argv[1])
    tokenizer = bpe.Tokenizer.load(sys.argv[2])
    entries = model_entries(saved["config"], sys.argv[4]) + tokenizer_entries(tokenizer)
    described, data = [], b""
    for name, tensor in tensors(saved["model"], saved["config"]["layers"]):
        value = tensor.float().numpy()
        kind = TYPE_F32 if value.ndim == 1 else TYPE_Q8_0
        raw = value.astype("<f4").tobytes() if kind == TYPE_F32 else quantise(value)
        shape = value.shape[::-1]
        described.append(text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
                         + struct.pack("<IQ", kind, len(data)))
        data += raw + b"\0" * pad(len(raw))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(described), len(entries))
    head += b"".join(entries) + b"".join(described)
    head += b"\0" * pad(len(head))
    with open(sys.argv[3], "wb") as f:
        f.write(head + data)
    print(sys.argv[3], len(head) + len(data), "bytes,", saved["tokens"], "tokens seen")


if __name__ == "__main__":
    main()
