"""Builds the training data: token ids and loss weights, in shards of one document length each.

corpus.py TOKENIZER BOOKS FAIRYTALEQA OUT_FOLDER SEED

Shards: `books` (plain text), `dense` (many facts, all asked for), `copy` (text to repeat: the quickest
way to learn to copy), `short`, `middle`, `long`, `longest` (chat: generated questions,
FairytaleQA, continuations). Every thirtieth book and FairytaleQA's validation and test stories are
held out. Loss weights: 0 nothing, 255 full; answers count full, documents of generated questions
little, as their values are noise by intention.
"""
import json
import random
import re
import sys

import numpy as np

import bpe
import generate

HELD_OUT_EVERY = 30
CONTINUE = ["Continue the story.", "What happens next?", "Go on with the story.", "Tell me what happens next."]
SYSTEM = ["You are a helpful assistant.", "You answer questions about stories.", "You tell stories."]
DOCUMENT_WEIGHT, STORY_WEIGHT, ANSWER_WEIGHT = 40, 120, 255
SHARDS = {  # name: (chat documents' tokens, least and most; share of long continuations; documents)
    "short": (40, 260, 0.05, 60000),
    "dense": (60, 400, 0.0, 25000),
    "copy": (15, 150, 0.0, 20000),
    "middle": (200, 800, 0.10, 14000),
    "long": (600, 1700, 0.15, 6000),
    "longest": (1500, 3600, 0.25, 1500),
}


class Writer:
    """Token ids and weights of one shard."""

    def __init__(self, tokenizer):
        self.t, self.ids, self.weights = tokenizer, [], []

    def add(self, ids, weight):
        self.ids += ids
        self.weights += [weight] * len(ids)

    def turn(self, role, content_ids, weight):
        self.add([self.t.im_start] + self.t.encode(role + "\n"), weight if role != "assistant" else 40)
        self.add(content_ids, weight)
        self.add([self.t.im_end], weight if role == "assistant" else 40)
        self.add(self.t.encode("\n"), 40)

    def end(self):
        self.add([self.t.eot], 40)

    def save(self, path):
        np.save(path + ".ids.npy", np.array(self.ids, dtype=np.uint16))
        np.save(path + ".weights.npy", np.array(self.weights, dtype=np.uint8))
        print(path, len(self.ids), "tokens", flush=True)


def load_books(path):
    with open(path, encoding="utf-8") as f:
        books = [b.strip() for b in f.read().split("<|endoftext|>")]
    return [b for b in books if len(b) > 2000]


def sentences(text):
    found = re.split(r"(?<=[.!?])\s+(?=[A-Z])", text.replace("\n", " "))
    return [s for s in found if 20 < len(s) < 260]


class Source:
    """Story text, as sentences in order and as plain runs, for one side of the held-out split."""

    def __init__(self, books, stories):
        self.books, self.stories = books, stories
        self.sentences = [s for s in (sentences(b) for b in books) if len(s) > 400]

    def filler(self, rng, tokenizer, n_tokens):
        """About n_tokens of consecutive sentences of a random book."""
        if n_tokens < 12:
            return []
        book = rng.choice(self.sentences)
        at, out, total = rng.randrange(len(book) - 300), [], 0
        while total < n_tokens and at < len(book):
            out.append(book[at])
            total += len(tokenizer.encode(book[at]))
            at += 1
        return out

    def passage(self, rng, n_chars):
        book = rng.choice(self.books)
        at = rng.randrange(max(1, len(book) - n_chars - 10))
        start = book.find("\n", at) + 1
        if start == 0 or start > at + 400:
            start = book.find(" ", at) + 1
        return book[start : start + n_chars]


def questions(w, rng, source, n_tokens):
    n_facts = rng.randrange(2, 7) if n_tokens < 300 else rng.randrange(4, 12)
    n_asked = min(n_facts, rng.randrange(1, 5 if n_tokens < 300 else 7))
    filler = source.filler(rng, w.t, max(0, n_tokens - 12 * n_facts))
    document, asked = generate.make_dialog(rng, filler, n_facts, n_asked)
    if rng.random() < 0.2:
        w.turn("system", w.t.encode(rng.choice(SYSTEM)), 40)
    for i, (question, answer) in enumerate(asked):
        text = document + "\n\n" + question if i == 0 else question
        w.turn("user", w.t.encode(text), DOCUMENT_WEIGHT)
        w.turn("assistant", w.t.encode(answer), ANSWER_WEIGHT)
    w.end()


def dense(w, rng, source, n_tokens):
    """Facts without a story around them, and a question about each."""
    n = max(2, n_tokens // 28)
    document, asked = generate.make_dialog(rng, source.filler(rng, w.t, 20)[:1], n, n)
    for i, (question, answer) in enumerate(asked):
        w.turn("user", w.t.encode(document + "\n\n" + question if i == 0 else question), DOCUMENT_WEIGHT)
        w.turn("assistant", w.t.encode(answer), ANSWER_WEIGHT)
    w.end()


def copy(w, rng, source, n_tokens):
    """Story text, made-up words or digits, to be repeated word for word."""
    roll = rng.random()
    if roll < 0.3:
        text = " ".join(generate.invented(rng, rng.choice([1, 2, 3])) for _ in range(n_tokens // 4))
    elif roll < 0.6:
        text = " ".join(generate.digits(rng) for _ in range(n_tokens // 5))
    else:
        text = source.passage(rng, 4 * n_tokens)
    w.turn("user", w.t.encode("Repeat this text.\n\n" + text), DOCUMENT_WEIGHT)
    w.turn("assistant", w.t.encode(text), ANSWER_WEIGHT)
    w.end()


def continuation(w, rng, source, n_tokens):
    answer = rng.randrange(150, 400)
    text = source.passage(rng, int(4.3 * (n_tokens + answer)))
    ids = w.t.encode(text)
    cut = max(20, len(ids) - answer)
    w.turn("user", ids[:cut] + w.t.encode("\n\n" + rng.choice(CONTINUE)), STORY_WEIGHT)
    w.turn("assistant", ids[cut:], ANSWER_WEIGHT)
    w.end()


def fairytale(w, rng, source, n_tokens):
    story = rng.choice(source.stories)
    section = rng.randrange(len(story["sections"]))
    asked = [q for q in story["qas"] if q["section"] == str(section + 1) and q["ex_im"] == "explicit"]
    if not asked:
        return
    low = section
    text = story["sections"][section]
    while low > 0 and len(text) < 4 * n_tokens:
        low -= 1
        text = story["sections"][low] + "\n" + text
    text = text[-int(5.5 * n_tokens):] if len(text) > 5.5 * n_tokens else text
    for i, q in enumerate(rng.sample(asked, min(3, len(asked)))):
        answer = q["answers"][0].strip()
        answer = answer[:1].upper() + answer[1:] + ("" if answer.endswith(".") else ".")
        w.turn("user", w.t.encode(text + "\n\n" + q["question"] if i == 0 else q["question"]), DOCUMENT_WEIGHT)
        w.turn("assistant", w.t.encode(answer), ANSWER_WEIGHT)
    w.end()


def chat_shard(name, tokenizer, source, seed, documents=None):
    low, high, share, count = SHARDS[name]
    rng, w = random.Random(f"{seed}/{name}"), Writer(tokenizer)
    for _ in range(documents or count):
        n_tokens = rng.randrange(low, high)
        if name in ("dense", "copy"):
            (dense if name == "dense" else copy)(w, rng, source, n_tokens)
            continue
        roll = rng.random()
        if roll < share:
            continuation(w, rng, source, n_tokens)
        elif roll < share + 0.08:
            fairytale(w, rng, source, n_tokens)
        else:
            questions(w, rng, source, n_tokens)
    return w


def split_sources(books_path, stories_path):
    """(training source, held-out source)."""
    books = load_books(books_path)
    with open(stories_path, encoding="utf-8") as f:
        stories = [json.loads(line) for line in f]
    train = [s for s in stories if s["split"] == "train"]
    held = [s for s in stories if s["split"] != "train"]
    kept = [b for i, b in enumerate(books) if i % HELD_OUT_EVERY != 7]
    return Source(kept, train), Source(books[7::HELD_OUT_EVERY], held)


def plain_shard(tokenizer, source):
    w = Writer(tokenizer)
    for book in source.books:
        w.add(tokenizer.encode(book), 255)
        w.end()
    return w


def main():
    tokenizer = bpe.Tokenizer.load(sys.argv[1])
    train, held = split_sources(sys.argv[2], sys.argv[3])
    out, seed = sys.argv[4], sys.argv[5]
    only = sys.argv[6:]
    if not only or "books" in only:
        plain_shard(tokenizer, held).save(f"{out}/held-books")
        for name in SHARDS:
            chat_shard(name, tokenizer, held, "held-out", 200).save(f"{out}/held-{name}")
        plain_shard(tokenizer, train).save(f"{out}/books")
    for name in SHARDS:
        if not only or name in only:
            chat_shard(name, tokenizer, train, seed).save(f"{out}/{name}")


if __name__ == "__main__":
    main()
