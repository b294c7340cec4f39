#!/usr/bin/env python3
"""Measures a GGUF file with this project's own engine, and writes the figures of its model card.

evaluate.py MODEL.gguf [--n N] [--sets A,B] [--json FILE] [--card models/README.md]

Starts `pdd cloud` with the model on loopback and asks it through the OpenAI chat API, greedily: a user's message is
the document, an empty line, the question. Questions of a document follow each other, so that its prefix is computed
once; served.SLOTS documents are read at the same time. The seeds are fixed: the same model and commit give the same
answers. Held-out texts come from shared/text (`--texts`); sets whose texts are missing, or that are longer than the
model's context, are skipped, and the report says so.
"""
import argparse
import datetime
import hashlib
import json
import os
import queue
import sys
import threading
import time
from dataclasses import dataclass

import card
import heldout
import score
import served
from heldout import COLLECTED, KNOWN, UNKNOWN

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ANSWER_TOKENS = {KNOWN: 64, UNKNOWN: 64, COLLECTED: 400}  # at most
ROOM = 350  # tokens of question, template and answer beside a document
PERPLEXITY_CONTEXT, PERPLEXITY_CHARACTERS, PERPLEXITY_CHARACTERS_EACH = 1024, 40000, 5000
SOURCES = ["children_books", "wikipedia", "fairytaleqa", "qa_heldout_squad_dev", "text_openstax", "text_stories"]


@dataclass
class Set:
    name: str
    title: str
    make: object  # of Texts, and of `length` where there is one: yields documents
    n: int  # questions
    group: str = ""
    length: str = ""
    needs: str = ""  # the length that the context must hold, where `length` is not it

    def documents(self, texts):
        made = self.make(texts, self.length) if self.length else self.make(texts)
        asked = 0
        for document in made:
            document.questions = document.questions[: self.n - asked]
            asked += len(document.questions)
            yield document
            if asked >= self.n:
                return


def by_length(group, title, make, n, lengths):
    return [Set(f"{group}-{length}", f"{title}, {length}", make, n, group, length) for length in lengths]


SETS = [
    Set("squad", "SQuAD dev, gold paragraph", heldout.squad_paragraphs, 500),
    *by_length("article", "SQuAD dev, article", heldout.squad_articles, 200, ["4k", "8k"]),
    Set("nq", "Natural Questions, whole article", heldout.nq_articles, 50, needs="8k"),
    Set("dialogues", "dialogues", heldout.dialogues, 200),
    Set("tales", "FairytaleQA test, section", heldout.tale_sections, 200),
    Set("tales-whole", "FairytaleQA test, whole story", heldout.tales_whole, 100, needs="8k"),
    *by_length("facts", "generated facts", heldout.facts_hidden, 130, list(heldout.LENGTHS)),
    *by_length("alike", "facts among alike ones", heldout.facts_alike, 96, ["2k"]),
    *by_length("combined", "facts to combine", heldout.combined, 80, ["1k", "4k"]),
    *by_length("needles", "needles", heldout.needles, 90, list(heldout.LENGTHS)),
    *by_length("collect", "all about a generated name", heldout.collect_generated, 40, ["1k", "4k"]),
    *by_length("collect-wikipedia", "all about a name in Wikipedia", heldout.collect_wikipedia, 40, ["2k"]),
]


def say(text):
    print(text, file=sys.stderr, flush=True)


# --- asking


@dataclass
class Asked:
    """A question and what became of it."""

    document: int
    question: heldout.Question
    answer: str
    finish: str
    tokens: int  # of the prompt
    cached: int

    def line(self):
        q = self.question
        return {"document": self.document, "question": q.text, "accepted": q.accepted, "kind": q.kind, "label": q.label,
                "answer": self.answer, "finish": self.finish, "prompt_tokens": self.tokens, "cached": self.cached}


class Asker:
    """Threads that take documents from a queue and ask their questions one after the other."""

    def __init__(self, port):
        self.queue, self.answers, self.errors = queue.Queue(maxsize=2 * served.SLOTS), {}, []
        self.asked = {}  # questions queued, by set
        self.threads = [threading.Thread(target=self.work, args=(port,), daemon=True) for _ in range(served.SLOTS)]
        for t in self.threads:
            t.start()

    def work(self, port):
        client = served.Client(port)
        while True:
            job = self.queue.get()
            if job is None:
                return
            name, number, document = job
            for q in document.questions:
                if self.errors:
                    break
                try:
                    answer, finish, usage = client.ask(f"{document.text}\n\n{q.text}", ANSWER_TOKENS[q.kind])
                except (OSError, RuntimeError, ValueError) as e:
                    self.errors.append(f"{name}: {e}")
                    break
                cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
                self.answers[name].append(
                    Asked(number, q, answer.strip(), finish, usage["prompt_tokens"], cached))

    def ask(self, chosen, texts):
        """Queue the documents of a set; its questions are answered when done() says so, at the latest after close()."""
        self.answers[chosen.name], self.asked[chosen.name] = [], 0
        for number, document in enumerate(chosen.documents(texts)):
            self.asked[chosen.name] += len(document.questions)
            self.queue.put((chosen.name, number, document))
            if self.errors:
                return

    def done(self, name):
        return len(self.answers[name]) == self.asked[name]

    def close(self):
        for _ in self.threads:
            self.queue.put(None)
        for t in self.threads:
            t.join()
        if self.errors:
            sys.exit(self.errors[0])


# --- figures


def grouped(asked, value):
    """Values by document, for the interval."""
    groups = {}
    for a in asked:
        groups.setdefault(a.document, []).append(float(value(a)))
    return list(groups.values())


def mean(asked, value):
    return score.mean_interval(grouped(asked, value))


def refused(a):
    return score.exact(a.answer, [heldout.facts.UNKNOWN])


def known_figures(asked):
    return {"n": len(asked), "exact": mean(asked, lambda a: score.exact(a.answer, a.question.accepted)),
            "f1": mean(asked, lambda a: score.f1(a.answer, a.question.accepted)), "refused": mean(asked, refused)}


def figures(chosen, asked):
    asked = sorted(asked, key=lambda a: a.document)
    out = {"name": chosen.name, "title": chosen.title, "group": chosen.group, "length": chosen.length,
           "documents": len({a.document for a in asked}), "prompt_tokens": sum(a.tokens for a in asked) / len(asked),
           "ended": mean(asked, lambda a: a.finish == "stop")}
    by_kind = {kind: [a for a in asked if a.question.kind == kind] for kind in (KNOWN, UNKNOWN, COLLECTED)}
    if by_kind[KNOWN]:
        out["known"] = known_figures(by_kind[KNOWN])
        labels = sorted({a.question.label for a in by_kind[KNOWN]} - {""})
        out["labels"] = {l: known_figures([a for a in by_kind[KNOWN] if a.question.label == l]) for l in labels}
    if by_kind[UNKNOWN]:
        out["unknown"] = {"n": len(by_kind[UNKNOWN]), "told": mean(by_kind[UNKNOWN], refused)}
    if by_kind[COLLECTED]:
        scores = {id(a): score.sentence_scores(a.answer, a.question.accepted) for a in by_kind[COLLECTED]}
        out["collected"] = {"n": len(by_kind[COLLECTED]),
                            "recall": mean(by_kind[COLLECTED], lambda a: scores[id(a)][0]),
                            "precision": mean(by_kind[COLLECTED], lambda a: scores[id(a)][1])}
    out["asked"] = [a.line() for a in asked]
    return out


def one_line(s):
    parts = []
    if "known" in s:
        parts.append(f"exact {card.per_cent(s['known']['exact'])}, F1 {card.per_cent(s['known']['f1'])} % of "
                     f"{s['known']['n']}, refused {100 * s['known']['refused'][0]:.0f} %")
    if "unknown" in s:
        parts.append(f"unknown told {card.per_cent(s['unknown']['told'])} % of {s['unknown']['n']}")
    if "collected" in s:
        parts.append(f"sentences found {card.per_cent(s['collected']['recall'])}, right "
                     f"{card.per_cent(s['collected']['precision'])} % of {s['collected']['n']}")
    return f"{s['name']}: {'; '.join(parts)}; ended {100 * s['ended'][0]:.0f} %"


def perplexities(options, texts, context, skipped):
    out = []
    for source in SOURCES:
        try:
            found = heldout.running_text(texts, source, PERPLEXITY_CHARACTERS, PERPLEXITY_CHARACTERS_EACH)
        except heldout.Missing as e:
            skipped.append((f"perplexity of {source}", str(e)))
            continue
        measured = served.perplexity(options.pdd, options.model, found, min(PERPLEXITY_CONTEXT, context))
        bits = [(f["bits_per_byte"] * f["bytes"], f["bytes"]) for f in measured["files"]]
        out.append({"source": source, "documents": len(found), "tokens": measured["total"]["tokens"],
                    "perplexity": measured["total"]["perplexity"], "bits_per_byte": score.ratio_interval(bits),
                    "commit": measured["commit"]})
        say(f"perplexity of {source}: {out[-1]['perplexity']:.2f}, {out[-1]['bits_per_byte'][0]:.3f} bits a byte")
    return out


# --- the command


def chosen_sets(options, context, skipped):
    names = options.sets.split(",") if options.sets else [s.name for s in SETS]
    for name in names:
        if name != "perplexity" and not any(s.name == name or s.group == name for s in SETS):
            sys.exit(f"no set {name}: there are {', '.join(s.name for s in SETS)}, perplexity")
    for s in SETS:
        if s.name not in names and s.group not in names:
            continue
        needed = heldout.LENGTHS.get(s.length or s.needs, 0) + ROOM
        if needed > context:
            skipped.append((s.title, f"it takes {needed} tokens, the model's context has {context}"))
            continue
        s.n = min(s.n, options.n) if options.n else s.n
        yield s


def run_sets(options, server, texts, skipped):
    """The figures of the sets, each told as soon as it is complete."""
    asker, waiting, out = Asker(server.port), [], []

    def tell():
        while waiting and asker.done(waiting[0].name):
            s = waiting.pop(0)
            out.append(figures(s, asker.answers[s.name]))
            say(one_line(out[-1]))

    for s in chosen_sets(options, server.context, skipped):
        try:
            asker.ask(s, texts)
            waiting.append(s)
        except heldout.Missing as e:
            skipped.append((s.title, str(e)))
        if asker.errors:
            break
        tell()
    asker.close()
    tell()
    return out


def about(options, server, report, minutes):
    with open(options.model, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    commit = next((p["commit"] for p in report["perplexity"]), None)
    if commit is None:
        commit = served.perplexity(options.pdd, options.model, ["One sentence, for the commit."], 16)["commit"]
    shown = [os.path.basename(options.model)] + ([f"--n {options.n}"] if options.n else [])
    return {"file": os.path.basename(options.model), "sha256": digest, "weights": server.about["hashes"]["weights"],
            "numerics": server.about["numerics"], "commit": commit, "date": datetime.date.today().isoformat(),
            "minutes": minutes, "command": " ".join(shown + ([f"--sets {options.sets}"] if options.sets else []))}


def folder_of_texts(given):
    if given:
        return given
    near = [os.path.join(ROOT, "shared", "text"), os.path.join(os.path.dirname(ROOT), "shared", "text")]
    return next((p for p in near if os.path.isdir(p)), None)


def parse(arguments):
    p = argparse.ArgumentParser(description="Measures a GGUF file with this project's engine.")
    p.add_argument("model", help="the GGUF file")
    p.add_argument("--n", type=int, default=0, help="at most N questions a set")
    p.add_argument("--sets", default="", help="some sets only, by name or group, with commas; perplexity is one")
    p.add_argument("--json", help="write figures, questions and answers to this file")
    p.add_argument("--card", help="write the tables into this Markdown file, and the picture beside it")
    p.add_argument("--texts", help="the folder of held-out texts (shared/text in or beside the project)")
    p.add_argument("--pdd", default=os.environ.get("PDD_BIN") or os.path.join(ROOT, "build", "release", "pdd"))
    return p.parse_args(arguments)


def main():
    options, begin, skipped = parse(sys.argv[1:]), time.time(), []
    for path in (options.model, options.pdd):
        if not os.path.exists(path):
            sys.exit(f"{path} is not there")
    with served.Server(options.pdd, options.model) as server:
        texts = heldout.Texts(folder_of_texts(options.texts), served.Client(server.port).count, server.context)
        report = {"sets": run_sets(options, server, texts, skipped)}
    wants = not options.sets or "perplexity" in options.sets.split(",")
    report["perplexity"] = perplexities(options, texts, server.context, skipped) if wants else []
    report["skipped"] = skipped
    report["about"] = about(options, server, report, (time.time() - begin) / 60)
    for name, why in skipped:
        say(f"skipped: {name}: {why}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump(report, f, indent=1)
    if options.card:
        card.write(report, options.card)
    print(card.markdown(report, "the picture beside the card"))


if __name__ == "__main__":
    main()
