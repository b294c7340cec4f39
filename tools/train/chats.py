"""Makes training conversations (and plain runs of text) of about a wanted length from corpus.py's texts.

A user's message is the document, an empty line, the question; further questions follow as messages of their own.
Each piece of a sequence has a class that train.py gives a weight: NONE is not learnt, DOCUMENT a little (its words are
chosen by others, generated values are noise by intention), PLAIN is running text, ANSWER counts full.
"""
import itertools
import re

import numpy as np

import facts
import questions

NONE, DOCUMENT, PLAIN, ANSWER = 0, 1, 2, 3
UNKNOWN = facts.UNKNOWN
SYSTEM = [
    "You are a helpful assistant.", "You answer questions about a text.", "You read a text and answer questions about it.",
    "Answer from the text only. If the text does not say it, say so.", "You are an assistant that reads documents.",
    "Be brief.", "Read the document and answer the question.", "You tell stories and answer questions about them.",
]
IN_A_SENTENCE = ["Answer in a sentence.", "Answer in a full sentence.", "Please answer in one sentence.",
                 "Use a full sentence."]
FULL = ["Answer in full sentences.", "Use full sentences.", "Each answer is a sentence."]
QUOTE = ["Which sentence of the text says so?", "Quote the sentence of the text.", "Where does the text say that?",
         "Show me the sentence."]
LIST = ["Answer these questions.", "Answer the questions.", "Answer each question.", "Please answer:", "Questions:",
        "Answer all of these questions from the text."]
GAP = ["", "", "Fill in the gap: ", "What is missing here? ", "Complete this from the text: "]
CONTINUE = ["Continue the story.", "What happens next?", "Go on with the story.", "Tell me what happens next.",
            "Continue the text."]
SUMMARISE = ["Summarise the text in three sentences.", "Sum up the text in three sentences.", "Give a short summary.",
             "Summarize the text in three sentences.", "What is the text about? Answer in three sentences."]
KINDS_OF_TEXT = ["text", "text", "text", "document", "report", "story", "article", "logbook", "book", "letter", "page", "diary"]
COLLECT = [
    "What does the {t} say about {x}?", "What does the {t} say about {x}?", "Tell me everything that the {t} says about {x}.",
    "Collect what the {t} says about {x}.", "What do we learn about {x}?", "Bring together what the {t} says about {x}.",
    "What is said about {x} in the {t}?", "List all that the {t} tells about {x}.", "What happened to {x}?",
    "Everything about {x}, please.",
]
TERM = re.compile(r"(?<![.!?\"] )(?<!^)\b((?:[A-Z][a-z]{2,}[\w'-]*)(?: [A-Z][a-z]+){0,2})\b")
SPAN = re.compile(r"\b(?:[A-Z][a-z]{2,}[\w'-]*(?: [A-Z][a-z]+){0,2}|[12]\d{3})\b")
NAME = re.compile(r"\b[A-Z][a-z]{3,}\b")
NAMED = re.compile(r"\b(?:[A-Z][a-z]{3,}|\d{2,})\b")
KEPT = set(facts.MONTHS + facts.DAYS + "What When Where Which Whose Whom That This There Their These Those They".split()
           + "After Before During Since While With From However Although Because Under Other Some Many Most".split())
HELLO = [("Hello", "Hello. Give me a text and ask me about it."), ("Hi!", "Hello. Which text shall I read?"),
         ("Who are you?", "I am pdd-read, a small model that reads texts and answers questions about them."),
         ("What can you do?", "I read a text and answer questions about it. I can also continue a story."),
         ("Thank you.", "You are welcome."), ("Thanks!", "You are welcome."), ("Good morning", "Good morning.")]


class Chat:
    """A sequence of ids and their classes."""

    def __init__(self, maker):
        self.m, self.ids, self.classes = maker, [], []

    def add(self, ids, which):
        self.ids.append(np.asarray(ids, np.uint16))
        self.classes.append(np.full(len(ids), which, np.uint8))

    def turn(self, role, ids, which):
        t = self.m.t
        self.add([t.im_start] + t.encode(role + "\n"), NONE)
        self.add(ids, which)
        self.add([t.im_end], ANSWER if role == "assistant" else DOCUMENT)
        self.add(t.encode("\n"), NONE)

    def ask(self, document, question, answer):
        """One question and its answer; `document` (ids) comes before the first."""
        ids = self.m.t.encode(("\n\n" if document is not None else "") + question)
        self.turn("user", np.concatenate([document, ids]) if document is not None else ids, DOCUMENT)
        self.turn("assistant", answer if isinstance(answer, np.ndarray) else self.m.t.encode(answer), ANSWER)

    def some(self, document, asked):
        """One question after the other, or now and then all of them at once."""
        if len(asked) > 1 and self.m.rng.random() < 0.25:
            return self.listed(document, asked)
        return self.all(document, asked)

    def all(self, document, asked):
        for question, answer in asked:
            self.ask(document, question, answer)
            document = None
        return self

    def listed(self, document, asked):
        """All questions in one message, as a list, and the answers likewise."""
        numbers = range(1, len(asked) + 1)
        ask = self.m.rng.choice(LIST) + "\n" + "\n".join(f"{i}. {q}" for i, (q, _) in zip(numbers, asked))
        self.ask(document, ask, "\n".join(f"{i}. {a}" for i, (_, a) in zip(numbers, asked)))
        return self

    def end(self):
        self.add([self.m.t.eot], NONE)
        return np.concatenate(self.ids), np.concatenate(self.classes)


class Pool:
    """Texts, drawn as often as they are long: or a small file of short ones would soon be known by heart."""

    def __init__(self, texts):
        self.texts = texts
        self.weights = list(itertools.accumulate(len(x.ids) for x in texts))

    def draw(self, rng):
        return rng.choices(self.texts, cum_weights=self.weights)[0]


class Maker:
    """Draws conversations. `rng` is random.Random; one maker per process."""

    def __init__(self, tokenizer, texts, rng):
        self.t, self.rng, self.texts = tokenizer, rng, texts
        names = ["text_wiki_simple", "wiki_more_1", "wiki_more_2", "text_openstax"]
        self.real = self.long_enough(names, 200)
        self.tales = self.long_enough(["children_books", "text_stories"], 200)
        self.squad = self.grouped("qa_train_squad")
        self.tale_sections = self.grouped("fairytaleqa")
        self.patterns = texts.get("qa_train_wiki_patterns", [])
        self.dialogues = texts.get("qa_train_dialogues", [])
        self.plots = texts.get("long_train_squality", [])
        self.names = self.known_names()

    def long_enough(self, names, tokens):
        return Pool([x for name in names for x in self.texts.get(name, []) if len(x.ids) > tokens])

    def grouped(self, name):
        articles = {}
        for text in self.texts.get(name, []):
            articles.setdefault(text.title, []).append(text)
        return [a for a in articles.values() if sum(len(x.qas) for x in a) > 0]

    def known_names(self):
        """Names of people and places out of the questions, to rename with, and some invented ones."""
        found = {n for a in self.squad for p in a for q in p.qas for n in NAME.findall(q[1])} - KEPT
        return sorted(found) + sorted({facts.invented(self.rng).capitalize() for _ in range(len(found) // 3 + 50)})

    def chat(self):
        out = Chat(self)
        if self.rng.random() < 0.4:
            out.turn("system", self.t.encode(self.rng.choice(SYSTEM)), NONE)
        return out

    def clean(self, ids):
        """A sentence without the blank or line end before it."""
        first = self.t.pieces[int(ids[0])]
        return np.array(self.t.encode(self.words(ids)), np.uint16) if first[:1].isspace() else ids

    def words(self, ids):
        """Text of ids, without the blank before it."""
        return self.t.decode(ids.tolist()).strip()

    # --- passages

    def passage(self, pool, tokens):
        """Consecutive sentences of one text, about `tokens` long; more texts follow where one is too short."""
        out, total = [], 0
        while total < tokens:
            text = pool.draw(self.rng)
            first = self.rng.randrange(text.sentences()) if len(text.ids) > tokens else 0
            if total and self.rng.random() < 0.7:
                out.append(np.array(self.t.encode("\n\n" if self.rng.random() < 0.5 else "\n"), np.uint16))
                total += len(out[-1])
            for i in range(first, text.sentences()):
                ids = text.sentence_ids(i)
                if i == first:
                    ids = self.clean(ids)
                if len(ids) == 0:
                    continue  # a sentence of white space alone
                if total + len(ids) > tokens and out:
                    return out
                out.append(ids)
                total += len(ids)
        return out

    def pool(self):
        return self.real if self.rng.random() < 0.6 else self.tales

    def hide(self, pieces, said):
        """Sentences put between others, in order, at random places; mostly in running text, at times as lines."""
        places = sorted(self.rng.randrange(len(pieces) + 1) for _ in said)
        out, at = [], 0
        for place, sentence in zip(places, said):
            out += pieces[at:place]
            at = place
            before = "" if not out else "\n" if self.rng.random() < 0.12 else " "
            if out and out[-1][-1] == self.newline():
                before = ""
            out.append(np.array(self.t.encode(before + sentence), np.uint16))
        return out + pieces[at:]

    def newline(self):
        return self.t.encode("\n")[0]

    def dated(self, pieces):
        """Now and then the text is a diary: a line with a date before some sentences."""
        if len(pieces) < 4 or self.rng.random() > 0.2:
            return pieces
        out, every = [], self.rng.randrange(2, 9)
        for i, piece in enumerate(pieces):
            if i % every == 0:
                date = f"{self.rng.choice(facts.MONTHS)} {self.rng.randrange(1, 31)}"
                out.append(np.array(self.t.encode(("\n\n" if i else "") + date + "\n"), np.uint16))
                piece = self.clean(piece)
            out.append(piece)
        return out

    # --- kinds of conversation

    def with_facts(self, tokens):
        rng = self.rng
        n = rng.randrange(1, 5) if rng.random() < 0.4 else rng.randrange(4, 18)
        n = max(1, min(n, tokens // 24))
        if rng.random() < 0.25:
            groups = facts.alike_facts(rng, max(2, min(tokens // 24, rng.randrange(2, 16))))
        else:
            groups = facts.make_facts(rng, n)
        flat = [fact for group in groups for fact in group]
        filler = tokens - 18 * len(flat)
        pieces = self.passage(self.pool(), filler) if filler > 30 else []
        if len(groups) > 1 and rng.random() < 0.5:
            rng.shuffle(groups)
            flat = [fact for group in groups for fact in group]
        document = np.concatenate(self.dated(self.hide(pieces, [f.said for f in flat])))
        able = [f for f in flat if f.asked]
        asked = []
        if len(able) > 3 and rng.random() < 0.15:
            chosen = [rng.choice(f.asked) for f in rng.sample(able, rng.randrange(3, min(len(able), 14) + 1))]
            questions_at_once = [(q, sentence) for q, _, sentence in chosen]
            questions_at_once[-1] = (f"{questions_at_once[-1][0]}\n{rng.choice(FULL)}", questions_at_once[-1][1])
            return self.chat().listed(document, questions_at_once)
        for fact in rng.sample(able, min(len(able), self.how_many(tokens))):
            question, short, sentence = rng.choice(fact.asked)
            asked += self.styled(question, short, sentence, fact.said)
        for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
            asked.insert(rng.randrange(len(asked) + 1), (facts.unknown_question(rng, groups), UNKNOWN))
        return self.chat().some(document, asked)

    def how_many(self, tokens):
        """Questions in one conversation: long documents are dear, so they are asked more."""
        return self.rng.randrange(1, 5 + min(9, tokens // 400))

    def styled(self, question, short, sentence, said):
        """A question in one of the styles of answer."""
        rng, roll = self.rng, self.rng.random()
        if roll < 0.15:
            return [(f"{question} {rng.choice(IN_A_SENTENCE)}", sentence)]
        if roll < 0.2:
            return [(question, short), (rng.choice(QUOTE), said)]
        return [(questions.as_typed(rng, question), short)]

    def from_sentences(self, tokens):
        """Questions made from the sentences of real text, at times one of another text."""
        rng = self.rng
        pieces = self.passage(self.real if rng.random() < 0.85 else self.tales, tokens)
        if rng.random() < 0.3:
            text = self.real.draw(rng)
            guests = [self.words(text.sentence_ids(rng.randrange(text.sentences()))) for _ in range(3)]
            pieces = self.hide(pieces, [g for g in guests if 40 < len(g) < 300])
        asked = []
        most = self.how_many(tokens)
        for i in rng.sample(range(len(pieces)), min(len(pieces), 2 * most + 4)):
            sentence = self.words(pieces[i])
            made = questions.about_sentence(rng, sentence)
            if made:
                asked += self.styled(made[0], made[1], sentence, sentence)
            if len(asked) >= most:
                break
        if rng.random() < 0.25:
            text = self.real.draw(rng)
            made = questions.about_sentence(rng, self.words(text.sentence_ids(rng.randrange(text.sentences()))))
            if made:
                asked.insert(rng.randrange(len(asked) + 1), (made[0], UNKNOWN))
        if not asked:
            return self.plain(tokens)
        return self.chat().some(np.concatenate(pieces), asked)

    def recurring(self, tokens):
        """Sentences that are left out, asked for by what the rest names as well: the answer must be read out of other
        words than the question's (recurring spans, Ram et al., 2021)."""
        rng = self.rng
        pieces = self.passage(self.real if rng.random() < 0.8 else self.tales, int(tokens * 1.1) + 60)
        sentences = [self.words(p) for p in pieces]
        most = max(1, min(self.how_many(tokens), len(pieces) // 6))
        gone, asked = set(), []
        for i in rng.sample(range(len(pieces)), min(len(pieces), 6 * most + 10)):
            made = self.missing(sentences, i, gone) if len(asked) < most else None
            if made:
                gone.add(i)
                asked.append((made[0], made[1], i))
        # an answer whose other place was left out later on is no answer
        said = " ".join(s for i, s in enumerate(sentences) if i not in gone)
        asked = [(q, a) for q, a, _ in asked if a in said]
        if not asked:
            return self.from_sentences(tokens)
        document = np.concatenate([p for i, p in enumerate(pieces) if i not in gone])
        if rng.random() < 0.4:
            document, asked = self.renamed(document, asked)
        return self.chat().some(document, asked)

    def missing(self, sentences, i, gone):
        """(question, answer) made from sentence i, whose answer one to four other sentences hold; or None."""
        rng, sentence = self.rng, sentences[i]
        if not 40 < len(sentence) < 330:
            return None
        if rng.random() < 0.5:
            made = questions.about_sentence(rng, sentence)
        else:
            found = [m for m in SPAN.finditer(sentence) if m.start() > 0]
            if not found:
                return None
            m = rng.choice(found)
            made = rng.choice(GAP) + sentence[: m.start()] + "____" + sentence[m.end():], m.group()
        if not made or len(made[1]) < 3:
            return None
        held = sum(made[1] in s for j, s in enumerate(sentences) if j != i and j not in gone)
        return made if 1 <= held <= 4 else None

    def articles(self, tokens, pool):
        """Questions of people about paragraphs, inside as much of their article as fits."""
        rng = self.rng
        article = rng.choice(pool)
        able = [i for i, p in enumerate(article) if p.qas]
        at = rng.choice(able)
        low = high = at
        total = len(article[at].ids)
        while True:
            down = low > 0 and total + len(article[low - 1].ids) < tokens
            up = high + 1 < len(article) and total + len(article[high + 1].ids) < tokens
            if not (down or up):
                break
            if down and (not up or rng.random() < 0.5):
                low -= 1
                total += len(article[low].ids)
            else:
                high += 1
                total += len(article[high].ids)
        here = [(p, qa) for p in article[low : high + 1] for qa in p.qas]
        chosen = rng.sample(here, min(len(here), self.how_many(tokens)))
        gone = self.gone(article[low : high + 1], chosen)
        line = np.array(self.t.encode("\n"), np.uint16)
        parts = [x for p in article[low : high + 1] for x in (line, self.without(p, gone))][1:]
        if total < 0.7 * tokens and rng.random() < 0.6:
            other = np.concatenate(self.passage(self.real, min(tokens - total, 3000)))
            two = np.array(self.t.encode("\n\n"), np.uint16)
            parts = parts + [two, other] if rng.random() < 0.5 else [other, two] + parts
        asked, rename = [], rng.random() < 0.6
        for p, (question, answer) in chosen:
            if gone and p is gone[0] and question == gone[1]:
                asked.append((question, UNKNOWN))
                continue
            if rng.random() < 0.2:
                question = questions.worn(rng, question.rstrip("?")) + "?"
            asked += self.styled_by_text(p, question, answer, not rename)
        if rng.random() < 0.15:
            other = rng.choice(pool)
            if other is not article:
                question = rng.choice(rng.choice([p for p in other if p.qas]).qas)[0]
                asked.insert(rng.randrange(len(asked) + 1), (question, UNKNOWN))
        document = np.concatenate(parts)
        if rename:
            document, asked = self.renamed(document, asked)
        return self.chat().some(document, asked)

    def gone(self, paragraphs, chosen):
        """Now and then a question whose sentence is left out: (paragraph, question, number of the sentence)."""
        if self.rng.random() > 0.25:
            return None
        p, (question, answer) = chosen[0]
        text = "\n".join(self.t.decode(x.ids.tolist()) for x in paragraphs)
        if text.count(answer) != 1:
            return None
        found = [i for i in range(p.sentences()) if answer in self.words(p.sentence_ids(i))]
        return (p, question, found[0]) if found and p.sentences() > 1 else None

    @staticmethod
    def without(p, gone):
        if not gone or gone[0] is not p:
            return p.ids
        return np.concatenate([p.sentence_ids(i) for i in range(p.sentences()) if i != gone[2]])

    def renamed(self, document, asked):
        """The same with other names and numbers: what a text says is to be read, not remembered."""
        rng, text = self.rng, self.t.decode(document.tolist())
        low = set(re.findall(r"\b[a-z]{3,}\b", text))
        names = sorted(n for n in set(NAME.findall(text)) if n.lower() not in low and n not in KEPT)
        other = {n: rng.choice(self.names) for n in names if rng.random() < 0.8}
        for number in sorted(set(re.findall(r"\b\d{2,}\b", text))):
            if rng.random() < 0.7:
                other[number] = number[0] + "".join(rng.choice("0123456789") for _ in number[1:])

        def change(words):
            return NAMED.sub(lambda m: other.get(m.group(), m.group()), words)

        return np.array(self.t.encode(change(text)), np.uint16), [(change(q), change(a)) for q, a in asked]

    def styled_by_text(self, paragraph, question, answer, typed):
        roll = self.rng.random()
        if roll < 0.12:
            for i in range(paragraph.sentences()):
                sentence = self.words(paragraph.sentence_ids(i))
                if answer in sentence:
                    if roll < 0.06:
                        return [(f"{question} {self.rng.choice(IN_A_SENTENCE)}", sentence)]
                    return [(question, answer), (self.rng.choice(QUOTE), sentence)]
        return [(questions.as_typed(self.rng, question) if typed else question, answer)]

    def records(self, tokens, pool, least):
        """Several short records one after the other, and questions about some."""
        rng, chosen, total = self.rng, [], 0
        titles = set()
        while (total < tokens or len(chosen) < least) and len(chosen) < 60:
            record = rng.choice(pool)
            if record.title in titles:
                continue
            if chosen and total + len(record.ids) > 1.2 * tokens:
                break
            titles.add(record.title)
            chosen.append(record)
            total += len(record.ids) + 2
        two = np.array(self.t.encode("\n\n"), np.uint16)
        parts = [x for r in chosen for x in (two, r.ids)][1:]
        able = [r for r in chosen if r.qas]
        asked = [tuple(rng.choice(r.qas)) for r in rng.sample(able, min(len(able), rng.randrange(1, 6)))]
        if not asked:
            return self.plain(tokens)
        return self.chat().all(np.concatenate(parts), asked)

    def dialogue(self, tokens):
        """One dialogue, or its questions would be unclear; around it other text."""
        record = self.rng.choice(self.dialogues)
        if not record.qas:
            return self.plain(tokens)
        asked = [tuple(q) for q in self.rng.sample(record.qas, min(len(record.qas), 4))]
        return self.chat().all(record.ids, asked)

    def plot(self, tokens):
        """SQuALITY: a long question about a story that fits."""
        record = self.rng.choice(self.plots)
        question, answers = self.rng.choice(record.qas)
        ids = record.ids[: max(300, min(len(record.ids), tokens))]
        return self.chat().all(ids, [(question, self.rng.choice(answers))])

    def collect(self, tokens):
        """Everything that the text says about something, in the order of the text."""
        rng = self.rng
        if rng.random() < 0.55:
            return self.collect_generated(tokens)
        pieces = self.passage(self.pool(), tokens)
        sentences = [self.words(p) for p in pieces]
        where = {}
        for i, sentence in enumerate(sentences):
            for term in set(TERM.findall(sentence)):
                where.setdefault(term, set()).add(i)
        able = [t for t, at in where.items() if 2 <= len(at) <= 12 and len(t) > 3]
        rng.shuffle(able)
        asked = []
        for term in able[:3]:
            word = re.compile(r"\b" + re.escape(term) + r"\b")
            found = [s for s in sentences if word.search(s)]
            if 2 <= len(found) <= 12 and sum(map(len, found)) < 2400 and all(10 < len(s) < 500 for s in found):
                asked.append((self.collect_question(term), " ".join(found)))
        if not asked:
            return self.from_sentences(tokens)
        return self.chat().all(np.concatenate(self.dated(pieces)), asked[: rng.choice([1, 1, 2, 3])])

    def collect_question(self, term):
        return self.rng.choice(COLLECT).format(t=self.rng.choice(KINDS_OF_TEXT), x=term)

    def collect_generated(self, tokens):
        rng = self.rng
        keys, said, owner = [], [], []
        first = rng.random() < 0.5  # the sentence of a fact then begins with its name, which is easier
        for _ in range(rng.choice([1, 2, 2, 3])):
            key = rng.choice([facts.person(rng), "the " + facts.thing(rng), "the " + facts.invented(rng).capitalize(),
                              facts.town(rng), "the " + facts.title(rng), "the " + facts.title(rng)])
            if any(key in k or k in key for k in keys):
                continue
            sentences = facts.about(rng, key, rng.randrange(2, 13), first)
            keys.append(key)
            said += sentences
            owner += [len(keys) - 1] * len(sentences)
        order = list(range(len(said)))
        rng.shuffle(order)
        said, owner = [said[i] for i in order], [owner[i] for i in order]
        left = tokens - 28 * len(said)
        pieces = self.passage(self.pool(), left) if left > 30 else []
        document = np.concatenate(self.dated(self.hide(pieces, said)))
        text = self.t.decode(document.tolist())
        asked = []
        for k, key in enumerate(keys):
            mine = [s for s, o in zip(said, owner) if o == k]
            word = re.compile(r"\b" + re.escape(facts.capital(key)[1:]) + r"\b")
            if len(word.findall(text)) == len(mine):
                asked.append((self.collect_question(key), " ".join(mine)))
        rng.shuffle(asked)
        if not asked:
            return self.with_facts(tokens)
        if rng.random() < 0.15:
            asked.append((self.collect_question(facts.person(rng) + " " + facts.invented(rng).capitalize()), UNKNOWN))
        return self.chat().all(document, asked)

    def continuation(self, tokens):
        pieces = self.passage(self.tales, tokens + 250)
        ids = np.concatenate(pieces)
        cut = max(20, len(ids) - self.rng.randrange(100, 260))
        edge = np.cumsum([len(p) for p in pieces])
        cut = int(edge[np.searchsorted(edge, cut)]) if edge[-1] > cut else cut
        cut = cut if cut < len(ids) - 10 else max(20, len(ids) - 120)
        return self.chat().all(ids[:cut], [(self.rng.choice(CONTINUE), self.clean(ids[cut:]))])

    def summary(self, tokens):
        """An encyclopedia's article opens with its summary: its first three sentences."""
        text = self.real.draw(self.rng)
        if text.sentences() < 8:
            return self.plain(tokens)
        n = 3
        end = int(np.searchsorted(text.starts, tokens))
        ids = text.ids[: text.starts[end]] if end < text.sentences() else text.ids
        if end < n + 1:
            return self.plain(tokens)
        return self.chat().all(ids, [(self.rng.choice(SUMMARISE), self.words(text.ids[: text.starts[n]]))])

    def copy(self, tokens):
        """Words, digits or a passage to be repeated: the quickest way to learn to copy."""
        rng, roll, n = self.rng, self.rng.random(), min(tokens, 200)
        if roll < 0.3:
            text = " ".join(facts.invented(rng, rng.choice([1, 2, 3])) for _ in range(n // 4 + 1))
        elif roll < 0.6:
            text = " ".join(facts.digits(rng) for _ in range(n // 5 + 1))
        else:
            text = self.words(np.concatenate(self.passage(self.pool(), n)))
        return self.chat().all(None, [(f"{rng.choice(['Repeat this text.', 'Repeat:', 'Copy this.'])}\n\n{text}", text)])

    def talk(self, tokens):
        asked = self.rng.choice(HELLO)
        if self.rng.random() < 0.6:
            text = self.rng.choice(self.texts.get("text_stories") or self.tales.texts)
            words = self.rng.choice(["Tell me a story.", "Tell me a tale.", f"Tell me the story \"{text.title}\"."])
            return self.chat().all(None, [(words, text.ids[:400])])
        return self.chat().all(None, [asked])

    def plain(self, tokens):
        out = Chat(self)
        out.add(np.concatenate(self.passage(self.real if self.rng.random() < 0.7 else self.tales, tokens)), PLAIN)
        return out

    def draw(self, kind, tokens):
        """(ids, classes) of one conversation or run of text of about `tokens` tokens, ended by <|endoftext|>."""
        made = {
            "facts": self.with_facts, "sentences": self.from_sentences, "recurring": self.recurring,
            "collect": self.collect, "plain": self.plain,
            "squad": lambda n: self.articles(n, self.squad) if self.squad else self.plain(n),
            "tales": lambda n: self.articles(n, self.tale_sections) if self.tale_sections else self.plain(n),
            "patterns": lambda n: self.records(n, self.patterns, 3) if self.patterns else self.plain(n),
            "dialogues": lambda n: self.dialogue(n) if self.dialogues else self.plain(n),
            "plots": lambda n: self.plot(n) if self.plots else self.plain(n),
            "continue": self.continuation, "summary": self.summary, "copy": self.copy, "talk": self.talk,
        }[kind](tokens)
        return made.end()
