"""What evaluate.py measured, as the model card's tables and as a picture of the needle grid."""
import os

from heldout import DEPTHS, LENGTHS

CELL, LEFT, TOP = 64, 96, 56


def per_cent(figure):
    """"62 (58 to 66)" of a share with its interval."""
    value, low, high = (100 * x for x in figure)
    return f"{value:.0f} ({low:.0f} to {high:.0f})"


def row(cells):
    return "| " + " | ".join(str(c) for c in cells) + " |"


def table(head, rows):
    return [row(head), "|" + "---|" * len(head), *map(row, rows), ""]


def head_lines(report):
    about = report["about"]
    return [f"`{about['file']}`, SHA-256 `{about['sha256']}`, weights `{about['weights'][:16]}`, numerics "
            f"`{about['numerics']}`, commit `{about['commit']}`, {about['date']}, {about['minutes']:.0f} minutes; "
            f"`tools/train/evaluate.py {about['command']}`. Greedy answers of `pdd cloud` through the OpenAI API. "
            "In brackets the 95 % interval, documents drawn again.", ""]


def reading(report):
    rows = [(s["title"], s["known"]["n"], per_cent(s["known"]["exact"]), per_cent(s["known"]["f1"]),
             per_cent(s["known"]["refused"]), per_cent(s["ended"]))
            for s in report["sets"] if "known" in s and s["group"] != "needles"]
    return table(["questions", "n", "exact match, %", "F1, %", "wrongly \"does not say\", %", "ended by itself, %"],
                 rows) if rows else []


def labelled(report):
    rows = [(f"{s['title']}: {label}", found["n"], per_cent(found["exact"]), per_cent(found["f1"]))
            for s in report["sets"] if s["group"] == "combined" for label, found in s["labels"].items()]
    return table(["facts to combine", "n", "exact match, %", "F1, %"], rows) if rows else []


def unknown(report):
    rows = [(s["title"], s["unknown"]["n"], per_cent(s["unknown"]["told"])) for s in report["sets"] if "unknown" in s]
    return table(["questions that the text does not answer", "n", "told so, %"], rows) if rows else []


def collected(report):
    rows = [(s["title"], s["collected"]["n"], per_cent(s["collected"]["recall"]), per_cent(s["collected"]["precision"]),
             per_cent(s["ended"])) for s in report["sets"] if "collected" in s]
    return table(["what a text says about something", "n", "sentences found, %", "sentences right, %",
                  "ended by itself, %"], rows) if rows else []


def perplexities(report):
    rows = [(p["source"], p["tokens"], f"{p['perplexity']:.2f}",
             "{:.3f} ({:.3f} to {:.3f})".format(*p["bits_per_byte"])) for p in report["perplexity"]]
    return table(["held-out text", "tokens", "perplexity of a token", "bits per byte"], rows) if rows else []


def skipped(report):
    return [f"Skipped: {name}: {why}." for name, why in report["skipped"]] + [""] if report["skipped"] else []


def grid(report):
    """{(length, depth): (share, n)} of the needle sets."""
    return {(s["length"], label): (found["exact"][0], found["n"])
            for s in report["sets"] if s["group"] == "needles" for label, found in s["labels"].items()}


def needles(report, picture):
    cells = grid(report)
    if not cells:
        return []
    lengths = [n for n in LENGTHS if any(length == n for length, _ in cells)]
    rows = [[f"{100 * d:g} %", *(f"{100 * cells[n, f'{d:g}'][0]:.0f}" if (n, f"{d:g}") in cells else "-"
                                 for n in lengths)] for d in DEPTHS]
    sets = {s["length"]: s for s in report["sets"] if s["group"] == "needles"}
    rows.append(["all", *(per_cent(sets[n]["known"]["exact"]) for n in lengths)])
    most = max(n for _, n in cells.values())
    return [f"A fact at a depth of a document, nine in each, found with an exact answer, % of {most}"
            f" ([picture]({picture})):", "", *table(["depth", *lengths], rows)]


def color(share):
    """From red over yellow to green."""
    low, middle, high = (190, 60, 50), (240, 200, 80), (50, 140, 80)
    a, b, t = (low, middle, 2 * share) if share < 0.5 else (middle, high, 2 * share - 1)
    return "#" + "".join(f"{round(x + (y - x) * t):02x}" for x, y in zip(a, b))


def picture_of(report):
    """The needle grid as SVG; None where no needle was asked for."""
    cells = grid(report)
    if not cells:
        return None
    lengths = [n for n in LENGTHS if any(length == n for length, _ in cells)]
    width, height = LEFT + CELL * len(DEPTHS) + 16, TOP + CELL // 2 * len(lengths) + 48
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
           f'font-size="13">', f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
           f'<text x="16" y="24" font-size="15">{report["about"]["file"]}: a fact found, by length and depth, %</text>',
           f'<text x="{LEFT}" y="{TOP - 8}" fill="#555555">numerics {report["about"]["numerics"]}, '
           f'commit {report["about"]["commit"]}</text>']
    for y, length in enumerate(lengths):
        top = TOP + CELL // 2 * y
        out.append(f'<text x="{LEFT - 8}" y="{top + 21}" text-anchor="end">{length} tokens</text>')
        for x, depth in enumerate(DEPTHS):
            if (length, f"{depth:g}") not in cells:
                continue
            share = cells[length, f"{depth:g}"][0]
            out.append(f'<rect x="{LEFT + CELL * x}" y="{top}" width="{CELL - 2}" height="{CELL // 2 - 2}" '
                       f'fill="{color(share)}"/><text x="{LEFT + CELL * x + CELL // 2}" y="{top + 21}" '
                       f'text-anchor="middle">{100 * share:.0f}</text>')
    bottom = TOP + CELL // 2 * len(lengths) + 20
    out += [f'<text x="{LEFT + CELL * x + CELL // 2}" y="{bottom}" text-anchor="middle">{100 * d:g} %</text>'
            for x, d in enumerate(DEPTHS)]
    out.append(f'<text x="{LEFT}" y="{bottom + 20}" fill="#555555">depth of the fact in the document</text></svg>')
    return "\n".join(out) + "\n"


def markdown(report, picture):
    return "\n".join(head_lines(report) + reading(report) + labelled(report) + unknown(report) + collected(report)
                     + needles(report, picture) + perplexities(report) + skipped(report)).rstrip() + "\n"


def write(report, path):
    """Put the tables between the markers of this model in the card at `path`, or at its end; the picture beside it."""
    stem = os.path.splitext(report["about"]["file"])[0]
    begin, end = f"<!-- evaluate.py: {stem} -->", f"<!-- evaluate.py: end of {stem} -->"
    picture = f"{stem}-needles.svg"
    drawn = picture_of(report)
    if drawn:
        with open(os.path.join(os.path.dirname(path) or ".", picture), "w", encoding="utf-8") as f:
            f.write(drawn)
    text = ""
    if os.path.exists(path):
        with open(path, encoding="utf-8") as f:
            text = f.read()
    if begin not in text or end not in text:
        text = text.rstrip() + f"\n\n{begin}\n{end}\n"
    before, after = text.split(begin, 1)[0], text.split(end, 1)[1]
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"{before.lstrip()}{begin}\n{markdown(report, picture)}{end}{after}")
