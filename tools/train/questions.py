"""Questions made from sentences of real text: the answer is cut out and asked for.

From `The bridge was built in 1862 by John Reed.` come `When was the bridge built by John Reed?`, `The bridge was built
in what year?`, `Who built ...`-like forms and gaps (`The bridge was built in ____ by John Reed.`). They are rough, but
there are millions of them, on every subject, and they teach to look for the place that a question speaks of.
"""
import re

YEAR = re.compile(r"\b[Ii]n ((?:1[0-9]{3}|20[0-2][0-9]))\b")
DATE = re.compile(r"\b[Oo]n ((?:\d{1,2} )?(?:January|February|March|April|May|June|July|August|September|October|November"
                  r"|December)(?: \d{1,2})?(?:,? \d{4})?)\b")
NUMBER = re.compile(r"\b(\d[\d,.]*\d|\d|two|three|four|five|six|seven|eight|nine|ten|twelve|twenty|fifty)"
                    r"( (?:[a-z]+ )?[a-z]+s)\b")
NAME = r"(?:[A-Z][\w'-]+)(?: (?:of |de |van |von |the |and )?[A-Z][\w'-]+){0,3}"
SUBJECT = re.compile(rf"^((?:The |A )?{NAME}) ((?:was|is|were|are|had|has|can|became|made|wrote|won|led|founded|built|began|"
                     r"died|lived|married|used|gave|took|moved|returned|served|played|said|called|held|left|sold|found|"
                     r"discovered|invented|ruled|defeated|received|wanted|[a-z]+ed)\b.*)$")
PLACE = re.compile(rf"\b(?:in|at|from|near) ((?:the )?{NAME})\b")
BY = re.compile(rf"\bby ((?:the )?{NAME})\b")
OTHER = re.compile(rf"\b(?:of|to|with|for|called|named) ((?:the )?{NAME})\b")
AUX = re.compile(r"^(.{3,60}?) (was|is|were|are|had|has|can|could|will|did) (.*)$")
QUOTED = re.compile(r"\"([^\"]{3,40})\"")
PERSONAL = re.compile(r"^(?:died|lived|married|wrote|led|said|won|served|played|invented|discovered|founded|was born|"
                      r"defeated|ruled|became (?:king|queen|president|a member))")
ASKS = re.compile(r"\b(?:what|which|who|whom|when|where|how many)\b|____", re.IGNORECASE)
CONNECTIVE = re.compile(r"^(?:However|Thus|Therefore|Moreover|Furthermore|In addition|For example|Also|But|And|Then),? ")
PRONOUN = re.compile(r"^(?:He|She|It|They|This|These|That|Those|His|Her|Its|Their|There|We|I|You)\b")


def tidy(text):
    return re.sub(r"\s+", " ", text).strip(" ,;:.")


def lower_first(text):
    """The start of a sentence inside another one; names keep their capital."""
    first = text.split(" ", 1)[0]
    return text[:1].lower() + text[1:] if first in ("The", "A", "An", "In", "On", "At", "During", "After") else text


def gap(body, start, end, phrase):
    return tidy(body[:start]) + " " + phrase + " " + tidy(body[end:])


def fronted(body, match, words):
    """`When was X built by Y`: the auxiliary goes to the front and the phrase out of the sentence."""
    rest = tidy(body[: match.start()] + body[match.end():])
    aux = AUX.match(rest)
    if not aux or len(aux.group(1).split()) > 9 or "," in aux.group(1):
        return None
    return f"{words} {aux.group(2)} {lower_first(aux.group(1))} {aux.group(3)}"


def forms(rng, body):
    """(question, answer) of a sentence, in a random order."""
    out = []
    for pattern, front, inside in ((YEAR, ["When", "In what year", "In which year"], "in what year"),
                                   (DATE, ["When", "On what date"], "on what day"),
                                   (PLACE, ["Where", "In what place"], "where"), (BY, ["By whom"], "by whom")):
        found = list(pattern.finditer(body))
        if found:
            m = rng.choice(found)
            question = fronted(body, m, rng.choice(front))
            if question is None or rng.random() < 0.2:
                question = gap(body, m.start(), m.end(), inside)
            out.append((question, m.group(1)))
    found = list(NUMBER.finditer(body))
    if found:
        m = rng.choice(found)
        rest = tidy(body[: m.start()] + body[m.end():])
        out.append((rng.choice([f"How many{m.group(2)} {lower_first(rest)}",
                                gap(body, m.start(1), m.end(1), "how many")]), m.group(1)))
    m = SUBJECT.match(body)
    if m and not PRONOUN.match(body):
        words = "Who" if PERSONAL.match(m.group(2)) else rng.choice(["What", "Who", "Which one"])
        out.append((f"{words} {m.group(2)}", m.group(1)))
    found = list(OTHER.finditer(body)) + list(QUOTED.finditer(body))
    if found:
        m = rng.choice(found)
        out.append((gap(body, m.start(1), m.end(1), rng.choice(["what", "which", "whom", "____", "what name"])), m.group(1)))
    rng.shuffle(out)
    return out


def worn(rng, question):
    """A question as people ask it: shorter, without the last clause, with words left out."""
    if rng.random() < 0.4 and "," in question:
        question = question.rsplit(",", 1)[0]
    words = question.split()
    if len(words) > 14:
        keep = rng.randrange(8, 15)
        words = words[:keep] if rng.random() < 0.7 else words[:3] + words[-keep + 3:]
    if rng.random() < 0.35:
        words = words[:2] + [w for w in words[2:] if rng.random() > 0.15]
    return " ".join(words).strip(" ,;:.")


def about_sentence(rng, sentence):
    """(question, answer) about one sentence, or None where no pattern fits well."""
    body = CONNECTIVE.sub("", sentence.strip())
    if not 40 < len(body) < 330 or body[-1] not in ".!?" or body.count('"') % 2:
        return None
    for question, answer in forms(rng, body[:1].upper() + body[1:]):
        if answer.lower() not in question.lower() and 1 <= len(answer) < 50:
            question = worn(rng, question)
            if len(question.split()) >= 4 and ASKS.search(question):
                return question[:1].upper() + question[1:] + "?", answer
    return None


def as_typed(rng, question):
    """Some people write without capitals and marks."""
    roll = rng.random()
    if roll < 0.1:
        return question.lower().rstrip("?")
    return question.rstrip("?") if roll < 0.14 else question
