"""Scores of answers: exact match and F1 as SQuAD's own script has them, sentences found again, and intervals."""
import collections
import difflib
import random
import re
import string

NO_MARKS = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
ALIKE = 0.9  # difflib's ratio from which two sentences are the same one
RESAMPLES, Z = 1000, 1.96


def normal(text):
    """Lower case, no punctuation, no articles, single blanks: SQuAD's normalisation."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(NO_MARKS)).split())


def exact(answer, accepted):
    return float(any(normal(answer) == normal(a) for a in accepted))


def f1_of_one(answer, accepted):
    got, want = normal(answer).split(), normal(accepted).split()
    if not got or not want:
        return float(got == want)
    common = sum((collections.Counter(got) & collections.Counter(want)).values())
    return 2 * common / (len(got) + len(want))


def f1(answer, accepted):
    return max(f1_of_one(answer, a) for a in accepted)


def sentences(text):
    return [s.strip() for s in SENTENCE_END.split(text) if s.strip()]


def same(a, b):
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio() >= ALIKE


def sentence_scores(answer, wanted):
    """(recall, precision): how many of the wanted sentences the answer has, and how many of its sentences are wanted.

    A wanted sentence is found where its normal words stand in the answer, or where a sentence of the answer is
    nearly the same; a sentence of the answer is right where it stands in a wanted one, or is nearly one.
    """
    whole, want = normal(answer), [normal(w) for w in wanted]
    said = [s for s in map(normal, sentences(answer)) if s]
    found = sum(w in whole or any(same(s, w) for s in said) for w in want)
    right = sum(any(s in w or same(s, w) for w in want) for s in said)
    return found / len(want), right / len(said) if said else 0.0


def wilson(share, n):
    """The 95 % interval of a share of n."""
    middle, wide = share + Z * Z / (2 * n), Z * (share * (1 - share) / n + Z * Z / (4 * n * n)) ** 0.5
    return max(0.0, (middle - wide) / (1 + Z * Z / n)), min(1.0, (middle + wide) / (1 + Z * Z / n))


def mean_interval(groups):
    """(mean, low, high) of values in groups, 95 %.

    Whole groups (documents) are drawn again with a fixed seed, since questions of one document are not independent.
    Where all values are alike, or there is one group, drawing says nothing: then Wilson's interval of a share.
    """
    groups = [g for g in groups if g]
    values = [v for g in groups for v in g]
    mean = sum(values) / len(values)
    if len(groups) < 2 or min(values) == max(values):
        return (mean, *wilson(mean, len(values)))
    rng, sums = random.Random(1), [(sum(g), len(g)) for g in groups]
    means = []
    for _ in range(RESAMPLES):
        drawn = rng.choices(sums, k=len(sums))
        means.append(sum(s for s, _ in drawn) / sum(n for _, n in drawn))
    means.sort()
    return mean, means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]


def ratio_interval(pairs):
    """(ratio, low, high) of sum(a) / sum(b) over (a, b), 95 %, by drawing pairs again."""
    rng, ratios = random.Random(1), []
    for _ in range(RESAMPLES):
        drawn = rng.choices(pairs, k=len(pairs))
        ratios.append(sum(a for a, _ in drawn) / sum(b for _, b in drawn))
    ratios.sort()
    ratio = sum(a for a, _ in pairs) / sum(b for _, b in pairs)
    return ratio, ratios[int(0.025 * RESAMPLES)], ratios[int(0.975 * RESAMPLES) - 1]
