"""Trains the two models on one stream, the small one also on the large one's predictions.

train.py TOKENIZER TEXTS OUT_FOLDER --minutes M [--models read small] [--tiny] [--rows N] [--workers N] [--seed N] [--steps N]
torchrun --nproc-per-node N train.py ...        the same on N GPUs

Hidden matrices use Muon (momentum, then orthogonalised by Newton-Schulz steps), the rest Adam. The learning rate is
constant, then falls linearly to zero. The first process says how far the time has gone, and all follow it: stages,
rates and the end are the same everywhere. OUT_FOLDER gets NAME.pt at the end and every few minutes.
"""
import argparse
import ctypes
import multiprocessing
import os
import pickle
import random
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F

import bpe
from chats import Maker
from model import SIZES, Model, masks
from rows import Rows

CLASS_WEIGHT = [0.0, 0.06, 0.25, 1.0]  # of the loss: none, document, plain, answer
MUON_RATE, EMBEDDING_RATE, GAIN_RATE, FALL, DECAY = 0.02, 0.004, 0.004, 0.6, 0.1
DISTIL = 0.5  # share of the small model's loss that compares it with the large one
SAVE_SECONDS = 120


class Stream(torch.utils.data.IterableDataset):
    """Batches of rows, made by worker processes; `progress` is shared memory that the trainer writes."""

    def __init__(self, tokenizer, texts, progress, context, rows, seed):
        self.tokenizer, self.texts, self.progress = tokenizer, texts, progress
        self.context, self.rows, self.seed = context, rows, seed

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        rng = random.Random(f"{self.seed}/{worker.id if worker else 0}")
        rows = Rows(Maker(self.tokenizer, self.texts, rng), rng, self.context)
        while True:
            made = [rows.row(self.progress.value) for _ in range(self.rows)]
            yield tuple(torch.from_numpy(np.stack(x).astype(np.int32)) for x in zip(*made))


def orthogonalise(g):
    """Five Newton-Schulz steps towards the nearest orthogonal matrices (quintic of Jordan et al., 2024). g [n, r, c]."""
    x = g.bfloat16() if g.is_cuda else g
    tall = x.shape[1] > x.shape[2]
    x = x.transpose(1, 2) if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return (x.transpose(1, 2) if tall else x).float()


def average(tensors):
    """Over all processes, in place, as one message."""
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat, op=dist.ReduceOp.AVG)
    for t, part in zip(tensors, flat.split([t.numel() for t in tensors])):
        t.copy_(part.view_as(t))


class Optimizer:
    """Muon for the matrices of the layers, in stacks of one shape; Adam for embedding and gains."""

    def __init__(self, model):
        stacks = {}
        for p in model.layers.parameters():
            if p.ndim == 2:
                stacks.setdefault(tuple(p.shape), []).append(p)
        self.stacks = list(stacks.values())
        self.momentum = [torch.zeros(len(s), *s[0].shape, device=s[0].device) for s in self.stacks]
        gains = [p for p in model.parameters() if p.ndim == 1]
        self.others = gains + [model.embedding]
        self.adam = torch.optim.Adam([{"params": gains, "rate": GAIN_RATE}, {"params": [model.embedding],
                                     "rate": EMBEDDING_RATE}], lr=GAIN_RATE, betas=(0.9, 0.95), eps=1e-10)

    @torch.no_grad()
    def step(self, scale, world, orthogonal, warm):
        grads = [torch.stack([p.grad for p in s]) for s in self.stacks]
        if world > 1:
            average(grads + [p.grad for p in self.others])
        beta = 0.85 + 0.10 * warm
        for stack, momentum, g in zip(self.stacks, self.momentum, grads):
            momentum.mul_(beta).add_(g)
            rate = MUON_RATE * scale * max(1, g.shape[1] / g.shape[2]) ** 0.5
            update = orthogonal(g + beta * momentum)
            torch._foreach_mul_(stack, 1 - DECAY * MUON_RATE * scale)
            torch._foreach_add_(stack, list(update.unbind()), alpha=-rate)
        for group in self.adam.param_groups:
            group["lr"] = group["rate"] * scale
        self.adam.step()


def loss_of(logits, targets, weights):
    loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
    return (loss * weights.flatten()).sum() / weights.sum()


def taught_loss(logits, teacher, targets, weights):
    """Cross entropy with the text and with the large model's distribution."""
    log = torch.log_softmax(logits.flatten(0, 1).float(), -1)
    w = weights.flatten() / weights.sum()
    own = -(log.gather(1, targets.flatten()[:, None])[:, 0] * w).sum()
    taught = -((torch.softmax(teacher.flatten(0, 1).float(), -1) * log).sum(-1) * w).sum()
    return (1 - DISTIL) * own + DISTIL * taught, own


def save(path, model, tokens, seconds):
    state = {k: v.detach().to("cpu", torch.bfloat16) if v.ndim == 2 else v.detach().cpu()
             for k, v in model.state_dict().items()}
    torch.save({"config": vars(model.c), "model": state, "tokens": tokens, "seconds": seconds}, path + ".tmp")
    os.replace(path + ".tmp", path)


class Trainer:
    """Models, their optimizers and one step of both."""

    def __init__(self, sizes, device, world):
        self.world, self.device = world, device
        self.models = [Model(SIZES[s]).to(device) for s in sizes]
        self.optimizers = [Optimizer(m) for m in self.models]
        gpu = device.type == "cuda"
        self.run = [torch.compile(m, dynamic=False) if gpu else m for m in self.models]
        self.loss = torch.compile(loss_of, dynamic=False) if gpu else loss_of
        self.taught = torch.compile(taught_loss, dynamic=False) if gpu else taught_loss
        self.orthogonal = torch.compile(orthogonalise, dynamic=False) if gpu else orthogonalise
        self.masks = torch.compile(masks, dynamic=False) if gpu else masks
        self.weight = torch.tensor(CLASS_WEIGHT, device=device)

    def step(self, batch, scale, warm):
        """Returns the losses, as tensors of one value."""
        ids, classes, documents = (x.to(self.device, non_blocking=True) for x in batch)
        inputs, targets = ids[:, :-1].contiguous().long(), ids[:, 1:].contiguous().long()
        weights = self.weight[classes[:, 1:].long()]
        whole, near = self.masks(documents[:, :-1].contiguous(), self.models[0].c.window)
        losses, teacher = [], None
        for model, run, optimizer in zip(self.models, self.run, self.optimizers):
            logits = run(inputs, whole, near)
            if teacher is None:
                loss = own = self.loss(logits, targets, weights)
                teacher = logits.detach()
            else:
                loss, own = self.taught(logits, teacher, targets, weights)
            loss.backward()
            losses.append(own.detach())
            optimizer.step(scale, self.world, self.orthogonal, warm)
            for p in model.parameters():
                p.grad = None
        return torch.stack(losses)


def arguments():
    a = argparse.ArgumentParser()
    a.add_argument("tokenizer")
    a.add_argument("texts")
    a.add_argument("out")
    a.add_argument("--minutes", type=float, required=True)
    a.add_argument("--steps", type=int, default=0)
    a.add_argument("--rows", type=int, default=8)
    a.add_argument("--workers", type=int, default=0)
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--start", help="a folder with NAME.pt of an earlier run, to go on from")
    a.add_argument("--models", nargs="+", choices=["read", "small"], default=["read", "small"],
                   help="which to train; small alone learns from the text alone")
    a.add_argument("--tiny", action="store_true")
    return a.parse_args()


def begin_distributed():
    if "RANK" not in os.environ:
        return 0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rank = int(os.environ["RANK"])
    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl", device_id=device)
    return rank, dist.get_world_size(), device


def stream_of(args, tokenizer, texts, progress, context, rank):
    seed = f"{args.seed}/{rank}"
    loader = torch.utils.data.DataLoader(Stream(tokenizer, texts, progress, context, args.rows, seed), batch_size=None,
                                         num_workers=args.workers, pin_memory=torch.cuda.is_available(),
                                         **({"prefetch_factor": 4} if args.workers else {}))
    return iter(loader)


def main():
    args = arguments()
    rank, world, device = begin_distributed()
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    if device.type == "cuda":
        torch._dynamo.config.recompile_limit = 64  # a shape of matrices each
    tokenizer = bpe.Tokenizer.load(args.tokenizer)
    with open(args.texts, "rb") as f:
        texts = pickle.load(f)
    sizes = ["tiny"] if args.tiny else args.models
    progress = multiprocessing.Value(ctypes.c_double, 0.0)
    stream = stream_of(args, tokenizer, texts, progress, SIZES[sizes[0]].context, rank)
    trainer = Trainer(sizes, device, world)
    for name, model in zip(sizes, trainer.models if args.start else []):
        model.load_state_dict(torch.load(f"{args.start}/{name}.pt", map_location=device)["model"])
    if rank == 0:
        print("parameters", [sum(p.numel() for p in m.parameters()) for m in trainer.models], flush=True)
    trainer.step(next(stream), 0.0, 0.0)  # compiles, changes nothing but the momentum
    begin = saved = told = time.time()
    step, tokens, mean, told_step = 0, 0, None, 0
    clock = torch.zeros(1, dtype=torch.float64, device=device)
    while True:
        done = step / args.steps if args.steps else (time.time() - begin) / (60 * args.minutes)
        if world > 1:
            clock.fill_(done)
            dist.broadcast(clock, 0)
            done = clock.item()
        if done >= 1:
            break
        progress.value = done
        scale = min((step + 1) / 200, 1.0, max(0.0, (1 - done) / FALL))
        loss = trainer.step(next(stream), scale, min(1.0, step / 500))
        mean = loss if mean is None else 0.98 * mean + 0.02 * loss
        step, tokens = step + 1, tokens + world * args.rows * trainer.models[0].c.context
        if rank == 0 and (time.time() - told > 10 or step == args.steps):
            now = time.time()
            print(f"{now - begin:6.0f}s {100 * done:5.1f} % step {step} {tokens / 1e6:.0f}M tokens "
                  f"{(step - told_step) * world * args.rows * trainer.models[0].c.context / (now - told):.0f}/s loss "
                  + " ".join(f"{x:.4f}" for x in mean.tolist()), flush=True)
            told, told_step = now, step
        if rank == 0 and time.time() - saved > SAVE_SECONDS:
            saved = time.time()
            for name, model in zip(sizes, trainer.models):
                save(f"{args.out}/{name}.pt", model, tokens, saved - begin)
    if rank == 0:
        for name, model in zip(sizes, trainer.models):
            save(f"{args.out}/{name}.pt", model, tokens, time.time() - begin)
    if world > 1:
        dist.barrier()
        os._exit(0)  # workers of the loader need not be waited for


if __name__ == "__main__":
    main()
