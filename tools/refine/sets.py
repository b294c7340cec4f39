#!/usr/bin/env python3
"""Writes the sets of questions that `pdd bench refine` asks, one file of JSON lines each.

sets.py MODEL.gguf FOLDER [--texts shared/text] [--n 512] [--sets A,B]

Documents and questions are the held-out ones of tools/train/heldout.py, with fixed seeds. The model is asked for the
lengths of texts in its tokens only. Tasks that need the whole text (summaries, counts) are a set of kind "flat": they
are to be refused.
"""
import argparse
import itertools
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "train"))
import evaluate  # noqa: E402
import heldout  # noqa: E402
import served  # noqa: E402
from heldout import Document, Question  # noqa: E402

heldout.LENGTHS["3k"] = 3000
FLAT = "flat"

# Said of the text as a whole. Half of them mention what it is, as people do.
TASKS = {
    "summary": [
        "Summarize the text.", "Write a summary of the text above.", "Give me a short overview of it.",
        "What is this text about?", "What are the main points?", "Sum this up in three sentences.", "TL;DR",
        "Can you summarise the article for me?", "What is the overall message of the text?",
        "Describe the contents of this document in one paragraph.", "Write an abstract.",
        "Explain the whole text in simple words.", "What should I remember of this?", "Give the text a title.",
        "Rewrite the text in half its length.", "What are the key takeaways?", "Outline the text as a list.",
        "Shorten this to a paragraph.", "Is the text friendly or critical in tone?", "Who would want to read this text?",
    ],
    "count": [
        "How many sentences does the text have?", "How many paragraphs are there?", "Count the words of the text.",
        "How many different people are named?", "How often does the word \"and\" occur?",
        "How many years are mentioned?", "Count all numbers in the text.", "How many questions does the text ask?",
        "How many places are named in total?", "What is the longest sentence?", "Which word occurs most often?",
        "How many of the sentences begin with \"The\"?",
    ],
    "all": [
        "List all people named in the text.", "List every date that is mentioned.", "Name all places in the text.",
        "Translate the text into French.", "Tell me everything that happens, in order.", "Make a timeline of all events.",
        "Correct all mistakes in the text.", "Repeat the text.", "List everything that was bought, built or made.",
        "Does the text contradict itself anywhere?", "Make a glossary of all unusual words.", "List all numbers with what they count.",
    ],
}
FLAT_ASKED = 4  # of a document
FLAT_DOCUMENTS = 128  # of "flat"; those after them are of "flat-other"

# The same tasks in other words, for other texts: they estimate what a threshold does that was chosen by "flat".
OTHER_TASKS = {
    "summary": [
        "Recap everything for me in a few lines.", "I have no time to read this. What does it say?", "Boil it down to the essentials.",
        "Write a headline and two sentences for a newspaper.", "Put the whole thing into plain language for a child.",
        "Condense this into five bullet points.", "What conclusions can be drawn from the passage as a whole?",
        "Write a review of this text.", "Turn it into a short poem.", "What is the author trying to say?",
        "Make an executive summary.", "How would you describe the style?", "Which topics are covered, and in which order?",
        "Compare the beginning with the end.", "Write a conclusion that fits this.", "Suggest three titles.",
    ],
    "count": [
        "How long is this text?", "How many words begin with a capital letter?", "What is the total number of commas?",
        "How many names of countries come up?", "Tell me the number of lines.", "Which letter is the most frequent?",
        "How many sentences contain a number?", "What is the average length of a sentence?",
        "How many times is somebody quoted?", "Is the first half longer than the second?",
    ],
    "all": [
        "Extract every name together with what it is said to be.", "Write ten quiz questions about it.", "Translate everything into German.",
        "Go through it line by line and explain each.", "Put all events into a table with their dates.",
        "Find every spelling mistake.", "Rewrite it in the first person.", "Give me all quotations.",
        "Which statements are opinions, and which are facts? Go through all.", "Draw up an index of all terms.",
        "Replace every number by a word and print the result.", "Mark all adjectives.",
    ],
}


def tasks_for(documents, name, those):
    """FLAT_ASKED tasks for each document, drawn with a seed of their own."""
    rng, tasks = heldout.rng_of(name), [(kind, task) for kind, texts in those.items() for task in texts]
    for d in documents:
        yield Document(d.text, [Question(task, [], FLAT, kind) for kind, task in rng.sample(tasks, FLAT_ASKED)])


def of_people(texts):
    """All documents of the other sets that people wrote, in turn."""
    makers = [heldout.squad_articles(texts, "3k"), cut_articles(texts, "3k"), whole_tales(texts, 1)]
    while makers:
        maker = makers.pop(0)
        document = next(maker, None)
        if document is None:
            continue
        makers.append(maker)
        yield document


def flat(texts):
    """Tasks for a whole text."""
    return tasks_for(itertools.islice(of_people(texts), FLAT_DOCUMENTS), "flat", TASKS)


def flat_other(texts):
    """Other tasks for texts that `flat` does not have."""
    documents = of_people(texts)
    seen = {d.text for d in itertools.islice(documents, FLAT_DOCUMENTS)}
    return tasks_for((d for d in documents if d.text not in seen), "flat other", OTHER_TASKS)


def cut_articles(texts, length):
    """Search queries of Natural Questions with their article, cut to `length` around the paragraph that answers."""
    rng, records = heldout.rng_of(f"nq {length}"), list(texts.records("qa_heldout_nq_articles"))
    rng.shuffle(records)
    for r in records:
        paragraphs, at, gold = r["context"].split("\n"), 0, 0
        for i, paragraph in enumerate(paragraphs):
            gold = i if at <= r["gold_at"] else gold
            at += len(paragraph) + 1
        low, high = heldout.around(rng, texts, paragraphs, gold, heldout.LENGTHS[length])
        yield Document("\n".join(paragraphs[low : high + 1]), [Question(q, heldout.accepted_of(a)) for q, a in r["qas"]])


def whole_tales(texts, asked=8):
    """Whole stories of FairytaleQA that need refinement and fit the context; each again with other questions."""
    rng, tales = heldout.rng_of("refined tales"), []
    for sections, questions in texts.tales():
        text = "\n".join(s.strip() for s in sections)
        if 2100 <= texts.count(text) <= heldout.LENGTHS["8k"]:
            rng.shuffle(questions)
            tales.append((text, questions))
    for at in range(0, max((len(q) for _, q in tales), default=0), asked):
        for text, questions in tales:
            chosen = questions[at : at + asked]
            if chosen:
                yield Document(text, [Question(q["question"], q["answers"]) for q in chosen])


SETS = {
    "needles-3k": lambda texts: heldout.needles(texts, "3k"),
    "needles-8k": lambda texts: heldout.needles(texts, "8k"),
    "several-3k": lambda texts: heldout.combined(texts, "3k"),
    "alike-3k": lambda texts: heldout.facts_alike(texts, "3k"),
    "facts-3k": lambda texts: heldout.facts_hidden(texts, "3k"),
    "squad-3k": lambda texts: heldout.squad_articles(texts, "3k"),
    "squad-8k": lambda texts: heldout.squad_articles(texts, "8k"),
    "nq-3k": lambda texts: cut_articles(texts, "3k"),
    "tales": whole_tales,
    "flat": flat,
    "flat-other": flat_other,
}
FEWER = {"needles-8k": 72, "squad-8k": 64}  # long prompts


def write(path, name, documents, n):
    asked = 0
    with open(path, "w", encoding="utf-8") as out:
        for d in documents:
            questions = d.questions[: n - asked]
            asked += len(questions)
            line = {"set": name, "text": d.text, "questions": [
                {"text": q.text, "accepted": q.accepted, "kind": q.kind, "label": q.label} for q in questions]}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            if asked >= n:
                break
    return asked


def main():
    p = argparse.ArgumentParser(description="Writes the sets of pdd bench refine.")
    p.add_argument("model")
    p.add_argument("folder")
    p.add_argument("--texts", help="the folder of held-out texts (shared/text in or beside the project)")
    p.add_argument("--n", type=int, default=512, help="questions of a set")
    p.add_argument("--sets", default=",".join(SETS))
    p.add_argument("--pdd", default=os.environ.get("PDD_BIN") or os.path.join(evaluate.ROOT, "build", "release", "pdd"))
    options = p.parse_args()
    wrong = [s for s in options.sets.split(",") if s not in SETS]
    if wrong:
        sys.exit(f"no set {wrong[0]}: there are {', '.join(SETS)}")
    os.makedirs(options.folder, exist_ok=True)
    with served.Server(options.pdd, options.model) as server:
        texts = heldout.Texts(evaluate.folder_of_texts(options.texts), served.Client(server.port).count, server.context)
        for name in options.sets.split(","):
            try:
                asked = write(os.path.join(options.folder, name + ".jsonl"), name, SETS[name](texts), min(options.n, FEWER.get(name, options.n)))
                print(f"{name}: {asked} questions")
            except heldout.Missing as e:
                os.unlink(os.path.join(options.folder, name + ".jsonl"))
                print(f"{name}: skipped: {e}")


if __name__ == "__main__":
    main()
