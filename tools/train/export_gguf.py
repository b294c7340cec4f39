"""Writes a trained model as GGUF v3: quantised matrices, F32 norms, tokenizer and chat template.

export_gguf.py MODEL.pt TOKENIZER.json OUT.gguf NAME [TYPE]        TYPE: Q8_0 (default), Q6_K or MIXED

MIXED keeps embedding and attention as Q8_0 and takes Q6_K for the feed-forward matrices, which are most of the file.
"""
import struct
import sys

import numpy as np
import torch

import bpe

ALIGNMENT = 32
F32, Q8_0, Q6_K = 0, 8, 14
FILE_TYPE = {"Q8_0": 7, "Q6_K": 18, "MIXED": 18}
U32, I32, FLOAT, BOOL, TEXT, ARRAY = 4, 5, 6, 7, 8, 9
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
    return struct.pack({U32: "<I", I32: "<i", FLOAT: "<f", BOOL: "<?"}[kind], value)


def entry(key, kind, value):
    return text(key) + struct.pack("<I", kind) + scalar(kind, value)


def array(key, kind, values):
    head = text(key) + struct.pack("<IIQ", ARRAY, kind, len(values))
    return head + b"".join(scalar(kind, v) for v in values)


def quantise_q8_0(matrix):
    """Blocks of 32 with a float16 scale, rounded to nearest even."""
    blocks = matrix.astype(np.float32).reshape(-1, 32)
    scale = (np.abs(blocks).max(axis=1) / 127.0).astype(np.float16)
    wide = scale.astype(np.float32)[:, None]
    q = np.rint(np.divide(blocks, wide, out=np.zeros_like(blocks), where=wide > 0))
    out = np.zeros(len(blocks), dtype=[("d", "<f2"), ("q", "i1", 32)])
    out["d"], out["q"] = scale, np.clip(q, -127, 127).astype(np.int8)
    return out.tobytes()


def best_scales(blocks, low, high, tries=9):
    """For rows of `blocks` the scale, of some near the largest value's, with the least squared error. [n]"""
    top = np.take_along_axis(blocks, np.abs(blocks).argmax(1)[:, None], 1)[:, 0]
    best, least = np.zeros(len(blocks), np.float32), np.full(len(blocks), np.inf, np.float32)
    for i in range(tries):
        scale = top / (low + (i - tries // 2) * 0.1 * 2)
        inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale != 0)
        q = np.clip(np.rint(blocks * inverse[:, None]), low, high)
        weight = blocks * blocks
        dot, square = (weight * q * blocks).sum(1), (weight * q * q).sum(1)
        fitted = np.divide(dot, square, out=np.zeros_like(dot), where=square > 0)
        error = (weight * (blocks - fitted[:, None] * q) ** 2).sum(1)
        better = error < least
        best[better], least[better] = fitted[better], error[better]
    return best


def quantise_q6_k(matrix):
    """Super-blocks of 256: 16 blocks with a scale of 8 bits each, weights of 6 bits from -32 to 31."""
    x = matrix.astype(np.float32).reshape(-1, 16, 16)
    n = len(x)
    scales = best_scales(x.reshape(-1, 16), -32, 31).reshape(n, 16)
    top = np.take_along_axis(scales, np.abs(scales).argmax(1)[:, None], 1)[:, 0]
    d = (top / -128.0).astype(np.float16)
    wide = d.astype(np.float32)[:, None]
    sub = np.clip(np.rint(np.divide(scales, wide, out=np.zeros_like(scales), where=wide != 0)), -128, 127)
    step = (wide * sub)[:, :, None]
    q = np.clip(np.rint(np.divide(x, step, out=np.zeros_like(x), where=step != 0)), -32, 31).astype(np.int32) + 32
    q = q.reshape(n, 2, 4, 32).astype(np.uint8)  # halves of 128, four rows of 32 in each
    low = np.concatenate((q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4), 2)
    high = q[:, :, 0] >> 4 | (q[:, :, 1] >> 4) << 2 | (q[:, :, 2] >> 4) << 4 | (q[:, :, 3] >> 4) << 6
    out = np.zeros(n, dtype=[("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
    out["ql"], out["qh"] = low.reshape(n, 128), high.reshape(n, 64)
    out["scales"], out["d"] = sub.astype(np.int8), d
    return out.tobytes()


def tokenizer_entries(tokenizer):
    symbols = bpe.byte_symbols()

    def written(piece):
        return "".join(symbols[b] for b in piece)

    pieces = bpe.SPECIALS + [written(p) for p in tokenizer.pieces[len(bpe.SPECIALS):]]
    kinds = [CONTROL] * len(bpe.SPECIALS) + [NORMAL] * (len(pieces) - len(bpe.SPECIALS))
    prefix = "tokenizer.ggml."
    return [
        entry(prefix + "model", TEXT, "gpt2"),
        entry(prefix + "pre", TEXT, "smollm"),
        array(prefix + "tokens", TEXT, pieces),
        array(prefix + "token_type", I32, kinds),
        array(prefix + "merges", TEXT, [written(a) + " " + written(b) for a, b in tokenizer.merges]),
        entry(prefix + "bos_token_id", U32, tokenizer.eot),
        entry(prefix + "eos_token_id", U32, tokenizer.im_end),
        entry(prefix + "padding_token_id", U32, tokenizer.eot),
        entry(prefix + "add_bos_token", BOOL, False),
        entry("tokenizer.chat_template", TEXT, TEMPLATE),
    ]


def model_entries(c, name, file_type):
    near = [i % c["period"] != c["period"] - 1 for i in range(c["layers"])]
    return [
        entry("general.architecture", TEXT, "gemma3"),
        entry("general.name", TEXT, name),
        entry("general.license", TEXT, "cc-by-sa-4.0"),
        entry("general.file_type", U32, FILE_TYPE[file_type]),
        entry("gemma3.vocab_size", U32, c["vocab"]),
        entry("gemma3.context_length", U32, c["context"]),
        entry("gemma3.embedding_length", U32, c["dim"]),
        entry("gemma3.block_count", U32, c["layers"]),
        entry("gemma3.feed_forward_length", U32, c["ff"]),
        entry("gemma3.attention.head_count", U32, c["heads"]),
        entry("gemma3.attention.head_count_kv", U32, c["kv_heads"]),
        entry("gemma3.attention.key_length", U32, c["head_dim"]),
        entry("gemma3.attention.value_length", U32, c["head_dim"]),
        entry("gemma3.attention.layer_norm_rms_epsilon", FLOAT, c["eps"]),
        entry("gemma3.attention.sliding_window", U32, c["window"]),
        array("gemma3.attention.sliding_window_pattern", BOOL, near),
        entry("gemma3.rope.freq_base", FLOAT, c["rope_base"]),
        entry("gemma3.rope.freq_base_swa", FLOAT, c["window_rope_base"]),
    ]


NAMES = {
    "attn_norm": "attn_norm", "q": "attn_q", "q_norm": "attn_q_norm", "k": "attn_k", "k_norm": "attn_k_norm",
    "v": "attn_v", "o": "attn_output", "attn_post": "post_attention_norm", "ffn_norm": "ffn_norm", "gate": "ffn_gate",
    "up": "ffn_up", "down": "ffn_down", "ffn_post": "post_ffw_norm",
}


def tensors(state, layers):
    """(GGUF name, tensor) in the file's order."""
    yield "token_embd.weight", state["embedding"]
    for i in range(layers):
        for ours, theirs in NAMES.items():
            yield f"blk.{i}.{theirs}.weight", state[f"layers.{i}.{ours}"]
    yield "output_norm.weight", state["norm"]


def type_of(name, value, wanted):
    if value.ndim == 1:
        return F32
    if wanted == "Q6_K" or (wanted == "MIXED" and "ffn" in name):
        return Q6_K
    return Q8_0


def pad(n):
    return (-n) % ALIGNMENT


def main():
    path, wanted = sys.argv[3], sys.argv[5] if len(sys.argv) > 5 else "Q8_0"
    saved = torch.load(sys.argv[1], map_location="cpu")
    tokenizer = bpe.Tokenizer.load(sys.argv[2])
    entries = model_entries(saved["config"], sys.argv[4], wanted) + tokenizer_entries(tokenizer)
    described, data = [], bytearray()
    for name, tensor in tensors(saved["model"], saved["config"]["layers"]):
        value = tensor.float().numpy()
        kind = type_of(name, value, wanted)
        raw = {F32: lambda v: v.astype("<f4").tobytes(), Q8_0: quantise_q8_0, Q6_K: quantise_q6_k}[kind](value)
        shape = value.shape[::-1]
        described.append(text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
                         + struct.pack("<IQ", kind, len(data)))
        data += raw + b"\0" * pad(len(raw))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(described), len(entries))
    head += b"".join(entries) + b"".join(described)
    head += b"\0" * pad(len(head))
    with open(path, "wb") as f:
        f.write(head + data)
    print(path, len(head) + len(data), "bytes,", saved["tokens"], "tokens seen")


if __name__ == "__main__":
    main()
