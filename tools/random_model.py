#!/usr/bin/env python3
"""Write a llama GGUF of random weights in the shape of a real model, to measure speed.

    tools/random_model.py OUT.gguf [--type q8_0|q4_0] [--layers 30 --dim 576 --ff 1536 --heads 9
                                    --kv-heads 3 --vocab 49152]   (the defaults: SmolLM-135M)

What it says is noise; how long it takes is what the real one would take. Python's standard library only.
"""
import argparse
import os
import struct

TYPES = {"q8_0": (8, 34, 74.0), "q4_0": (2, 18, 4.6)}  # GGUF number, bytes of a block of 32, deviation of its integers


def text(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def keys(o):
    yield text("general.architecture") + struct.pack("<I", 8) + text("llama")
    yield text("general.name") + struct.pack("<I", 8) + text("random")
    for name, value in (("block_count", o.layers), ("context_length", 8192), ("embedding_length", o.dim),
                        ("feed_forward_length", o.ff), ("attention.head_count", o.heads),
                        ("attention.head_count_kv", o.kv_heads)):
        yield text("llama." + name) + struct.pack("<II", 4, value)
    yield text("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", 6, 1e-5)
    pieces = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % i for i in range(256)]
    pieces += ["w%d" % i for i in range(len(pieces), o.vocab)]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (o.vocab - 259)
    yield text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("llama")
    yield text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, o.vocab) + b"".join(map(text, pieces))
    yield text("tokenizer.ggml.scores") + struct.pack("<IIQ%df" % o.vocab, 9, 6, o.vocab, *[-float(i) for i in range(o.vocab)])
    yield text("tokenizer.ggml.token_type") + struct.pack("<IIQ%di" % o.vocab, 9, 5, o.vocab, *kinds)
    for name, value in (("bos", 1), ("eos", 2), ("unknown", 0)):
        yield text("tokenizer.ggml.%s_token_id" % name) + struct.pack("<II", 4, value)


def shapes(o):
    """Name, columns, rows (0: a norm)."""
    head = o.dim // o.heads
    q, kv = o.heads * head, o.kv_heads * head
    yield "token_embd.weight", o.dim, o.vocab
    yield "output_norm.weight", o.dim, 0
    for i in range(o.layers):
        for name, cols, rows in (("attn_norm", o.dim, 0), ("ffn_norm", o.dim, 0), ("attn_q", o.dim, q),
                                 ("attn_k", o.dim, kv), ("attn_v", o.dim, kv), ("attn_output", q, o.dim),
                                 ("ffn_gate", o.dim, o.ff), ("ffn_up", o.dim, o.ff), ("ffn_down", o.ff, o.dim)):
            yield "blk.%d.%s.weight" % (i, name), cols, rows


def tensor_bytes(o, cols, rows):
    if rows == 0:
        return struct.pack("<%df" % cols, *[1.0] * cols)
    _, size, deviation = TYPES[o.type]
    blocks = cols * rows // 32
    data = bytearray(os.urandom(blocks * size))
    scale = struct.pack("<e", 1.7 / cols**0.5 / deviation)
    data[0::size], data[1::size] = scale[0:1] * blocks, scale[1:2] * blocks
    return bytes(data)


def padded(data):
    return data + bytes(-len(data) % 32)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out")
    p.add_argument("--type", choices=TYPES, default="q8_0")
    for name, value in (("layers", 30), ("dim", 576), ("ff", 1536), ("heads", 9), ("kv-heads", 3), ("vocab", 49152)):
        p.add_argument("--" + name, type=int, default=value)
    o = p.parse_args()
    infos, datas, offset, count = [], [], 0, 0
    for name, cols, rows in shapes(o):
        data = padded(tensor_bytes(o, cols, rows))
        dims = struct.pack("<IQQ", 2, cols, rows) if rows else struct.pack("<IQ", 1, cols)
        infos.append(text(name) + dims + struct.pack("<IQ", TYPES[o.type][0] if rows else 0, offset))
        datas.append(data)
        offset += len(data)
        count += 1
    pairs = list(keys(o))
    with open(o.out, "wb") as f:
        f.write(padded(b"GGUF" + struct.pack("<IQQ", 3, count, len(pairs)) + b"".join(pairs) + b"".join(infos)))
        for data in datas:
            f.write(data)


if __name__ == "__main__":
    main()
