"""Trains the model on shards of corpus.py in phases of growing context.

train.py DATA OUT.pt MINUTES [START.pt]

Hidden matrices use Muon (momentum, then orthogonalised by Newton-Schulz steps), the rest Adam.
Phases share the time budget; the learning rate is constant, then falls linearly over the last 45 %.
"""
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

from model import Config, Model

PHASES = [  # (share of the time, context, tokens a step, {shard: share of the sequences})
    (0.40, 512, 8192, {"books": 0.20, "short": 0.25, "dense": 0.35, "copy": 0.20}),
    (0.20, 1024, 8192, {"books": 0.20, "dense": 0.20, "middle": 0.50, "copy": 0.10}),
    (0.25, 2048, 12288, {"books": 0.15, "dense": 0.15, "middle": 0.30, "long": 0.40}),
    (0.15, 4096, 16384, {"books": 0.10, "middle": 0.20, "long": 0.35, "longest": 0.35}),
]
SHARD_WEIGHT = {"books": 0.4, "copy": 0.4}  # of the loss; plain text would drown the answers
FALL = 0.45
MUON_RATE, ADAM_RATE, EMBEDDING_RATE = 0.02, 0.002, 0.004


def load(folder, name):
    ids = np.load(f"{folder}/{name}.ids.npy", mmap_mode="r")
    weights = np.load(f"{folder}/{name}.weights.npy", mmap_mode="r")
    starts = np.flatnonzero(np.asarray(ids) == 0) + 1  # documents begin after <|endoftext|>
    return ids, weights, starts


def sample(rng, shard, context):
    """A run of context + 1 tokens; it begins at a document, except in plain text."""
    ids, weights, starts = shard
    if len(starts) > 2000:
        at = starts[rng.integers(len(starts))]
    else:
        at = rng.integers(len(ids) - context - 1)
    if at + context + 1 > len(ids):
        at = len(ids) - context - 1
    return ids[at : at + context + 1], weights[at : at + context + 1]


def batch(rng, shards, mix, context, tokens):
    names = rng.choice(list(mix), size=max(1, tokens // context), p=np.array(list(mix.values())) / sum(mix.values()))
    rows = [sample(rng, shards[n], context) for n in names]
    ids = torch.from_numpy(np.stack([r[0] for r in rows]).astype(np.int64))
    weights = np.stack([r[1].astype(np.float32) * SHARD_WEIGHT.get(n, 1.0) for r, n in zip(rows, names)])
    weights = torch.from_numpy(weights.astype(np.float32)) / 255
    return ids[:, :-1], ids[:, 1:], weights[:, 1:]


class Muon:
    def __init__(self, parameters):
        self.parameters = parameters
        self.momentum = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, rate):
        for p, m in zip(self.parameters, self.momentum):
            m.mul_(0.95).add_(p.grad)
            update = orthogonalise(p.grad + 0.95 * m)
            p.mul_(1 - 0.02 * rate).add_(update, alpha=-rate * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonalise(g):
    """Five Newton-Schulz steps towards the nearest orthogonal matrix (quintic of Jordan et al., 2024)."""
    x = g.bfloat16()
    if g.shape[0] > g.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.T if g.shape[0] > g.shape[1] else x).float()


def phase_at(progress):
    total = 0.0
    for phase in PHASES:
        total += phase[0]
        if progress < total:
            return phase
    return PHASES[-1]


def rate_at(progress, step):
    return min(1.0, (step + 1) / 50, max(0.02, (1 - progress) / FALL))


def make_optimizers(model):
    matrices = [p for n, p in model.layers.named_parameters() if p.ndim == 2]
    norms = [p for n, p in model.named_parameters() if p.ndim == 1]
    adam = torch.optim.Adam([{"params": norms, "rate": ADAM_RATE}, {"params": [model.embedding],
                            "rate": EMBEDDING_RATE}], lr=ADAM_RATE, betas=(0.9, 0.95), eps=1e-10)
    return Muon(matrices), adam


def train_step(model, muon, adam, ids, targets, weights, scale):
    """One update; returns the weighted loss. Rows go through in pieces to bound memory."""
    total, loss_sum = weights.sum(), 0.0
    rows = max(1, 4096 // ids.shape[1])
    for at in range(0, ids.shape[0], rows):
        logits = model(ids[at : at + rows])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets[at : at + rows].flatten(), reduction="none")
        loss = (loss * weights[at : at + rows].flatten()).sum() / total
        loss.backward()
        loss_sum += loss.item()
    muon.step(MUON_RATE * scale)
    for group in adam.param_groups:
        group["lr"] = group["rate"] * scale
    adam.step()
    for p in model.parameters():
        p.grad = None
    return loss_sum


def save(path, model, tokens, seconds):
    torch.save({"config": vars(model.c), "model": model.state_dict(), "tokens": tokens,
                "seconds": seconds}, path + ".tmp")
    os.replace(path + ".tmp", path)


def main():
    folder, out, minutes = sys.argv[1], sys.argv[2], float(sys.argv[3])
    torch.manual_seed(1)
    torch.set_num_threads(2)
    rng = np.random.default_rng(1)
    model = Model(Config())
    if len(sys.argv) > 4:
        model.load_state_dict(torch.load(sys.argv[4])["model"])
    muon, adam = make_optimizers(model)
    print("parameters", sum(p.numel() for p in model.parameters()), flush=True)
    begin, step, tokens, shards, mean, saved = time.time(), 0, 0, {}, None, time.time()
    while (progress := (time.time() - begin) / (60 * minutes)) < 1:
        _, context, step_tokens, mix = phase_at(progress)
        for name in mix:
            if name not in shards:
                shards[name] = load(folder, name)
        ids, targets, weights = batch(rng, shards, mix, context, step_tokens)
        loss = train_step(model, muon, adam, ids, targets, weights, rate_at(progress, step))
        mean = loss if mean is None else 0.98 * mean + 0.02 * loss
        step, tokens = step + 1, tokens + ids.numel()
        if step % 20 == 0:
            spent = time.time() - begin
            print(f"{spent:6.0f}s step {step} context {context} tokens {tokens / 1e6:.2f}M "
                  f"{tokens / spent:.0f}/s loss {mean:.4f}", flush=True)
        if time.time() - saved > 240:
            save(out, model, tokens, time.time() - begin)
            saved = time.time()
    save(out, model, tokens, time.time() - begin)


if __name__ == "__main__":
    main()
