"""Reads the texts of shared/text and keeps them as token ids with the starts of their sentences.

corpus.py TOKENIZER TEXT_FOLDER OUT.pickle [PROCESSES]

Data named held-out is not opened. Of the children's books every thirtieth is left out, of FairytaleQA the
validation and test stories, of the Wikipedia files every hundredth article: evaluate.py measures on them.
"""
import json
import lzma
import multiprocessing
import os
import pickle
import re
import sys
from dataclasses import dataclass, field

import numpy as np

import bpe

BOOKS, BOOK_HELD, WIKI_HELD = "children_books", 30, 100
PLAIN = [BOOKS, "text_openstax", "text_stories", "text_wiki_simple", "wiki_more_1", "wiki_more_2"]
QA = ["qa_train_squad", "qa_train_dialogues", "qa_train_wiki_patterns", "long_train_squality"]
PIECE_CHARS = 60000  # a book is cut into parts of about so many characters
END = re.compile(r"[.!?][\"')\]]*(\s+)(?=[\"'(\[]?[A-Z0-9])|(\n)")
SHORT = re.compile(r"(?:^|[\s(])(?:[A-Z]|Mr|Mrs|Ms|Dr|St|No|vs|Jr|Sr|Prof|Gen|Col|Capt|U\.S|e\.g|i\.e|c|ca)\.$")


@dataclass
class Text:
    """A document: title, ids and where each sentence starts; a sentence begins with its blank or line end."""
    title: str
    ids: np.ndarray
    starts: np.ndarray
    qas: list = field(default_factory=list)  # [question, answer], or [question, [answers]] of SQuALITY

    def sentence_ids(self, i):
        end = self.starts[i + 1] if i + 1 < len(self.starts) else len(self.ids)
        return self.ids[self.starts[i] : end]

    def sentences(self):
        return len(self.starts)


def split_sentences(text):
    """Pieces that join to `text`; every piece but the first begins with what separated it."""
    out, at = [], 0
    for found in END.finditer(text):
        cut = found.start(1) if found.group(1) is not None else found.start(2)
        if found.group(1) and not found.group(1).startswith("\n") and SHORT.search(text[max(at, cut - 8) : cut]):
            continue
        if cut > at:
            out.append(text[at:cut])
            at = cut
    out.append(text[at:])
    return out


def make_text(tokenizer, title, text, qas=()):
    ids, starts = [], []
    for piece in split_sentences(text):
        starts.append(len(ids))
        ids += tokenizer.encode(piece)
    return Text(title, np.array(ids, np.uint16), np.array(starts, np.int32), list(qas))


def open_text(folder, name, extension):
    for path in (f"{folder}/{name}{extension}.xz", f"{folder}/qa/{name}{extension}.xz", f"{folder}/{name}{extension}"):
        if os.path.exists(path):
            return lzma.open(path, "rt", encoding="utf-8") if path.endswith(".xz") else open(path, encoding="utf-8")
    return None


def plain_parts(folder, name, held=False):
    """(title, text) of the training or the held-out documents of a plain file, books in parts."""
    file = open_text(folder, name, ".txt")
    if file is None:
        return
    with file:
        documents = [d.strip() for d in file.read().split("<|endoftext|>")]
    every, which = (BOOK_HELD, 7) if name == BOOKS else (WIKI_HELD, 50)
    for i, document in enumerate(d for d in documents if len(d) > 200):
        if (i % every == which) != held:
            continue
        title, _, body = document.partition("\n")
        at = 0
        while at < len(body):
            end = body.find("\n", at + PIECE_CHARS)
            end = len(body) if end < 0 else end
            yield title.strip(), body[at:end].strip()
            at = end


def qa_records(folder, name):
    file = open_text(folder, name, ".jsonl")
    if file is None:
        return
    with file:
        for line in file:
            r = json.loads(line)
            yield r["title"], r["context"], r["qas"]


def fairytales(folder, splits):
    """(story, sections, [question, answer, section, explicit])."""
    file = open_text(folder, "fairytaleqa", ".jsonl")
    if file is None:
        return
    with file:
        for line in file:
            r = json.loads(line)
            if r["split"] in splits:
                yield r["story"], r["sections"], [
                    (q["question"], q["answers"][0].strip(), q["section"], q["ex_im"] == "explicit") for q in r["qas"]]


tokenizer_of_process = None


def begin_process(path):
    global tokenizer_of_process
    tokenizer_of_process = bpe.Tokenizer.load(path)


def encode_one(item):
    name, title, text, qas = item
    return name, make_text(tokenizer_of_process, title, text, qas)


def items(folder):
    for name in PLAIN:
        for title, text in plain_parts(folder, name):
            yield name, title, text, ()
    for name in QA:
        for title, text, qas in qa_records(folder, name):
            yield name, title, text, qas
    for title, sections, qas in fairytales(folder, ("train",)):
        for i, section in enumerate(sections):
            asked = [[q, a] for q, a, s, explicit in qas if s == str(i + 1) and explicit]
            yield "fairytaleqa", title, section, asked


def build(tokenizer_path, folder, processes):
    """{source: [Text]}."""
    out = {}
    with multiprocessing.Pool(processes, begin_process, (tokenizer_path,)) as pool:
        for name, text in pool.imap(encode_one, items(folder), chunksize=16):
            out.setdefault(name, []).append(text)
    return out


def main():
    processes = int(sys.argv[4]) if len(sys.argv) > 4 else os.cpu_count()
    texts = build(sys.argv[1], sys.argv[2], processes)
    for name, found in texts.items():
        print(f"{name}: {len(found)} documents, {sum(len(t.ids) for t in found) / 1e6:.2f} M tokens", flush=True)
    with open(sys.argv[3], "wb") as f:
        pickle.dump(texts, f, protocol=pickle.HIGHEST_PROTOCOL)


if __name__ == "__main__":
    import corpus  # so that what is pickled is corpus.Text, not __main__.Text

    corpus.main()
