"""Generated facts: a sentence with a key and a value, the questions it answers, and what can be combined.

Every random choice comes from the caller's random.Random, so a seed names a data set. Values (codes, invented names,
towns) are drawn anew for each document: an answer can only be found by reading it. A *kind* is a row of a table.
"""
from dataclasses import dataclass

FIRST = (
    "Anna Ben Clara David Emma Finn Grace Henry Ida Jack Kate Leo Mary Noah Olive Paul Rose Sam Tom Una Victor Will Alice "
    "Bella Charles Daisy Edward Flora George Hannah Isaac Jane Karl Lucy Max Nora Oscar Peter Ruth Simon Thea Walter Agnes "
    "Arthur Betty Cecil Dora Ellen Frank Gerda Hugo Ivy James Laura Martin Nell Otto Polly Robert Sarah Susan Tilly Hans "
    "Greta Kay Lena Mark Milly Marta Lars Ingrid Olaf Amir Fatima Yusuf Priya Ravi Mei Chen Kenji Yuki Maria Juan Carlos "
    "Sofia Pedro Lucia Marco Elena Ivan Olga Boris Anya Pierre Claire Louis Amara Kofi Zola Thabo Nadia Omar Leila Samuel"
).split()
LAST = (
    "Smith Brown Miller Carter Hill Wood Baker Stone Reed Ward Cole Fox Lane Marsh Field Burns Holt Lind Berg Dahl Holm "
    "Larsen Novak Weber Keller Rossi Costa Silva Moreno Vega Okafor Mensah Haddad Khan Patel Singh Tanaka Mori Wong Park "
    "Petrov Volkov Dubois Laurent Murphy Kelly Byrne Frost Hale Thorne Quinn Abbott Finch Crane Pike"
).split()
COLOURS = "red blue green yellow white black brown golden silver grey purple pink orange".split()
OBJECTS = (
    "kite book lamp ring drum boat hat bell key cup coat basket mirror clock ball knife box flute ladder spoon blanket "
    "crown map brush bag chair wheel whistle candle rope shoe doll button bottle pen necklace lantern violin umbrella "
    "compass telescope letter diary camera ticket radio bicycle vase statue painting notebook"
).split()
ROOMS = (
    "kitchen garden cellar barn attic tower stable library church mill cave market school orchard harbour castle cottage "
    "bakery museum office workshop hospital station theatre warehouse lighthouse"
).split()
SPOTS = (
    "under the bed|behind the door|in the old chest|on the table|beside the well|under the bridge|inside the oven|"
    "behind the barn|on the roof|in the hollow tree|near the gate|under the stairs|in the cupboard|on the window sill|"
    "behind the curtain|in the boat|in the top drawer|on the highest shelf|below the floor|next to the fountain"
).split("|")
JOBS = (
    "baker farmer doctor teacher sailor miller tailor hunter painter soldier blacksmith fisherman gardener carpenter "
    "shoemaker cook singer shepherd weaver potter judge clerk driver nurse pilot engineer dentist lawyer plumber librarian "
    "architect journalist chemist photographer"
).split()
ANIMALS = (
    "dogs cats horses sheep goats hens geese ducks cows pigs rabbits pigeons donkeys bees mice frogs swans lambs camels "
    "parrots"
).split()
FOODS = (
    "apples bread cheese soup cake honey plums porridge pears cherries pancakes nuts butter fish carrots berries rice "
    "noodles chocolate olives dumplings oranges mushrooms"
).split()
NUMBERS = "two three four five six seven eight nine ten eleven twelve fifteen twenty thirty forty fifty".split()
LOCKS = "door gate safe chest cabin vault tower locker cellar box garage archive laboratory warehouse".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
WORDS = (
    "apple river cloud stone tiger garden silver window forest candle bridge winter meadow rocket pepper violin marble "
    "falcon harbor lemon copper thunder velvet island pencil saddle walnut comet anchor basket feather lantern canyon "
    "dolphin ember glacier hazel ivory jungle kettle ladder magnet nectar orchid pebble quartz ribbon sparrow timber "
    "umbrella valley willow zebra"
).split()
THINGS = "project ship mission team company book film song bridge mine school festival expedition".split()
ONSETS = "b br c cl d dr f fl g gr h j k l m n p pl qu r s st t tr v w z".split()
VOWELS = "a e i o u ai ee oo".split()
ENDS = "l n r s m t nd rk x".split() + ["", "", ""]
UNKNOWN = "The text does not say."


def invented(rng, parts=2):
    """A pronounceable word that no text holds: copying it cannot be remembered, only read."""
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(parts)) + rng.choice(ENDS)


def person(rng):
    roll = rng.random()
    if roll < 0.35:
        return rng.choice(FIRST)
    if roll < 0.7:
        return f"{rng.choice(FIRST)} {rng.choice(LAST)}"
    if roll < 0.8:
        return f"{rng.choice(['Mr', 'Mrs', 'Dr', 'Captain', 'Professor', 'Old', 'Aunt', 'Uncle'])} {rng.choice(LAST)}"
    return invented(rng).capitalize()


def town(rng):
    return invented(rng, rng.choice([2, 2, 3])).capitalize() + rng.choice(["", "", "", "ville", "ton", " Bay", " Hill"])


def digits(rng):
    return "".join(rng.choice("0123456789") for _ in range(rng.choice([3, 4, 4, 5, 5, 6, 7])))


def lock(rng):
    return (rng.choice(COLOURS) + " " if rng.random() < 0.5 else "") + rng.choice(LOCKS)


def thing(rng):
    return f"{rng.choice(COLOURS + WORDS)} {rng.choice(OBJECTS)}"


def title(rng):
    """A name of two common words, as boats and inns have."""
    return f"{capital(rng.choice(COLOURS + WORDS))} {capital(rng.choice(WORDS + OBJECTS))}"


def work(rng):
    return f"the {rng.choice(THINGS)} {invented(rng).capitalize()}"


def token(rng):
    """An identifier: a word with digits, or hexadecimal."""
    if rng.random() < 0.5:
        return f"{rng.choice(WORDS)}-{digits(rng)}"
    return "-".join("".join(rng.choice("0123456789abcdef") for _ in range(4)) for _ in range(rng.choice([2, 3])))


@dataclass
class Kind:
    key: object  # draws what the fact is about
    value: object  # draws what is asked for
    said: list  # sentences, with {k} and {v}
    asked: list  # questions for {v}, with {k}
    sentence: str  # the answer in a sentence
    back: list = ()  # questions for {k}, with {v}; only where values are unique in the document


def pick(values):
    return lambda rng: rng.choice(values)


KINDS = [
    Kind(person, town, ["{k} lives in {v}.", "{k} came from a town called {v}.", "The home of {k} was in {v}.",
                        "For years {k} had a small house in {v}.", "{k} moved to {v} with the whole family."],
         ["Where does {k} live?", "In which town is the home of {k}?", "Where is the house of {k}?"],
         "{k} lives in {v}.", ["Who lives in {v}?", "Who has a house in {v}?"]),
    Kind(person, thing, ["{k} has a {v}.", "{k} owned a {v}.", "There was a {v} that belonged to {k}.",
                         "{k} bought a {v} at the market.", "On that day {k} was given a {v}."],
         ["What does {k} have?", "What did {k} own?", "What belongs to {k}?"], "{k} has a {v}.",
         ["Who has the {v}?", "Who owns the {v}?", "Whose is the {v}?", "To whom does the {v} belong?"]),
    Kind(person, pick(JOBS), ["{k} is a {v}.", "{k} worked as a {v}.", "For many years {k} had been a {v}.",
                              "{k}, a {v} by trade, was known to everybody.", "The {v} was {k}."],
         ["What is the job of {k}?", "What does {k} do for a living?", "What was {k}'s profession?", "What is {k}?"],
         "{k} is a {v}.", ["Who is a {v}?", "Who works as a {v}?", "What is the name of the {v}?"]),
    Kind(person, pick(FOODS), ["{k} likes {v} best.", "Nothing pleased {k} more than {v}.", "{k} ate {v} every day.",
                               "The favourite food of {k} is {v}."],
         ["What does {k} like best?", "What is the favourite food of {k}?", "What did {k} like to eat?"],
         "{k} likes {v} best."),
    Kind(person, lambda rng: str(rng.randrange(5, 99)), ["{k} is {v} years old.", "{k} turned {v} last week.",
                                                         "At the age of {v}, {k} began to learn the flute."],
         ["How old is {k}?", "What is the age of {k}?"], "{k} is {v} years old."),
    Kind(person, person, ["The best friend of {k} is {v}.", "{k} always played with {v}, the best of friends.",
                          "{k} had only one friend, and that was {v}."],
         ["Who is the best friend of {k}?", "Who is a friend of {k}?"], "The best friend of {k} is {v}."),
    Kind(person, person, ["{k} is married to {v}.", "{k} married {v} in the spring.", "The wife of {k} was {v}."],
         ["Whom did {k} marry?", "Who is {k} married to?"], "{k} is married to {v}."),
    Kind(person, invented, ["The secret word of {k} is {v}.", "{k} whispered the secret word: {v}.",
                            "To greet {k} one had to say the secret word {v}."],
         ["What is the secret word of {k}?", "Which secret word does {k} use?"], "The secret word of {k} is {v}."),
    Kind(person, lambda rng: f"{rng.randrange(1, 29)} {rng.choice(MONTHS)} {rng.randrange(1700, 2020)}",
         ["{k} was born on {v}.", "The birthday of {k} is {v}.", "It was on {v} that {k} was born."],
         ["When was {k} born?", "What is the date of birth of {k}?", "On which day was {k} born?"], "{k} was born on {v}."),
    Kind(person, lambda rng: str(rng.randrange(1500, 2025)),
         ["In {v}, {k} left the country.", "{k} won the great prize in {v}.", "In the year {v} {k} came back home."],
         ["In which year is {k} mentioned?", "What year is connected with {k}?"], "It was in {v}."),
    Kind(person, lambda rng: f"{rng.choice(['+', '0'])}{digits(rng)}{digits(rng)}",
         ["The phone number of {k} is {v}.", "You can call {k} at {v}.", "{k} wrote down the number {v} for calls."],
         ["What is the phone number of {k}?", "At which number can one call {k}?"], "The phone number of {k} is {v}."),
    Kind(person, pick(DAYS), ["{k} comes every {v}.", "{k} always visits on {v}.", "{k} has a music lesson each {v}."],
         ["On which day does {k} come?", "Which day of the week is {k}'s?"], "{k} comes on {v}."),
    Kind(lambda rng: rng.choice(OBJECTS) if rng.random() < 0.4 else thing(rng),
         lambda rng: rng.choice(SPOTS) if rng.random() < 0.6 else "in the " + rng.choice(ROOMS),
         ["The {k} is {v}.", "Somebody put the {k} {v}.", "They hid the {k} {v}.", "You will find the {k} {v}.",
          "The {k} had been left {v}."],
         ["Where is the {k}?", "Where was the {k} put?", "Where can one find the {k}?"], "The {k} is {v}."),
    Kind(lock, digits, ["The code of the {k} is {v}.", "To open the {k}, use the code {v}.",
                        "The {k} opens with the number {v}.", "Remember that {v} is the code of the {k}."],
         ["What is the code of the {k}?", "Which code opens the {k}?", "With which number does the {k} open?"],
         "The code of the {k} is {v}.", ["What does the code {v} open?"]),
    Kind(pick(WORDS), digits, ["One of the special magic numbers for {k} is: {v}.", "The special magic number for {k} is {v}.",
                               "The magic number of {k} mentioned here is {v}.", "The pass key for {k} is {v}. Remember it."],
         ["What is the special magic number for {k} mentioned in the provided text?", "What is the magic number for {k}?",
          "What is the pass key for {k}?", "What is the special magic number for {k}?"],
         "The special magic number for {k} is {v}."),
    Kind(pick(WORDS), token, ["The identifier of {k} is {v}.", "{k}: {v}", "Key {k} has the value {v}.",
                              "Register {k} holds {v}."],
         ["What is the identifier of {k}?", "Which value belongs to the key {k}?", "What is the value of {k}?"],
         "The value of {k} is {v}."),
    Kind(work, person, ["{k} was led by {v}.", "The head of {k} is {v}.", "{v} was in charge of {k}.",
                        "It was {v} who founded {k}."],
         ["Who led {k}?", "Who was in charge of {k}?", "Who is the head of {k}?", "Who founded {k}?"], "{v} led {k}."),
    Kind(work, lambda rng: str(rng.randrange(1500, 2025)), ["{k} was begun in {v}.", "{k} started in {v}.",
                                                            "In {v}, {k} was opened to the public.", "{k} dates from {v}."],
         ["When was {k} begun?", "In what year did {k} start?", "When did {k} begin?"], "{k} was begun in {v}."),
    Kind(work, lambda rng: f"{rng.randrange(2, 999)} {rng.choice(['million', 'thousand'])} {rng.choice(['dollars', 'euros', 'pounds', 'crowns'])}",
         ["{k} cost {v}.", "People paid {v} for {k}.", "The price of {k} was {v}."],
         ["How much did {k} cost?", "What was the price of {k}?"], "{k} cost {v}."),
    Kind(town, lambda rng: f"{rng.randrange(1, 999)},{rng.randrange(100, 999)}",
         ["{k} has {v} inhabitants.", "The population of {k} is {v}.", "About {v} people live in {k}."],
         ["How many people live in {k}?", "What is the population of {k}?"], "{k} has {v} inhabitants."),
    Kind(town, lambda rng: "the " + invented(rng).capitalize(), ["{k} lies on {v}, a wide river.", "The river of {k} is {v}.",
                                                               "{v} flows through {k}."],
         ["On which river does {k} lie?", "Which river flows through {k}?"], "{k} lies on {v}."),
    Kind(town, lambda rng: f"to {rng.choice(ACTIVITIES)}", ["The best thing to do in {k} is {v}.",
                                                         "Whoever comes to {k} ought {v}."],
         ["What is the best thing to do in {k}?", "What should one do in {k}?"], "The best thing to do in {k} is {v}."),
]
ACTIVITIES = (
    "eat a sandwich in the park on a sunny day|walk along the old wall at night|swim in the warm lake|climb the church tower|"
    "listen to the fishermen's songs|drink tea on the market square|take a boat to the small island|visit the glass museum|"
    "watch the birds at the harbour|ride the wooden train|buy fresh bread at six in the morning|feed the swans by the mill"
).split("|")


def capital(text):
    return text[:1].upper() + text[1:]


@dataclass
class Fact:
    said: str  # one sentence, or two
    asked: list  # (question, short answer, answer in a sentence)
    key: str


def fact_of(rng, kind, key, value):
    said, sentence = (capital(t.format(k=key, v=value)) for t in (rng.choice(kind.said), kind.sentence))
    asked = [(capital(q.format(k=key)), value, sentence) for q in kind.asked]
    asked += [(capital(q.format(v=value)), key, sentence) for q in kind.back]
    return Fact(said, asked, key)


def count_fact(rng):
    who, animals, n = person(rng), rng.choice(ANIMALS), rng.choice(NUMBERS)
    said = rng.choice(["{} has {} {}.", "{} keeps {} {}.", "{} came with {} {}."]).format(who, n, animals)
    return Fact(said, [(f"How many {animals} does {who} have?", n, f"{who} has {n} {animals}.")], who)


def changed_fact(rng):
    """A value that changes: the last one counts."""
    key, old, new = lock(rng), digits(rng), digits(rng)
    return [Fact(f"At first the code of the {key} was {old}.", [(f"What was the first code of the {key}?", old,
                 f"The first code of the {key} was {old}.")], key),
            Fact(f"Later the code of the {key} was changed to {new}.", [(f"What is the code of the {key} now?", new,
                 f"The code of the {key} is now {new}.")], key)]


def listed_facts(rng):
    """Two to four people with one thing in common; the question asks for all of them."""
    people = []
    while len(people) < rng.choice([2, 3, 4]):
        name = person(rng)
        if name not in people:
            people.append(name)
    place, verb, ask = rng.choice([
        (town(rng), "{} lives in {}.", "Who lives in {}?"), (town(rng), "{} was born in {}.", "Who was born in {}?"),
        (work(rng), "{} took part in {}.", "Who took part in {}?"), (rng.choice(FOODS), "{} cannot stand {}.",
                                                                   "Who cannot stand {}?")])
    answer = ", ".join(people[:-1]) + " and " + people[-1]
    facts = [Fact(verb.format(name, place), [], name) for name in people]
    facts[0].asked = [(ask.format(place), answer, verb.format(answer, place).replace("lives", "live").replace(
        "was born", "were born"))]
    return facts


def chained_facts(rng):
    """Two facts that only together answer: where the thing of a person is."""
    who, what, room = person(rng), thing(rng), rng.choice(ROOMS)
    where = town(rng)
    if rng.random() < 0.5:
        return [Fact(f"{who} has the {what}.", [], who), Fact(f"The {what} is kept in the {room}.", [
            (f"In which room does {who} keep the {what}?", f"the {room}", f"{who} keeps it in the {room}."),
            (f"Where is the thing that {who} has?", f"in the {room}", f"The {what} of {who} is in the {room}.")], what)]
    friend = person(rng)
    return [Fact(f"The sister of {who} is {friend}.", [], who), Fact(f"{friend} lives in {where}.", [
        (f"Where does the sister of {who} live?", where, f"The sister of {who} lives in {where}.")], friend)]


def older_facts(rng):
    a, b = person(rng), person(rng)
    x, y = rng.sample(range(10, 95), 2)
    older, younger = (a, b) if x > y else (b, a)
    return [Fact(f"{a} is {x} years old.", [], a), Fact(f"{b} is {y} years old.", [
        (f"Who is older, {a} or {b}?", older, f"{older} is older than {younger}."),
        (f"Who is younger, {a} or {b}?", younger, f"{younger} is younger than {older}.")], b)]


GROUPS = [changed_fact, listed_facts, chained_facts, older_facts]


def make_facts(rng, n):
    """About n facts in groups that must keep their order; every question has one answer in the document."""
    groups, questions, sentences = [], set(), set()
    total = 0
    while total < n:
        roll = rng.random()
        if roll < 0.18:
            group = rng.choice(GROUPS)(rng)
        elif roll < 0.22:
            group = [count_fact(rng)]
        else:
            kind = rng.choice(KINDS)
            group = [fact_of(rng, kind, kind.key(rng), kind.value(rng))]
        asked = {q for fact in group for q, _, _ in fact.asked}
        said = {fact.said for fact in group}
        if asked & questions or said & sentences or len(said) < len(group):
            continue
        questions |= asked
        sentences |= said
        groups.append(group)
        total += len(group)
    return groups


def alike_facts(rng, n):
    """n facts of one kind with other keys and values: the hardest to tell apart."""
    kind, seen, out = rng.choice(KINDS), set(), []
    for _ in range(4 * n):
        key, value = kind.key(rng), kind.value(rng)
        if key not in seen and value not in seen and len(out) < n:
            seen |= {key, value}
            out.append([fact_of(rng, kind, key, value)])
    return out


def unknown_question(rng, groups):
    """A question that looks like the others and has no answer in the document."""
    said = " ".join(fact.said for group in groups for fact in group)
    while True:
        kind = rng.choice(KINDS)
        key = kind.key(rng)
        known = [fact.key for group in groups for fact in group]
        if known and rng.random() < 0.5 and kind.key is person:
            key = rng.choice(known)
            if not key[0].isupper():
                continue
            fact = fact_of(rng, kind, key, kind.value(rng))
            taken = {q for group in groups for f in group for q, _, _ in f.asked}
            if any(q in taken for q, _, _ in fact.asked) or kind.value is person:
                continue
            return capital(rng.choice(kind.asked).format(k=key))
        if key not in said:
            return capital(rng.choice(kind.asked).format(k=key))


ABOUT = [  # sentences about one person or thing, for long answers that bring several places together
    "{k} arrived in {town} on a cold morning in {month} with nothing but a {thing}.",
    "In {month} {k} sold the {thing} to {other} for {n} silver coins.",
    "It was {k} who found the {thing} {spot} while all the others were asleep.",
    "{other} wrote to {k} that the {job} in {town} had asked for {n} {animals} before winter.",
    "The people of {town} still say that {k} gave {food} to every child on {day}.",
    "On {day} {k} and {other} carried the {thing} all the way from {town} to the {room}.",
    "Nobody in {town} knew that {k} had once been a {job} and kept {n} {animals}.",
    "When the storm came in {month}, {k} was the only one who stayed in the {room}.",
    "{k} told {other} to look for the {thing} {spot}.",
    "After {n} years {k} was named after the old {job} of {town}.",
    "The {job} of {town} repaired {k} in {month} with the help of {other}.",
    "A letter from {town} says that {k} was seen near the {room} with {n} {animals}.",
    "{other} paid {n} coins for {k} and never spoke of it again.",
    "At the end of {month} {k} was brought to {town} and kept in the {room}.",
    "According to {other}, {k} cost more than {n} {animals} and a {thing} together.",
]


ABOUT_FIRST = [form for form in ABOUT if form.startswith("{k}")] + [
    "{k} belonged to {other}, who kept it {spot} until the end of {month}.",
    "{k} was worth {n} {animals} when it first came to {town}.",
    "{k} was seen in the {room} on {day}, together with a {thing}.",
    "{k} won the prize of {town} and got {n} bags of {food}.",
    "{k} stayed with the {job} for {n} days and learnt to love {food}.",
    "{k} had been lost {n} years before {other} found it {spot}.",
    "{k} was the first to cross the river at {town} in {month}.",
    "{k} came back from {town} with {n} {animals} and no {thing}.",
]


def about(rng, key, n, first=False):
    """n sentences that name `key`; with `first` they begin with it."""
    forms = ABOUT_FIRST if first else ABOUT + ABOUT_FIRST[-8:]
    out = []
    for form in rng.sample(forms, min(n, len(forms))):
        out.append(capital(form.format(
            k=key, town=town(rng), month=rng.choice(MONTHS), thing=thing(rng), other=person(rng), n=rng.choice(NUMBERS),
            spot=rng.choice(SPOTS), job=rng.choice(JOBS), animals=rng.choice(ANIMALS), food=rng.choice(FOODS),
            day=rng.choice(DAYS), room=rng.choice(ROOMS))))
    return out
