#!/usr/bin/env python3
"""Makes tables and a picture of what `pdd bench refine` wrote.

report.py RESULTS.jsonl... [--flat RESULTS.jsonl] [--page docs/REFINE.md]

--flat: the tables of refusals are made of these results: a run with --no-answers takes little time. Without --page the tables go to standard output. Intervals are of 95 %, documents drawn again (tools/train/score.py).
"""
import argparse
import collections
import json
import math
import os
import re
import statistics
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(HERE), "train"))
import score  # noqa: E402
from card import per_cent, table  # noqa: E402

BEGIN, END = "<!-- report.py -->", "<!-- report.py: end -->"
OURS, WHOLE, MAIN, LEAST = "relevance", "whole", 0.3, 0.1
REFUSED = 0.95  # of flat tasks
with open(os.path.join(os.path.dirname(os.path.dirname(HERE)), "src", "policy", "relevance.h"), encoding="utf-8") as header:
    PEAK = float(re.search(r"#define RELEVANCE_PEAK ([\d.]+)f", header.read())[1])
TITLES = {
    "needles-3k": "a fact at nine depths, 3k", "needles-8k": "a fact at nine depths, 8k",
    "several-3k": "facts to combine, 3k", "alike-3k": "facts among alike ones, 3k", "facts-3k": "generated facts, 3k",
    "squad-3k": "SQuAD articles, 3k", "squad-8k": "SQuAD articles, 8k", "nq-3k": "Natural Questions articles, 3k",
    "tales": "FairytaleQA, whole stories", "flat": "summaries, counts, lists of all", "flat-other": "others, in other words",
}
FLAT = ("flat", "flat-other")  # no answers are asked for; the first one chose the program's threshold
PEOPLE = ("squad-3k", "squad-8k", "nq-3k", "tales")  # questions of people, by F1; the others by exact match
METHODS = {
    "relevance": "attention times words (ours)", "words": "BM25 of the question", "window": "attention of the last 64 tokens",
    "attention": "the same and 8 answer tokens", "later": "ours with 8 answer tokens", "spread": "attention spread, no words",
    "sum": "sum of ranks, attention and BM25", "max": "larger rank, attention and BM25",
    "specpc": "best tokens, each with 64 around", "random": "random blocks", "ends": "first and last",
}
KINDS = {"all": "lists of all", "count": "counts", "summary": "summaries"}
COLORS = {"relevance": "#1f6fb4", "words": "#d2691e", "window": "#3a8f4d", "specpc": "#8a5fb0", "random": "#888888",
          "ends": "#b8b8b8"}


def read(paths):
    """(about, questions), each question once."""
    about, seen = {}, {}
    for path in paths:
        with open(path, encoding="utf-8") as f:
            for line in f:
                r = json.loads(line)
                if "about" in r:
                    if about.get("weights", r["about"]["weights"]) != r["about"]["weights"]:
                        sys.exit(f"{path}: results of another model than those of {paths[0]}")
                    about = r["about"]
                else:
                    seen[r["set"], r["document"], r["question"]] = r
    return about, list(seen.values())


def key_of(run):
    return run["method"], round(run["ratio"], 3)


class Results:
    def __init__(self, questions):
        self.sets = collections.defaultdict(list)
        for r in questions:
            r["by"] = {key_of(run): run for run in r["runs"]}
            self.sets[r["set"]].append(r)
        self.names = [s for s in TITLES if s in self.sets] + sorted(set(self.sets) - set(TITLES))
        self.asked = [s for s in self.names if s not in FLAT]

    def ratios(self, method):
        found = {k[1] for s in self.asked for r in self.sets[s] for k in r["by"] if k[0] == method}
        return sorted(found, reverse=True)

    def methods(self):
        return [m for m in METHODS if any((m, MAIN) in r["by"] for s in self.asked for r in self.sets[s])]

    def of(self, name):
        return self.sets[name] if name in self.sets else []


def answer_of(r, key):
    return r.get(WHOLE) if key == WHOLE else r["by"].get(key)


def value(r, key, measure):
    """Score of an answer; None where none was asked for."""
    found = answer_of(r, key)
    return measure(found["answer"], r["accepted"]) if found and "answer" in found else None


def measure_of(name):
    return score.f1 if name in PEOPLE else score.exact


def grouped(questions, value_of):
    groups = collections.defaultdict(list)
    for r in questions:
        v = value_of(r)
        if v is not None:
            groups[r["set"], r["document"]].append(float(v))
    return list(groups.values())


def figure(questions, value_of):
    groups = grouped(questions, value_of)
    return per_cent(score.mean_interval(groups)) if groups else "-"


def difference(questions, key, measure, other=WHOLE):
    """In points, with its interval: the same questions are asked of both."""
    def gain(r):
        a, b = value(r, key, measure), value(r, other, measure)
        return None if a is None or b is None else a - b
    groups = grouped(questions, gain)
    if not groups:
        return "-"
    mean, low, high = score.mean_interval(groups)
    if all(v == groups[0][0] for g in groups for v in g):
        return f"{100 * mean:+.1f}"
    return f"{100 * mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def known(questions):
    return [r for r in questions if r["kind"] == "known"]


def name_of_ratio(ratio):
    return f"{100 * ratio:.0f} %" if ratio else "by coverage"


# --- tables


def by_ratio(results):
    ratios = results.ratios(OURS)
    for title, measures in (("F1, %", lambda name: score.f1), ("Exact match, %", lambda name: score.exact)):
        rows = []
        for name in results.asked:
            asked = known(results.sets[name])
            m = measures(name)
            rows.append([TITLES.get(name, name), len(asked), figure(asked, lambda r: value(r, WHOLE, m)),
                         *(figure(asked, lambda r: value(r, (OURS, q), m)) for q in ratios)])
        yield from [f"{title}, of what relevance keeps of a prompt:", "",
                    *table(["questions", "n", "whole", *map(name_of_ratio, ratios)], rows)]
    rows = [[title, *(difference(asked, (OURS, q), m) for q in ratios)] for title, asked, m in groups(results)]
    yield from ["Against the whole prompt, in points (F1 for questions of people, exact match for generated ones):", "",
                *table(["questions", *map(name_of_ratio, ratios)], rows)]


def groups(results):
    """(title, questions, measure): each set, then all generated ones, then all of people."""
    for name in results.asked:
        yield TITLES.get(name, name), known(results.sets[name]), measure_of(name)
    for title, names in (("all generated", [n for n in results.asked if n not in PEOPLE]),
                         ("all of people", [n for n in results.asked if n in PEOPLE])):
        asked = [r for n in names for r in known(results.sets[n])]
        if asked:
            yield title, asked, measure_of(names[0])


def against_methods(results):
    """Ours against each other method, by the same questions."""
    others = [m for m in results.methods() if m != OURS]
    for ratio in (MAIN, LEAST):
        rows = [[METHODS[other], *(difference(asked, (OURS, ratio), m, (other, ratio)) for _, asked, m in groups(results))]
                for other in others]
        if rows:
            yield from [f"Ours against each other method, {name_of_ratio(ratio)} kept, in points:", "",
                        *table(["against", *(title for title, _, _ in groups(results))], rows)]


def coverages(results):
    rows = []
    for name in results.asked:
        kept = sorted(r["by"][OURS, 0.0]["kept"] / r["tokens"] for r in results.sets[name] if (OURS, 0.0) in r["by"])
        if kept:
            rows.append([TITLES.get(name, name), f"{100 * statistics.mean(kept):.0f}",
                         f"{100 * kept[len(kept) // 10]:.0f} to {100 * kept[len(kept) * 9 // 10]:.0f}"])
    if rows:
        yield from ["What is kept by coverage, % of the prompt:", "", *table(["questions", "mean", "10th to 90th of 100"], rows)]


def by_method(results):
    for ratio in (MAIN, LEAST):
        rows = []
        for method in results.methods():
            rows.append([METHODS[method], *(figure(known(results.sets[n]), lambda r: value(r, (method, ratio), measure_of(n)))
                                            for n in results.asked)])
        rows.append(["the whole prompt", *(figure(known(results.sets[n]), lambda r: value(r, WHOLE, measure_of(n)))
                                           for n in results.asked)])
        yield from [f"{name_of_ratio(ratio)} kept by each method (F1 for questions of people, exact match for generated ones), %:",
                    "", *table(["kept by", *(TITLES.get(n, n) for n in results.asked)], rows)]


def by_presence(results):
    for ratio in (MAIN, LEAST):
        rows = []
        for method in results.methods():
            rows.append([METHODS[method], *(figure(known(results.sets[n]), lambda r: r["by"][method, ratio]["has"]
                                                   if (method, ratio) in r["by"] else None) for n in results.asked)])
        yield from [f"An accepted answer stands in the {name_of_ratio(ratio)} that are kept, % of all questions:", "",
                    *table(["kept by", *(TITLES.get(n, n) for n in results.asked)], rows)]


def depths(results):
    for name in [n for n in results.asked if n.startswith("needles")]:
        labels = sorted({r["label"] for r in results.sets[name]}, key=float)
        rows = []
        for key, title in [(WHOLE, "whole")] + [((m, MAIN), METHODS[m]) for m in results.methods()]:
            cells = []
            for label in labels:
                found = [value(r, key, score.exact) for r in results.sets[name] if r["label"] == label]
                found = [v for v in found if v is not None]
                cells.append(f"{100 * statistics.mean(found):.0f}" if found else "-")
            rows.append([title, *cells])
        n = len(results.sets[name]) // max(1, len(labels))
        yield from [f"{TITLES.get(name, name)}: found, % of {n} at each depth, {name_of_ratio(MAIN)} kept:", "",
                    *table(["kept by", *(f"{100 * float(label):g} %" for label in labels)], rows)]


def unanswerable(results):
    rows = []
    for name in results.asked:
        asked = [r for r in results.sets[name] if r["kind"] == "unknown"]
        if asked:
            rows.append([TITLES.get(name, name), len(asked), figure(asked, lambda r: value(r, WHOLE, score.exact)),
                         *(figure(asked, lambda r: value(r, (OURS, q), score.exact)) for q in results.ratios(OURS))])
    if rows:
        yield from ["Questions that the text does not answer: told so, %:", "",
                    *table(["questions", "n", "whole", *map(name_of_ratio, results.ratios(OURS))], rows)]


def peak_of(r, method):
    return next((run["peak"] for run in r["runs"] if run["method"] == method), None)


def refused(r, method, limit):
    """None where the method was not asked."""
    peak = peak_of(r, method)
    return None if peak is None else peak < limit


def threshold(results, method):
    """The peak below which REFUSED of the flat tasks lie."""
    peaks = sorted(p for p in (peak_of(r, method) for r in results.of("flat")) if p is not None)
    return peaks[min(len(peaks) - 1, math.ceil(REFUSED * len(peaks)))] if peaks else None


def flat(results):
    methods = [m for m in ("relevance", "later", "words", "window", "spread") if threshold(results, m) is not None]
    if not methods:
        return
    rows = []
    for method in methods:
        limit = threshold(results, method)
        rows.append([METHODS[method], f"{limit:.2f}", figure(results.of("flat"), lambda r: refused(r, method, limit)),
                     *(figure(known(results.sets[n]), lambda r: refused(r, method, limit)) for n in results.asked)])
    yield from ["Refused as flat, %, where the peak of the scores is below the threshold that refuses 95 % of flat tasks "
                f"(n = {len(results.of('flat'))}); of questions that is a false refusal:", "",
                *table(["peak of", "threshold", TITLES["flat"], *(TITLES.get(n, n) for n in results.asked)], rows)]
    rows = []
    for name in [*(n for n in FLAT if n in results.sets), *results.asked]:
        asked = results.sets[name] if name in FLAT else known(results.sets[name])
        rows.append([TITLES.get(name, name), len(asked), figure(asked, lambda r: refused(r, OURS, PEAK))])
        for kind in sorted({r["label"] for r in asked}) if name in FLAT else []:
            part = [r for r in asked if r["label"] == kind]
            rows.append([f"- {KINDS.get(kind, kind)}", len(part), figure(part, lambda r: refused(r, OURS, PEAK))])
    everything = [r for name in results.asked for r in known(results.sets[name])]
    rows.append(["all questions", len(everything), figure(everything, lambda r: refused(r, OURS, PEAK))])
    yield from [f"Refused as flat by the program, whose threshold is {PEAK}, %. Tasks \"in other words\" had no part in choosing it:", "",
                *table(["tasks and questions", "n", "refused, %"], rows)]


def times(results):
    rows = []
    for name in results.asked:
        whole = [r[WHOLE]["ms"] / r["tokens"] for r in results.sets[name] if r.get(WHOLE, {}).get("ms")]
        part = [(r["by"][OURS, MAIN]["ms"], r["tokens"]) for r in results.sets[name] if r["by"].get((OURS, MAIN), {}).get("ms")]
        if whole and part:
            share = statistics.median(ms / n for ms, n in part) / statistics.median(whole)
            rows.append([TITLES.get(name, name), f"{statistics.median(r['tokens'] for r in results.sets[name]):.0f}", f"{100 * share:.0f}"])
    if rows:
        yield from [f"Time of the reader's prefill of {name_of_ratio(MAIN)}, % of that of the whole prompt (medians, on one thread "
                    "of a machine with other work):", "", *table(["questions", "tokens of a prompt", "time, %"], rows)]


# --- the picture


def curve(results, names, method):
    points = [(1.0, WHOLE)] + [(q, (method, q)) for q in results.ratios(method) if q > 0]
    out = []
    for ratio, key in points:
        means = []
        for n in names:
            found = [value(r, key, measure_of(n)) for r in known(results.sets[n])]
            found = [v for v in found if v is not None]
            if found:
                means.append(statistics.mean(found))
        if len(means) == len(names):
            out.append((ratio, statistics.mean(means)))
    return out


def panel(results, names, title, left):
    top, width, height = 60, 300, 220
    curves = {m: curve(results, names, m) for m in COLORS if m in results.methods()}
    most = max((y for c in curves.values() for _, y in c), default=1.0) * 1.08
    ratios = [0.1, 0.2, 0.3, 0.5, 1.0]

    def x(ratio):
        return left + width * ratios.index(min(ratios, key=lambda q: abs(q - ratio))) / (len(ratios) - 1)

    def y(share):
        return top + height * (1 - share / most)

    out = [f'<text x="{left}" y="{top - 12}" font-size="14">{title}</text>']
    step = 0.2 if most > 0.6 else 0.1
    for k in range(int(most / step) + 1):
        out.append(f'<line x1="{left}" x2="{left + width}" y1="{y(k * step):.1f}" y2="{y(k * step):.1f}" stroke="#dddddd"/>'
                   f'<text x="{left - 6}" y="{y(k * step) + 4:.1f}" text-anchor="end" fill="#555555">{100 * k * step:.0f}</text>')
    for q in ratios:
        out.append(f'<text x="{x(q):.1f}" y="{top + height + 18}" text-anchor="middle" fill="#555555">{100 * q:.0f} %</text>')
    for method, points in curves.items():
        line = " ".join(f"{x(q):.1f},{y(v):.1f}" for q, v in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{COLORS[method]}" stroke-width="{3 if method == OURS else 1.5}"/>')
        out += [f'<circle cx="{x(q):.1f}" cy="{y(v):.1f}" r="3" fill="{COLORS[method]}"/>' for q, v in points]
    return out


def picture(results, about):
    generated, people = [n for n in results.asked if n not in PEOPLE], [n for n in results.asked if n in PEOPLE]
    panels = [(names, title) for names, title in ((generated, "generated facts: exact match, %"),
                                                  (people, "questions of people: F1, %")) if names]
    width = 60 + 370 * len(panels)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="360" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="360" fill="#ffffff"/>',
           f'<text x="16" y="24" font-size="15">{about.get("model", "")}: answers by the part of the prompt that is kept</text>']
    for i, (names, title) in enumerate(panels):
        out += panel(results, names, title, 60 + 370 * i)
    for i, method in enumerate(m for m in COLORS if m in results.methods()):
        left, top = 60 + 250 * (i % 3), 322 + 18 * (i // 3)
        out.append(f'<rect x="{left}" y="{top - 9}" width="14" height="4" fill="{COLORS[method]}"/>'
                   f'<text x="{left + 20}" y="{top}">{METHODS[method]}</text>')
    return "\n".join(out) + "\n</svg>\n"


# --- the page


def lines(results, about, peaks, about_peaks):
    n = sum(len(v) for v in results.sets.values())
    yield from [f"`{about.get('model', '?')}`, weights `{about.get('weights', '?')[:16]}`, numerics `{about.get('numerics', '?')}`, "
                f"commit `{about.get('commit', '?')}`; {n} questions. In brackets the 95 % interval, documents drawn again.", ""]
    for part in (by_ratio, coverages, by_method, against_methods, by_presence, depths, unanswerable, times):
        yield from part(results)
    if peaks is not results:
        yield from [f"At commit `{about_peaks.get('commit', '?')}`:", ""]
    yield from flat(peaks)


def write_page(path, text, drawn):
    with open(path, encoding="utf-8") as f:
        page = f.read()
    if BEGIN not in page or END not in page:
        sys.exit(f"{path} lacks the lines {BEGIN} and {END}")
    before, after = page.split(BEGIN, 1)[0], page.split(END, 1)[1]
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"{before}{BEGIN}\n{text}{END}{after}")
    with open(os.path.join(os.path.dirname(path) or ".", "refine.svg"), "w", encoding="utf-8") as f:
        f.write(drawn)


def main():
    p = argparse.ArgumentParser(description="Tables and picture of pdd bench refine.")
    p.add_argument("results", nargs="+")
    p.add_argument("--flat", help="results that tell what is refused")
    p.add_argument("--page", help="write the tables between the marks of this page, and refine.svg beside it")
    options = p.parse_args()
    about, questions = read(options.results)
    if not questions:
        sys.exit("no results")
    results = Results(questions)
    peaks, about_peaks = results, about
    if options.flat:
        about_peaks, asked = read([options.flat])
        peaks = Results(asked)
    text = "\n".join(lines(results, about, peaks, about_peaks)).rstrip() + "\n"
    if options.page:
        write_page(options.page, text, picture(results, about))
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
