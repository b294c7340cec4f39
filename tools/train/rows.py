"""Packs conversations into rows of one length, for ever: what each stage of the training reads.

A row holds whole documents one after the other; model.masks keeps them from seeing each other, so short and long ones
share rows and one compiled shape serves every length. rows.py TOKENIZER TEXTS [PROGRESS [CONTEXT]] prints what a
stage consists of, and how fast rows are made.
"""
import math
import pickle
import random
import sys
import time

import numpy as np

import bpe
from chats import NONE, Maker

SHORT = (40, 900)
# (until this share of the time, lengths, share of documents that are short anyway, {kind: share of documents})
STAGES = [
    (0.25, (60, 2500), 0.70,
     {"plain": 24, "sentences": 18, "recurring": 12, "squad": 10, "facts": 18, "collect": 14, "copy": 5, "continue": 2, "tales": 3,
      "patterns": 2, "dialogues": 2, "summary": 1, "talk": 0.5, "plots": 0.2}),
    (0.58, (400, 6000), 0.55,
     {"plain": 12, "sentences": 12, "recurring": 12, "squad": 20, "facts": 24, "collect": 14, "copy": 1, "continue": 2, "tales": 3,
      "patterns": 2, "dialogues": 2, "summary": 1.5, "talk": 0.5, "plots": 0.4}),
    (1.01, (800, 7700), 0.50,
     {"plain": 7, "sentences": 7, "recurring": 11, "squad": 28, "facts": 25, "collect": 14, "copy": 0.5, "continue": 2, "tales": 4,
      "patterns": 2, "dialogues": 2, "summary": 2, "talk": 0.5, "plots": 0.5}),
]


def stage_at(progress):
    return next(s for s in STAGES if progress < s[0])


class Rows:
    """Rows of context + 1 tokens: ids, classes of the tokens to be predicted, and the number of their document."""

    def __init__(self, maker, rng, context, seen=None):
        self.maker, self.rng, self.context, self.seen = maker, rng, context, seen

    def document(self, progress, room):
        _, lengths, short, kinds = stage_at(progress)
        low, high = SHORT if self.rng.random() < short else lengths
        high = min(high, int(0.94 * room))
        kind = self.rng.choices(list(kinds), list(kinds.values()))[0]
        if high <= max(low, 80):
            kind, low = "plain", min(low, 40)
        tokens = int(math.exp(self.rng.uniform(math.log(low), math.log(max(high, low + 1)))))
        ids, classes = self.maker.draw(kind, tokens)
        if self.seen is not None:
            self.seen[kind] = self.seen.get(kind, 0) + min(len(ids), room)
        return ids, classes

    def row(self, progress):
        n = self.context + 1
        ids, classes, documents = np.zeros(n, np.uint16), np.zeros(n, np.uint8), np.zeros(n, np.int16)
        at, number = 0, 0
        while at < n:
            one, which = self.document(progress, n - at)
            if len(one) > n - at and n - at > 300:
                continue  # whole documents only, except the last few tokens of a row
            one, which = one[: n - at], which[: n - at]
            ids[at : at + len(one)], classes[at : at + len(one)] = one, which
            classes[at] = NONE
            documents[at : at + len(one)] = number
            at, number = at + len(one), number + 1
        return ids, classes, documents


def main():
    tokenizer = bpe.Tokenizer.load(sys.argv[1])
    with open(sys.argv[2], "rb") as f:
        texts = pickle.load(f)
    progress = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
    context = int(sys.argv[4]) if len(sys.argv) > 4 else 8192
    rng = random.Random(1)
    seen, counts = {}, np.zeros(4, np.int64)
    rows = Rows(Maker(tokenizer, texts, rng), rng, context, seen)
    begin, n = time.time(), 30
    for _ in range(n):
        _, classes, documents = rows.row(progress)
        counts += np.bincount(classes, minlength=4)
    print(f"{n * context / (time.time() - begin):.0f} tokens/s; none, document, plain, answer:", counts / counts.sum())
    for kind, tokens in sorted(seen.items(), key=lambda kv: -kv[1]):
        print(f"{kind:10} {100 * tokens / sum(seen.values()):5.1f} %")


if __name__ == "__main__":
    main()
