#!/usr/bin/env python3
"""unicode_tables.py: writes src/model/jinja/jinja_unicode_tables.inc, what Python's str knows of characters.

Run it with the Python whose Unicode version is wanted (3.11: Unicode 14): tools/unicode_tables.py
"""
import os
import sys
import unicodedata

ALL = [c for c in range(128, 0x110000) if not 0xD800 <= c < 0xE000]


def ranges(test):
    out = []
    for c in ALL:
        if not test(chr(c)):
            continue
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def mappings(fn):
    """(first, last, step, delta): runs of characters that one number turns into their other form."""
    out = []
    for c in ALL:
        to = fn(chr(c))
        if len(to) != 1 or ord(to) == c:
            continue
        delta = ord(to) - c
        if out and out[-1][3] == delta:
            first, last, step, _ = out[-1]
            if first == last and c - last in (1, 2):
                out[-1][1:3] = [c, c - last]
                continue
            if first != last and c - last == step:
                out[-1][1] = c
                continue
        out.append([c, c, 1, delta])
    return out


def special(fn, how):
    return [(c, how, [ord(x) for x in fn(chr(c))]) for c in ALL if len(fn(chr(c))) > 1]


def rows(name, type_name, items):
    text, line = 'static const struct %s %s[] = {\n' % (type_name, name), '   '
    for item in items:
        if len(line) + len(item) + 2 > 100:
            text, line = text + line + '\n', '   '
        line += ' ' + item + ','
    return text + line + '\n};\n'


def cased(c):
    return c.isupper() or c.islower() or c.istitle()


def lower_case(c):
    # islower() of one character is the property itself.
    return c.islower()


def ignorable(c):
    return unicodedata.category(c) in ('Mn', 'Me', 'Cf', 'Lm', 'Sk') or c in '\u00b7\u0387\u05f4\u2018\u2019\u2024\u2027\ufe13\ufe52\ufe55\uff07\uff0e\uff1a'


def main():
    path = os.path.join(os.path.dirname(__file__), '../src/model/jinja/jinja_unicode_tables.inc')
    pair = '{0x%X, 0x%X}'
    out = '/* Written by tools/unicode_tables.py: Unicode %s, from U+0080 on. */\n' % unicodedata.unidata_version
    for name, test in (('not_printable', lambda c: not c.isprintable()), ('alpha', str.isalpha), ('decimal', str.isdecimal),
                       ('digit', str.isdigit), ('numeric', str.isnumeric), ('lower', lower_case), ('upper', str.isupper),
                       ('titled', lambda c: c.istitle() and not c.isupper()), ('ignorable', ignorable)):
        out += rows(name + '_ranges', 'range', [pair % tuple(r) for r in ranges(test)])
    for name, fn in (('to_lower', str.lower), ('to_upper', str.upper)):
        out += rows(name, 'mapping', ['{0x%X, 0x%X, %d, %d}' % tuple(m) for m in mappings(fn)])
    title = [m for m in mappings(str.title)]
    differs = {c: chr(c).title() for c in ALL if len(chr(c).title()) == 1 and (chr(c).title() != chr(c).upper())}
    del title
    out += rows('to_title', 'mapping', ['{0x%X, 0x%X, 1, %d}' % (c, c, ord(t) - c) for c, t in differs.items()])
    many = special(str.lower, 'l') + special(str.upper, 'u') + special(str.title, 't')
    out += rows('special', 'special', ["{0x%X, '%s', {%s}}" % (c, how, ', '.join('0x%X' % x for x in to)) for c, how, to in many])
    with open(path, 'w') as f:
        f.write(out)


if __name__ == '__main__':
    sys.exit(main())
