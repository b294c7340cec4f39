"""Generated reading comprehension: short facts hidden among story sentences, asked for afterwards.

A *fact* is a sentence and the questions it answers. Every random choice comes from the caller's
random.Random, so a seed names a data set. Values (codes, invented names, towns) are drawn fresh for
each document: an answer can only be found by reading it.
"""

FIRST_NAMES = (
    "Anna Ben Clara David Emma Finn Grace Henry Ida Jack Kate Leo Mary Noah Olive Paul Rose Sam Tom "
    "Una Victor Will Alice Bella Charles Daisy Edward Flora George Hannah Isaac Jane Karl Lucy Max "
    "Nora Oscar Peter Ruth Simon Thea Walter Agnes Arthur Betty Cecil Dora Ellen Frank Gerda Hugo Ivy "
    "James Laura Martin Nell Otto Polly Robert Sarah Susan Tilly Hans Greta Kay Lena Mark Milly"
).split()
COLOURS = "red blue green yellow white black brown golden silver grey purple pink".split()
OBJECTS = (
    "kite book lamp ring drum boat hat bell key cup coat basket mirror clock ball knife box flute ladder "
    "spoon blanket crown map brush bag chair wheel whistle candle rope shoe doll button bottle pen "
    "necklace lantern violin umbrella"
).split()
PLACES = (
    "kitchen garden cellar barn attic tower forest stable library church mill cave market school "
    "orchard harbour castle cottage bakery meadow"
).split()
SPOTS = (
    "under the bed|behind the door|in the old chest|on the table|beside the well|under the bridge|"
    "inside the oven|behind the barn|on the roof|in the hollow tree|near the gate|under the stairs|"
    "in the cupboard|on the window sill|behind the curtain|in the boat"
).split("|")
JOBS = (
    "baker farmer doctor teacher sailor miller tailor hunter painter soldier blacksmith fisherman "
    "gardener carpenter shoemaker cook singer shepherd weaver potter judge clerk driver nurse"
).split()
ANIMALS = (
    "dogs cats horses sheep goats hens geese ducks cows pigs rabbits pigeons donkeys bees mice frogs "
    "swans lambs"
).split()
FOODS = (
    "apples bread cheese soup cake honey plums porridge pears cherries pancakes nuts butter fish "
    "carrots berries"
).split()
NUMBERS = "two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty".split()
LOCKS = "door gate safe chest cabin vault tower locker cellar box".split()
ONSETS = "b br c cl d dr f fl g gr h j k l m n p pl qu r s st t tr v w z".split()
VOWELS = "a e i o u ai ee oo".split()
ENDS = "l n r s m t nd rk x".split() + ["", "", ""]


def invented(rng, parts=2):
    """A pronounceable word that no text holds: copying it cannot be remembered, only read."""
    word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(parts))
    return word + rng.choice(ENDS)


def person(rng):
    return rng.choice(FIRST_NAMES) if rng.random() < 0.7 else invented(rng).capitalize()


def digits(rng):
    return "".join(rng.choice("0123456789") for _ in range(rng.choice([3, 4, 4, 5])))


def fact_owns(rng, key):
    who, what = key, rng.choice(COLOURS) + " " + rng.choice(OBJECTS)
    said = rng.choice(["{} has a {}.", "{} owned a {}.", "There was a {1} that belonged to {0}."])
    if said.startswith("There"):
        said = said.format(who, what)
    else:
        said = said.format(who, what)
    return said, [(f"What does {who} have?", f"{who} has a {what}."),
                  (f"Who has the {what}?", f"{who} has the {what}.")]


def fact_where(rng, key):
    spot = rng.choice(SPOTS) if rng.random() < 0.6 else "in the " + rng.choice(PLACES)
    said = rng.choice(["The {} is {}.", "Somebody put the {} {}.", "They hid the {} {}."])
    return said.format(key, spot), [(f"Where is the {key}?", f"The {key} is {spot}.")]


def fact_code(rng, key):
    code = digits(rng)
    said = rng.choice(["The code of the {} is {}.", "To open the {}, use the code {}."])
    ask = rng.choice([f"What is the code of the {key}?", f"Which code opens the {key}?"])
    return said.format(key, code), [(ask, f"The code of the {key} is {code}.")]


def fact_count(rng, key):
    animals, n = rng.choice(ANIMALS), rng.choice(NUMBERS)
    said = rng.choice(["{} has {} {}.", "{} keeps {} {}."])
    return said.format(key, n, animals), [
        (f"How many {animals} does {key} have?", f"{key} has {n} {animals}.")]


def fact_job(rng, key):
    job = rng.choice(JOBS)
    said = rng.choice(["{} is a {}.", "{} worked as a {}.", "For many years {} had been a {}."])
    return said.format(key, job), [
        (rng.choice([f"What is the job of {key}?", f"What does {key} do for a living?"]),
         f"{key} is a {job}."), (f"Who is a {job}?", f"{key} is a {job}.")]


def fact_lives(rng, key):
    town = invented(rng, rng.choice([2, 3])).capitalize()
    said = rng.choice(["{} lives in {}.", "{} came from a town called {}.", "The home of {} is {}."])
    return said.format(key, town), [(f"Where does {key} live?", f"{key} lives in {town}.")]


def fact_word(rng, key):
    word = invented(rng)
    said = rng.choice(["The secret word of {} is {}.", "{} whispered the secret word: {}."])
    return said.format(key, word), [
        (f"What is the secret word of {key}?", f"The secret word of {key} is {word}.")]


def fact_food(rng, key):
    food = rng.choice(FOODS)
    said = rng.choice(["{} likes {} best.", "Nothing pleased {} more than {}."])
    return said.format(key, food), [(f"What does {key} like best?", f"{key} likes {food} best.")]


def fact_age(rng, key):
    age = rng.randrange(5, 99)
    return f"{key} is {age} years old.", [(f"How old is {key}?", f"{key} is {age} years old.")]


def fact_friend(rng, key):
    friend = person(rng)
    said = rng.choice(["The best friend of {} is {}.", "{} always played with {}, the best of friends."])
    return said.format(key, friend), [
        (f"Who is the best friend of {key}?", f"The best friend of {key} is {friend}.")]


ABOUT_PEOPLE = [fact_owns, fact_count, fact_job, fact_lives, fact_word, fact_food, fact_age, fact_friend]
ABOUT_OBJECTS = [fact_where]
ABOUT_LOCKS = [fact_code]


def make_facts(rng, n):
    """n facts about distinct (kind, key) pairs, so that every question has one answer."""
    facts, seen, objects = [], set(), set()
    while len(facts) < n:
        roll = rng.random()
        if roll < 0.6:
            kind, key = rng.choice(ABOUT_PEOPLE), person(rng)
        elif roll < 0.8:
            kind, key = rng.choice(ABOUT_OBJECTS), rng.choice(OBJECTS)
        else:
            colour = rng.choice(COLOURS) + " " if rng.random() < 0.5 else ""
            kind, key = rng.choice(ABOUT_LOCKS), colour + rng.choice(LOCKS)
        if (kind, key) in seen:
            continue
        said, asked = kind(rng, key)
        if any(q in objects for q, _ in asked):
            continue
        objects.update(q for q, _ in asked)
        seen.add((kind, key))
        facts.append((said, asked))
    return facts


def hide(rng, facts, filler):
    """Put each fact between two sentences of the filler, in random places and paragraphs."""
    places = sorted(rng.randrange(len(filler) + 1) for _ in facts)
    out, at = [], 0
    for place, (said, _) in zip(places, facts):
        out += filler[at:place] + [said]
        at = place
    out += filler[at:]
    text = out[0]
    for sentence in out[1:]:
        text += ("\n" if rng.random() < 0.08 else " ") + sentence
    return text


def make_dialog(rng, filler, n_facts, n_questions):
    """(document, [(question, answer)...]) over the sentences of `filler`."""
    facts = make_facts(rng, n_facts)
    document = hide(rng, facts, filler)
    asked = [rng.choice(f[1]) for f in rng.sample(facts, min(n_questions, n_facts))]
    return document, asked
