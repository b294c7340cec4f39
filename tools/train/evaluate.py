"""Measures a trained model on held-out data.

evaluate.py MODEL.pt TOKENIZER.json DATA [DOCUMENTS]

Perplexity on books that training never saw, per token and in bits per byte; exact match of generated
questions by the length of the document. An answer counts when every token of it is the model's first
choice given the ones before, which is the same as greedy decoding giving exactly that answer.
"""
import collections
import math
import sys

import numpy as np
import torch
import torch.nn.functional as F

import bpe
from model import Config, Model

BUCKETS = [100, 250, 500, 1000, 1500, 2000, 3600]
ANSWER_WEIGHT, ANSWER_MAX = 255, 60


def load(path):
    saved = torch.load(path)
    model = Model(Config(**saved["config"]))
    model.load_state_dict(saved["model"])
    return model.eval(), saved


def documents(folder, shard):
    """(ids, weights) of each chat document of a held-out shard."""
    ids = np.load(f"{folder}/{shard}.ids.npy")
    weights = np.load(f"{folder}/{shard}.weights.npy")
    start = 0
    for end in np.flatnonzero(ids == 0) + 1:
        yield ids[start:end].astype(np.int64), weights[start:end]
        start = end


def answers(weights):
    """[from, to) of the short answers in a document."""
    full = np.concatenate([[0], (weights == ANSWER_WEIGHT).astype(np.int8), [0]])
    edges = np.diff(full)
    for start, end in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)):
        if end - start <= ANSWER_MAX:
            yield start, end


def exact_match(model, folder, most):
    right, asked = collections.Counter(), collections.Counter()
    for shard in ["held-short", "held-middle", "held-long", "held-longest"]:
        for number, (ids, weights) in enumerate(documents(folder, shard)):
            if number == most:
                break
            with torch.no_grad():
                first = model(torch.from_numpy(ids[None, :-1]))[0].argmax(-1).numpy()
            for start, end in answers(weights):
                bucket = next((b for b in BUCKETS if start <= b), BUCKETS[-1])
                asked[bucket] += 1
                right[bucket] += bool((first[start - 1 : end - 1] == ids[start:end]).all())
    return right, asked


def perplexity(model, tokenizer, folder, context=1024, windows=40):
    ids = np.load(f"{folder}/held-books.ids.npy").astype(np.int64)
    loss, count, size = 0.0, 0, 0
    for at in np.linspace(0, len(ids) - context - 1, windows).astype(int):
        window = torch.from_numpy(ids[at : at + context + 1])
        with torch.no_grad():
            logits = model(window[None, :-1])[0].float()
        loss += F.cross_entropy(logits, window[1:], reduction="sum").item()
        count += context
        size += sum(len(tokenizer.pieces[i]) for i in window[1:].tolist())
    return math.exp(loss / count), loss / math.log(2) / size


def main():
    model, saved = load(sys.argv[1])
    tokenizer = bpe.Tokenizer.load(sys.argv[2])
    most = int(sys.argv[4]) if len(sys.argv) > 4 else 60
    print(saved["tokens"], "tokens in the last run,", round(saved["seconds"] / 60), "minutes")
    ppl, bits = perplexity(model, tokenizer, sys.argv[3])
    print(f"held-out books: perplexity {ppl:.1f} a token, {bits:.3f} bits a byte")
    right, asked = exact_match(model, sys.argv[3], most)
    low = 0
    for bucket in BUCKETS:
        if asked[bucket]:
            print(f"answers after {low + 1}-{bucket} tokens: {right[bucket]} of {asked[bucket]} exact "
                  f"({100 * right[bucket] / asked[bucket]:.0f} %)")
        low = bucket


if __name__ == "__main__":
    main()
