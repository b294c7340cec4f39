"""Documents with questions that the model has not seen: people's questions from shared/text, and generated facts.

A set is a function that yields documents (Document) without end or as many as there are; evaluate.py takes documents
until it has the questions that it wants. Every choice comes from a random.Random that the set's name seeds. What needs
shared data raises Missing where a file is not there.
"""
import json
import random
import re
from dataclasses import dataclass, field

import facts
import served

SEED = "evaluate 2026-11-29"  # of the held-out draws; training seeds are whole numbers
LENGTHS = {"1k": 1000, "2k": 2000, "4k": 4000, "8k": 7800}  # tokens of a document; question and answer need the rest
DEPTHS = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0]
ARTICLE_QUESTIONS, PARAGRAPH_QUESTIONS, UNANSWERABLE_QUESTIONS = 8, 4, 3
FACTS, FACTS_ASKED, UNKNOWN_ASKED = 12, 10, 3
COLLECT = "What does the {kind} say about {about}?"
SENTENCE_TOKENS = 24  # of a generated sentence, about
KNOWN, UNKNOWN, COLLECTED = "known", "unknown", "collected"


class Missing(Exception):
    """A file of shared/text is not there."""


@dataclass
class Question:
    text: str
    accepted: list  # answers; of COLLECTED the sentences that the answer should bring together
    kind: str = KNOWN
    label: str = ""  # of a row: depth, or the kind of fact


@dataclass
class Document:
    text: str
    questions: list = field(default_factory=list)


def rng_of(name):
    return random.Random(f"{SEED} {name}")


class Texts:
    """What the sets are made from: the folder of shared/text, or None, and a counter of tokens."""

    def __init__(self, folder, count, context):
        self.folder, self.count_tokens, self.context = folder, count, context
        self.counted, self.files = {}, {}

    def count(self, text):
        if text not in self.counted:
            self.counted[text] = self.count_tokens(text)
        return self.counted[text]

    def records(self, name):
        """The lines of a .jsonl file."""
        if name not in self.files:
            corpus = self.corpus()
            file = corpus.open_text(self.folder, name, ".jsonl")
            if file is None:
                raise Missing(f"{name} is not in {self.folder}")
            with file:
                self.files[name] = [json.loads(line) for line in file]
        return self.files[name]

    def corpus(self):
        if not self.folder:
            raise Missing("no folder of texts was found")
        try:
            import corpus
        except ImportError as e:
            raise Missing(f"corpus.py needs the module {e.name}") from e
        return corpus

    def plain(self, name):
        """(title, text) of the held-out documents of a plain file."""
        if name not in self.files:
            self.files[name] = list(self.corpus().plain_parts(self.folder, name, held=True))
            if not self.files[name]:
                raise Missing(f"{name} is not in {self.folder}")
        return self.files[name]

    def wikipedia(self):
        out = []
        for name in ("text_wiki_simple", "wiki_more_1", "wiki_more_2"):
            try:
                out += self.plain(name)
            except Missing:
                continue
        if not out:
            raise Missing(f"no Wikipedia text is in {self.folder}")
        return out

    def tales(self):
        """Test stories of FairytaleQA: (sections, questions)."""
        return [(r["sections"], r["qas"]) for r in self.records("fairytaleqa") if r["split"] == "test"]


# --- filler: sentences around what is asked for


class Filler:
    """Running sentences of held-out Wikipedia articles and books; generated ones where those are missing."""

    def __init__(self, texts, rng):
        self.texts, self.rng, self.missing = texts, rng, ""
        try:
            self.pools = [texts.wikipedia(), texts.plain("children_books")]
            self.split = texts.corpus().split_sentences
        except Missing as e:
            self.pools, self.missing = [], str(e)

    def sentences(self, tokens):
        """Sentences of about `tokens` tokens, with what separates them; further texts follow where one is too short."""
        out, total = [], 0
        while total < tokens:
            for piece in self.passage():
                total += self.texts.count(piece)
                if total > tokens and out:
                    return out
                out.append(piece)
        return out

    def passage(self):
        if not self.pools:
            return [" " + s for s in facts.about(self.rng, facts.person(self.rng), 8)]
        pieces = self.split(self.rng.choice(self.rng.choice(self.pools))[1])
        first = self.rng.randrange(max(1, len(pieces) // 2))
        return ["\n\n" + pieces[first].lstrip(), *pieces[first + 1 :]]


def join(pieces):
    """Sentences to a text: those without white space before them get a blank."""
    return "".join(p if p[:1].isspace() else " " + p for p in pieces).strip()


def hide(rng, filler, said):
    """Sentences at random places between others, in order."""
    places = sorted(rng.randrange(len(filler) + 1) for _ in said)
    out, at = [], 0
    for place, sentence in zip(places, said):
        out += filler[at:place] + [sentence]
        at = place
    return join(out + filler[at:])


# --- people's questions


def accepted_of(answer):
    return answer if isinstance(answer, list) else [answer]


def squad_paragraphs(texts):
    """A paragraph, questions about it, and some of SQuAD 2.0 that it does not answer."""
    rng, records = rng_of("squad"), list(texts.records("qa_heldout_squad_dev"))
    rng.shuffle(records)
    for r in records:
        known = [Question(q, accepted_of(a)) for q, a in rng.sample(r["qas"], min(len(r["qas"]), PARAGRAPH_QUESTIONS))]
        unanswered = r.get("unanswerable") or []
        unknown = [Question(q, [facts.UNKNOWN], UNKNOWN)
                   for q in rng.sample(unanswered, min(len(unanswered), UNANSWERABLE_QUESTIONS))]
        if known:
            yield Document(r["context"], known + unknown)


def around(rng, texts, paragraphs, gold, tokens):
    """[low, high] of the paragraphs around `gold` that take `tokens` tokens; where in them it stands is random."""
    low = high = gold
    left = tokens - texts.count(paragraphs[gold])
    before = rng.random() * left
    for budget, goes_on in ((before, True), (None, False), (None, True)):
        # Before it, then after it with what is left, then before it again where the article ends early.
        while budget is None or budget > 0:
            at = low - 1 if goes_on else high + 1
            if not 0 <= at < len(paragraphs):
                break
            cost = texts.count(paragraphs[at]) + 1
            if cost > left or (budget is not None and cost > budget):
                break
            left -= cost
            budget = None if budget is None else budget - cost
            low, high = (at, high) if goes_on else (low, at)
    return low, high


def squad_articles(texts, length):
    """An article cut to `length` around a paragraph, and questions about the paragraphs that it has then."""
    rng, articles = rng_of(f"squad {length}"), {}
    for r in texts.records("qa_heldout_squad_dev"):
        articles.setdefault(r["title"], []).append(r)
    articles = list(articles.values())
    rng.shuffle(articles)
    while True:
        for article in articles:
            gold = rng.choice([i for i, r in enumerate(article) if r["qas"]])
            low, high = around(rng, texts, [r["context"] for r in article], gold, LENGTHS[length])
            first = rng.choice(article[gold]["qas"])
            others = [qa for r in article[low : high + 1] for qa in r["qas"] if qa is not first]
            chosen = [first] + rng.sample(others, min(len(others), ARTICLE_QUESTIONS - 1))
            yield Document("\n".join(r["context"] for r in article[low : high + 1]),
                           [Question(q, accepted_of(a)) for q, a in chosen])


def nq_articles(texts):
    """Search queries with the article around the paragraph that answers; longer ones are cut to 8k."""
    rng, records = rng_of("nq"), list(texts.records("qa_heldout_nq_articles"))
    rng.shuffle(records)
    for r in records:
        paragraphs, at, gold = r["context"].split("\n"), 0, 0
        for i, paragraph in enumerate(paragraphs):
            if at <= r["gold_at"]:
                gold = i
            at += len(paragraph) + 1
        low, high = around(rng, texts, paragraphs, gold, LENGTHS["8k"])
        yield Document("\n".join(paragraphs[low : high + 1]), [Question(q, accepted_of(a)) for q, a in r["qas"]])


def dialogues(texts):
    rng, records = rng_of("dialogues"), list(texts.records("qa_heldout_dialogues"))
    rng.shuffle(records)
    for r in records:
        yield Document(r["context"], [Question(q, accepted_of(a)) for q, a in rng.sample(r["qas"], min(4, len(r["qas"])))])


def tale_sections(texts):
    """FairytaleQA: the section, or sections, that a question was written for."""
    rng, documents = rng_of("tales"), {}
    for number, (sections, asked) in enumerate(texts.tales()):
        for q in asked:
            documents.setdefault((number, q["section"]), (sections, []))[1].append(q)
    order = sorted(documents)
    rng.shuffle(order)
    for key in order:
        sections, asked = documents[key]
        wanted = [int(s) - 1 for s in key[1].split(",")]
        text = "\n".join(sections[i].strip() for i in wanted if 0 <= i < len(sections))
        yield Document(text, [Question(q["question"], q["answers"]) for q in rng.sample(asked, min(4, len(asked)))])


def tales_whole(texts):
    rng, tales = rng_of("whole tales"), texts.tales()
    rng.shuffle(tales)
    for sections, asked in tales:
        text = "\n".join(s.strip() for s in sections)
        if texts.count(text) <= LENGTHS["8k"]:
            yield Document(text, [Question(q["question"], q["answers"]) for q in rng.sample(asked, min(10, len(asked)))])


# --- generated facts


def facts_hidden(texts, length):
    """Single facts among sentences of held-out text, some questions without an answer between them."""
    rng = rng_of(f"facts {length}")
    filler = Filler(texts, rng)
    while True:
        groups = facts.make_facts(rng, FACTS)
        said = [f.said for g in groups for f in g]
        able = [g[0] for g in groups if len(g) == 1 and g[0].asked]
        asked = [rng.choice(f.asked)[:2] for f in rng.sample(able, min(len(able), FACTS_ASKED))]
        unknown = [Question(facts.unknown_question(rng, groups), [facts.UNKNOWN], UNKNOWN) for _ in range(UNKNOWN_ASKED)]
        text = hide(rng, filler.sentences(LENGTHS[length] - SENTENCE_TOKENS * len(said)), said)
        yield Document(text, [Question(q, [a]) for q, a in asked] + unknown)


def facts_alike(texts, length):
    """Facts of one kind with other keys and values: the hardest to tell apart."""
    rng = rng_of(f"alike {length}")
    filler = Filler(texts, rng)
    while True:
        said = [g[0] for g in facts.alike_facts(rng, FACTS)]
        asked = [rng.choice(f.asked)[:2] for f in said]
        text = hide(rng, filler.sentences(LENGTHS[length] - SENTENCE_TOKENS * len(said)), [f.said for f in said])
        yield Document(text, [Question(q, [a]) for q, a in asked])


def needles(texts, length):
    """Nine facts of nine kinds at nine depths of a document; each is asked for."""
    rng = rng_of(f"needles {length}")
    filler = Filler(texts, rng)
    while True:
        pieces = filler.sentences(LENGTHS[length] - SENTENCE_TOKENS * len(DEPTHS))
        out, at, asked = [], 0, []
        for depth, kind in zip(DEPTHS, rng.sample(facts.KINDS, len(DEPTHS))):
            fact = facts.fact_of(rng, kind, kind.key(rng), kind.value(rng))
            place = round(depth * len(pieces))
            out += pieces[at:place] + [fact.said]
            at = place
            question, answer = fact.asked[rng.randrange(len(kind.asked))][:2]
            asked.append(Question(question, [answer], label=f"{depth:g}"))
        yield Document(join(out + pieces[at:]), asked)


def combined(texts, length):
    """Facts that only together answer: a value that changed, a list, a chain, a comparison."""
    rng = rng_of(f"combined {length}")
    filler = Filler(texts, rng)
    while True:
        asked, said, seen = [], [], set()
        for make in facts.GROUPS * 2:
            group = make(rng)
            question, answer = rng.choice(group[-1].asked or group[0].asked)[:2]
            if question in seen or any(f.said in said for f in group):
                continue
            seen.add(question)
            said += [f.said for f in group]
            asked.append(Question(question, [answer], label=make.__name__.split("_")[0]))
        text = hide(rng, filler.sentences(LENGTHS[length] - SENTENCE_TOKENS * len(said)), said)
        yield Document(text, asked)


# --- long answers


def named(rng):
    roll = rng.randrange(4)
    return [facts.person(rng), "the " + facts.thing(rng), facts.town(rng), "the " + facts.title(rng)][roll]


def collect_generated(texts, length):
    """All sentences that name something, far apart from each other."""
    rng = rng_of(f"collect {length}")
    filler = Filler(texts, rng)
    while True:
        keys, said = [], []
        while len(keys) < 3:
            key = named(rng)
            if not any(key in k or k in key for k in keys):
                keys.append(key)
        for key in keys:
            said += [(key, s) for s in facts.about(rng, key, rng.randrange(3, 9))]
        rng.shuffle(said)
        pieces = filler.sentences(LENGTHS[length] - SENTENCE_TOKENS * len(said))
        asked = [Question(COLLECT.format(kind="text", about=key), [s for k, s in said if k == key], COLLECTED)
                 for key in keys if not any(key in p for p in pieces)]
        if asked:
            yield Document(hide(rng, pieces, [s for _, s in said]), asked)


def collect_wikipedia(texts, length):
    """The same of held-out Wikipedia articles: names that stand in 2 to 8 of their sentences."""
    rng, corpus = rng_of(f"collect wikipedia {length}"), texts.corpus()
    articles = texts.wikipedia()
    term = re.compile(r"(?<![.!?\"] )(?<!^)\b((?:[A-Z][a-z]{2,}[\w'-]*)(?: [A-Z][a-z]+){0,2})\b")
    while True:
        pieces, total, kept = corpus.split_sentences(rng.choice(articles)[1]), 0, []
        for piece in pieces:
            total += texts.count(piece)
            if total > LENGTHS[length]:
                break
            kept.append(piece)
        where = {}
        for i, piece in enumerate(kept):
            for name in set(term.findall(piece.strip())):
                where.setdefault(name, set()).add(i)
        asked = []
        for name in sorted(n for n, at in where.items() if 2 <= len(at) <= 8):
            found = [p.strip() for p in kept if re.search(rf"\b{re.escape(name)}\b", p)]
            if 2 <= len(found) <= 8 and all(20 < len(s) < 400 for s in found):
                asked.append(Question(COLLECT.format(kind="text", about=name), found, COLLECTED))
        if asked and total > LENGTHS[length] / 2:
            yield Document(join(kept), rng.sample(asked, min(3, len(asked))))


# --- running text, for perplexity


def running_text(texts, source, characters, most):
    """Beginnings, at most `most` characters each, of held-out documents of a source; `characters` in all."""
    rng = rng_of(f"perplexity {source}")
    if source == "wikipedia":
        pool = [text for _, text in texts.wikipedia()]
    elif source == "fairytaleqa":
        pool = ["\n".join(s.strip() for s in sections) for sections, _ in texts.tales()]
    elif source.startswith("qa_"):
        pool = [r["context"] for r in texts.records(source)]
    else:
        pool = [text for _, text in texts.plain(source)]
    rng.shuffle(pool)
    out = []
    for text in pool:
        if len(text) > 200 and characters > 0 and len(out) < served.TEXTS_MAX:
            out.append(text[: min(most, characters)])
            characters -= len(out[-1])
    return out
