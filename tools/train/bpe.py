"""Byte-level BPE: trains the vocabulary and encodes text with it.

The pre-tokeniser is the one GGUF calls `smollm`: every digit stands alone, then GPT-2's pattern.
Token ids: 0 <|endoftext|>, 1 <|im_start|>, 2 <|im_end|>, then the 256 bytes, then merges in order.
"""
import collections
import heapq
import json
import sys

import regex

SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PATTERN = regex.compile(
    r"\p{N}|'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)


def byte_symbols():
    """The printable stand-in for each of the 256 bytes that GPT-2's vocabulary files use."""
    kept = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for b in range(256):
        if b in kept:
            table[b] = chr(b)
        else:
            table[b] = chr(256 + extra)
            extra += 1
    return table


def split_words(text):
    """Pre-tokens of a text. Digits first, so that a space before a digit is a pre-token too."""
    words = []
    for part in regex.split(r"(\p{N})", text):
        if part:
            words.extend(PATTERN.findall(part))
    return words


def count_words(texts):
    counts = collections.Counter()
    for text in texts:
        counts.update(split_words(text))
    return counts


def train_merges(counts, n_merges):
    """Greedy BPE over distinct words: the commonest pair first, of equals the lowest. Counts change with every merge, so
    the heap holds old ones too; an entry is good where it still agrees with `pairs`."""
    words = [(list(bytes([b]) for b in w.encode()), c) for w, c in counts.items() if c > 1]
    pairs, where = collections.Counter(), collections.defaultdict(set)
    for i, (symbols, count) in enumerate(words):
        for pair in zip(symbols, symbols[1:]):
            pairs[pair] += count
            where[pair].add(i)
    heap = [(-count, pair) for pair, count in pairs.items()]
    heapq.heapify(heap)
    merges = []
    while heap and len(merges) < n_merges:
        count, best = heapq.heappop(heap)
        if -count != pairs[best] or count == 0:
            continue
        merges.append(best)
        changed = set()
        for i in where.pop(best):
            replace_pair(words, i, best, pairs, where, changed)
        pairs[best] = 0
        for pair in changed:
            heapq.heappush(heap, (-pairs[pair], pair))
    return merges


def replace_pair(words, i, best, pairs, where, changed):
    symbols, count = words[i]
    for pair in zip(symbols, symbols[1:]):
        pairs[pair] -= count
        changed.add(pair)
    merged, at = [], 0
    while at < len(symbols):
        if at + 1 < len(symbols) and (symbols[at], symbols[at + 1]) == best:
            merged.append(best[0] + best[1])
            at += 2
        else:
            merged.append(symbols[at])
            at += 1
    words[i] = (merged, count)
    for pair in zip(merged, merged[1:]):
        pairs[pair] += count
        where[pair].add(i)
        changed.add(pair)


class Tokenizer:
    """Encoder with a cache of words; specials are only ever added by id, never found in text."""

    def __init__(self, merges):
        self.merges = [(a, b) for a, b in merges]
        self.rank = {pair: r for r, pair in enumerate(self.merges)}
        self.pieces = [s.encode() for s in SPECIALS] + [bytes([b]) for b in range(256)]
        self.pieces += [a + b for a, b in self.merges]
        self.ids = {p: i for i, p in enumerate(self.pieces) if i >= len(SPECIALS)}
        self.cache = {}
        self.eot, self.im_start, self.im_end = 0, 1, 2

    @property
    def size(self):
        return len(self.pieces)

    def encode_word(self, word):
        symbols = [bytes([b]) for b in word.encode()]
        while len(symbols) > 1:
            ranked = [(self.rank.get(p, 1 << 30), k) for k, p in enumerate(zip(symbols, symbols[1:]))]
            rank, k = min(ranked)
            if rank == 1 << 30:
                break
            symbols[k : k + 2] = [symbols[k] + symbols[k + 1]]
        return [self.ids[s] for s in symbols]

    def encode(self, text):
        out = []
        for word in split_words(text):
            ids = self.cache.get(word)
            if ids is None:
                ids = self.cache[word] = self.encode_word(word)
            out += ids
        return out

    def decode(self, ids):
        return b"".join(self.pieces[i] for i in ids).decode(errors="replace")

    def save(self, path):
        with open(path, "w") as f:
            json.dump([[a.hex(), b.hex()] for a, b in self.merges], f)

    @staticmethod
    def load(path):
        with open(path) as f:
            return Tokenizer([(bytes.fromhex(a), bytes.fromhex(b)) for a, b in json.load(f)])


def main():
    """bpe.py OUT.json VOCAB_SIZE TEXT...: train on the given text files."""
    out, size = sys.argv[1], int(sys.argv[2])
    counts = collections.Counter()
    for path in sys.argv[3:]:
        with open(path, encoding="utf-8") as f:
            for block in iter(lambda: f.readlines(1 << 22), []):
                counts.update(count_words(block))
    print(len(counts), "distinct words")
    Tokenizer(train_merges(counts, size - 256 - len(SPECIALS))).save(out)


if __name__ == "__main__":
    main()
