#!/usr/bin/env python3
"""oracle.py: what Jinja itself writes, for test_jinja_oracle. With transformers' settings: an immutable sandbox, trim_blocks,
lstrip_blocks, loop controls, {% generation %}, tojson, raise_exception and strftime_now.

oracle.py fuzz SEED COUNT            generated templates
oracle.py files SEED COUNT FILE...   templates from files, COUNT generated conversations each

Prints a line of JSON for each case: {"name", "template", "args", "now", "want"} or {..., "error"}. Status 77: no jinja2.
"""
import datetime
import json
import os
import random
import signal
import sys
import warnings

warnings.simplefilter('ignore')

try:
    import jinja2
    import jinja2.ext
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    sys.exit(77)

NOW = 1753920000 + 12345  # seconds of strftime_now


class Generation(jinja2.ext.Extension):
    tags = {'generation'}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(['name:endgeneration'], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method('_text'), [], [], body).set_lineno(line)

    def _text(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(form):
    return datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).replace(tzinfo=None).strftime(form)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters['tojson'] = tojson
    env.globals['raise_exception'] = raise_exception
    env.globals['strftime_now'] = strftime_now
    return env


ENV = environment()


def slow(*_):
    raise TimeoutError('slow')


def emit(name, template, args):
    case = {'name': name, 'template': template, 'args': args, 'now': NOW}
    signal.signal(signal.SIGALRM, slow)
    signal.alarm(5)
    try:
        case['want'] = ENV.from_string(template).render(**args)
        case['want'].encode()
    except Exception as e:  # whatever Python raises is an error of ours too
        case.pop('want', None)
        case['error'] = '%s: %s' % (type(e).__name__, e)
    signal.alarm(0)
    print(json.dumps(case))


# ---- conversations ----

WORDS = ['hello', 'Zürich', '日本語', 'naïve', '🙂', 'ǅ', 'ß', 'İ', '<|im_start|>', '</think>', '<think>', '[INST]', '{{ x }}', '{% if %}', 'a"b', "it's",
         'back\\slash', '\t', '\n', ' ', '\n\n', '&amp;', '<b>', '%s', '\u2028', '0', '-1', '<tool_response>', '</tool_response>', 'ΟΔΟΣ', '\u00a0', '\x07']


def words(r, n=8):
    return ''.join(r.choice(WORDS) + r.choice(['', ' ', ' ', '\n']) for _ in range(r.randint(0, n)))


def value(r, depth=0):
    k = r.randint(0, 9 if depth < 3 else 6)
    if k < 3:
        return words(r, 3)
    if k == 3:
        return r.choice([0, 1, -7, 10**12, 3.5, 1e-7, 1e22, 0.1, -0.0])
    if k == 4:
        return r.choice([True, False])
    if k in (5, 6):
        return None if k == 5 else r.randint(-1000, 1000)
    if k == 7:
        return [value(r, depth + 1) for _ in range(r.randint(0, 3))]
    return {r.choice(['type', 'city', 'ünit', 'items', 'a b', 'enum', 'keys', 'x"y']): value(r, depth + 1) for _ in range(r.randint(0, 3))}


def tool(r):
    properties = {r.choice(['city', 'unit', 'days', 'items']): dict({'type': r.choice(['string', 'integer', 'array', ['string', 'null'], 'object', 'boolean'])},
                  **({'description': words(r, 4)} if r.random() < .7 else {}), **({'enum': ['a', 'b']} if r.random() < .3 else {}),
                  **({'items': {'type': 'string'}} if r.random() < .3 else {}))
                  for _ in range(r.randint(0, 3))}
    f = {'name': r.choice(['get_weather', 'search', 'f']), 'description': words(r, 5), 'parameters': {'type': 'object', 'properties': properties}}
    if r.random() < .6:
        f['parameters']['required'] = list(properties)[:1]
    if r.random() < .1:
        f['return'] = {'type': 'string', 'description': 'x'}
    return {'type': 'function', 'function': f}


def call(r):
    arguments = value(r) if r.random() < .1 else {k: value(r, 1) for k in r.sample(['city', 'unit', 'days'], r.randint(0, 3))}
    if r.random() < .3:
        arguments = json.dumps(arguments, ensure_ascii=False)
    c = {'id': r.choice(['call_1', 'abcdefghi', '123456789']), 'type': 'function', 'function': {'name': r.choice(['get_weather', 'f']), 'arguments': arguments}}
    return c


def content_or_parts(r):
    if r.random() < .3:
        return [{'type': 'text', 'text': words(r)} for _ in range(r.randint(0, 3))]
    return words(r)


content = words


def answer(r):
    m = {'role': 'assistant', 'content': content(r) if r.random() < .95 else None}
    if r.random() < .2:
        m['content'] = '<think>\n' + words(r) + '\n</think>\n\n' + words(r)
    if r.random() < .15:
        m['reasoning_content'] = words(r)
    return m


def calls(r, messages, many):
    m = {'role': 'assistant', 'content': r.choice([None, '', words(r)]), 'tool_calls': [call(r) for _ in range(r.choice([1, 1, 1, 2, 0]) if many else 1)]}
    if r.random() < .2:
        del m['content']
    messages.append(m)
    for c in m['tool_calls']:
        result = {'role': 'tool', 'content': content(r), 'tool_call_id': c['id'], 'name': c['function']['name']}
        for key in ('tool_call_id', 'name'):
            if r.random() < .2:
                del result[key]
        messages.append(result)


def conversation(r):
    """Most are as APIs take them, some are not; half have texts only."""
    global content
    messages, tools, tidy = [], r.random() < .4, r.random() < .75
    content = words if r.random() < .7 else content_or_parts
    if r.random() < .5:
        messages.append({'role': 'system' if tidy else r.choice(['system', 'developer', 'tool']), 'content': content(r)})
    for _ in range(r.randint(0, 4) if r.random() < .9 else r.randint(5, 12)):
        if tidy or r.random() < .8:
            messages.append({'role': 'user', 'content': content(r)})
        if tools and r.random() < .5:
            calls(r, messages, not tidy)
        if tidy or r.random() < .7:
            messages.append(answer(r))
        if not tidy and r.random() < .1:
            messages.append({'role': 'system', 'content': words(r)})
    if messages and tidy and r.random() < .7:
        messages.append({'role': 'user', 'content': content(r)})
    args = {'messages': messages, 'bos_token': r.choice(['<s>', '<|begin_of_text|>', '']), 'eos_token': r.choice(['</s>', '<|im_end|>']),
            'add_generation_prompt': r.random() < .7}
    if tools:
        args['tools'] = [tool(r) for _ in range(r.randint(0, 3))]
    elif r.random() < .5:
        args['tools'] = None
    for name in ('enable_thinking', 'thinking', 'keep_reasoning', 'tools_in_user_message'):
        if r.random() < .2:
            args[name] = r.random() < .5
    if r.random() < .2:
        args['reasoning_effort'] = r.choice(['low', 'medium', 'high'])
    if r.random() < .1:
        args['documents'] = [{'title': words(r, 2), 'text': words(r)}]
    if r.random() < .1:
        args['custom_tools'] = [tool(r)]
    if r.random() < .1:
        args['date_string'] = '26 Jul 2024'
    return args


# ---- generated templates ----

class Grammar:
    NAMES = ['messages', 'message', 'm', 'u', 'v', 'x', 'y', 'ns', 'tools', 'bos_token', 'missing', 'loop', 'items', 'd', 's', 'n', 'f']
    STRINGS = ["'a'", '"b c"', "'\\n'", "' x '", "'Ü<|im_start|>'", "'1,2,,3'", "''", "'%s-%d'", "'{}:{0}'", "'ab' 'cd'", "'\\u00e9\\x41\\101'", "'role'", "'content'",
               "'it\\'s'", "'Hello World foo-bar'", "'ΑΣ ς ǆ ﬁ'", "'12'", "'-3.5'", "'0x1f'"]
    METHODS = ['strip()', 'upper()', 'lower()', 'title()', 'capitalize()', 'split()', "split(',')", "split(',', 1)", 'split(None, 1)', "rsplit(',', 1)", 'rsplit()', 'rsplit(None, 1)',
               "lstrip('\\n')", "rstrip(' x')", "startswith('a')", "endswith(('c', 'x '))", "replace('a', 'Z')", "replace('', '-')", "replace('a', 'b', 1)",
               "find('c')", "rfind('b')", "count('a')", 'splitlines()', 'splitlines(true)', "partition(' ')", "rpartition(' ')", 'isdigit()', 'isalpha()', 'isupper()', 'islower()',
               'isspace()', 'istitle()', 'isalnum()', 'zfill(6)', 'center(9)', "center(8, '*')", "ljust(5, '.')", 'rjust(5)', 'swapcase()', "removeprefix('a')", "removesuffix('c')",
               "join(['p', 'q'])", 'format(1, 2)', 'items()', 'keys()', 'values()', "get('role')", "get('zz', 5)", 'expandtabs()', "index('a')", "count('')",
               "find('b', 1)", "find('', 99)", "startswith('b', 1)", "endswith('a', 0, 1)", 'isidentifier()', 'isascii()', 'isprintable()', 'isnumeric()', 'copy()']
    FILTERS = ['trim', 'upper', 'lower', 'title', 'capitalize', 'length', 'list', 'first', 'last', 'join', "join(', ')", 'tojson', 'tojson(indent=2)', 'string', 'int', 'float', 'abs',
               "default('D')", "default('D', true)", 'reverse', 'reverse|list', 'sort', 'unique|list', "map('upper')|list", "map(attribute='role')|list", "map(attribute='role')|join('/')",
               "selectattr('role', 'equalto', 'user')|list", "selectattr('content')|list|length", "rejectattr('role', 'in', ['user'])|list", "select('string')|list", "reject('none')|list",
               "replace('a', 'b')", 'indent', 'indent(2, true)', "indent('> ', blank=true)", 'wordcount', 'round', 'round(1)', "round(2, 'floor')", 'max', 'min', 'sum', 'dictsort', 'items|list',
               "batch(2)|list", "batch(3, 'F')|list", "slice(2)|list", "slice(3, 'F')|list", 'e', 'safe', "sum(attribute='n')", "groupby('role')|list|length", "attr('role')", 'd', 'center(9)',
               "sort(reverse=true)", "sort(attribute='role')", 'count', "truncate(7)", "truncate(9, true, '~', 0)", "int(7)", "int(base=16)", "float(2.5)", "tojson(separators=(',', ':'))",
               "tojson(sort_keys=true)", "tojson(ensure_ascii=true)", "map('int')|list", "map(attribute='zz', default='none')|list", "format(1)", 'urlencode', "unique(true)|list", "trim('x')"]
    TESTS = ['defined', 'undefined', 'none', 'string', 'number', 'integer', 'float', 'boolean', 'mapping', 'iterable', 'sequence', 'true', 'false', 'odd', 'even', 'divisibleby 3', "eq 'a'",
             "in ['a', 1]", 'sameas none', 'lower', 'upper', 'gt 1', 'callable', 'divisibleby(2)', 'ne 1', "equalto('b c')", 'escaped', 'le 2', 'filter']

    def __init__(self, r):
        self.r, self.depth, self.budget = r, 0, 60

    def leaf(self):
        r = self.r
        k = r.randint(0, 9)
        if k < 4:
            return r.choice(self.NAMES)
        if k < 7:
            return r.choice(self.STRINGS)
        if k == 7:
            return r.choice(['0', '1', '2', '-1', '3', '10', '2.5', '1e3', '1_000', '0x1f', '7'])
        if k == 8:
            return r.choice(['true', 'false', 'none', 'True', 'None'])
        return r.choice(['message.role', "message['content']", 'messages[0].role', 'messages[-1]["content"]', 'loop.index', 'loop.last', 'loop.previtem', 'ns.v', 'd.k', 'd["items"]',
                         'messages[1:]', 'messages[::-1]', 's[1:3]', 's[::-1]', 's[-2:]', 's[0]', 'messages[0:2]|length', 'items[::2]', 'range(3)', 'range(1, 6, 2)', 'd.items()'])

    def expr(self, depth=0):
        r = self.r
        self.budget -= 1
        if depth > 3 or self.budget < 0 or r.random() < .25:
            return self.leaf()
        e = lambda: self.expr(depth + 1)
        k = r.randint(0, 17)
        if k == 0:
            return '(%s)' % e()
        if k in (1, 2):
            return '%s %s %s' % (e(), r.choice(['+', '+', '+', '-', '*', '/', '//', '%', '**']), e())
        if k == 3:
            return '%s ~ %s' % (e(), e())
        if k == 4:
            return '%s %s %s' % (e(), r.choice(['==', '!=', '<', '<=', '>', '>=', 'in', 'not in']), e())
        if k == 5:
            return '%s %s %s' % (e(), r.choice(['and', 'or']), e())
        if k == 6:
            return 'not %s' % e()
        if k == 7:
            return '%s if %s else %s' % (e(), e(), e()) if r.random() < .8 else '%s if %s' % (e(), e())
        if k in (8, 9, 10):
            return '(%s)|%s' % (e(), r.choice(self.FILTERS))
        if k in (11, 12):
            return '(%s).%s' % (e(), r.choice(self.METHODS))
        if k == 13:
            return '(%s) is %s%s' % (e(), r.choice(['', 'not ']), r.choice(self.TESTS))
        if k == 14:
            return '[%s]' % ', '.join(e() for _ in range(r.randint(0, 3)))
        if k == 15:
            return '{%s}' % ', '.join("'%s': %s" % (r.choice('abk'), e()) for _ in range(r.randint(0, 2)))
        if k == 16:
            return '%s[%s]' % (self.leaf(), r.choice([e(), '%s:%s' % (r.randint(-4, 4), r.randint(-4, 4)), ':%d' % r.randint(-3, 3), '%d::%d' % (r.randint(-4, 4), r.choice([-2, -1, 1, 2]))]))
        return '%s(%s)' % (r.choice(['f', 'dict', 'range', 'namespace', 'f', 'f']), r.choice(['', '1', "x=2", "1, y='q'", e(), "'a', 2"]))

    def tag(self, text):
        r = self.r
        return '{%' + r.choice(['', '', '', '-', '+']) + ' ' + text + ' ' + r.choice(['', '', '', '-', '+']) + '%}' + r.choice(['', '', '\n', '\n  ', ' '])

    def data(self):
        return self.r.choice(['', 'text', ' ', '\n', '  \n', 'a\n  ', '<|im_start|>', 'x{# comment #}y', '  {#- c -#}\n', '{% raw %}{{ raw }}{% endraw %}', '\t', 'Ü', '\r\n', '}} %} #}'])

    def body(self):
        n = self.r.randint(1, 3)
        return ''.join(self.statement() for _ in range(n)) + self.data()

    def statement(self):
        r, t = self.r, self.tag
        self.depth += 1
        try:
            k = r.randint(0, 19)
            if self.depth > 4 or self.budget < 0:
                k = 0
            self.budget -= 3
            if k < 7:
                return self.data() + '{{' + r.choice(['', '', '-']) + ' ' + self.expr() + ' ' + r.choice(['', '', '-']) + '}}' + self.data()
            if k < 10:
                s = t('if ' + self.expr()) + self.body()
                if r.random() < .3:
                    s += t('elif ' + self.expr()) + self.body()
                if r.random() < .4:
                    s += t('else') + self.body()
                return s + t('endif')
            if k < 13:
                target, over = r.choice([('message', 'messages'), ('u', 'items'), ('k, v', 'd.items()'), ('c', 's'), ('u', self.expr()), ('k', 'd'), ('a, b', '[(1, 2), (3, 4)]'), ('u', 'range(4)')])
                s = t('for %s in %s%s' % (target, over, r.choice(['', '', '', ' if loop is undefined', ' if x', ' if ' + self.leaf()]))) + self.body()
                if r.random() < .2:
                    s += t('if ' + self.expr(2)) + t(r.choice(['break', 'continue'])) + t('endif') + self.data()
                if r.random() < .3:
                    s += '{{ loop.' + r.choice(['index', 'index0', 'first', 'last', 'revindex', 'length', 'depth', "cycle('o', 'e')", 'changed(x)', 'previtem', 'nextitem']) + ' }}'
                if r.random() < .2:
                    s += t('else') + self.body()
                return s + t('endfor')
            if k < 15:
                return t('set %s = %s' % (r.choice(['u', 'v', 'ns.v', 'w', 'u, v', 'x', 's', 'y, n']), self.expr()))
            if k == 15:
                return t('set ' + r.choice(['u', 'v | upper', 'w | trim', 's', 'x'])) + self.body() + t('endset')
            if k == 16:
                return t('macro f(x=1, y=%s)' % self.leaf()) + self.body() + r.choice(['', '{{ varargs }}', '{{ kwargs }}']) + t('endmacro') + '{{ f(' + r.choice(['', '1', "'z', 2", 'y=3', '1, 2, 3', 'z=1']) + ') }}'
            if k == 17:
                return t('filter ' + r.choice(['upper', 'trim', "replace('a', 'b')", 'indent(2)', 'trim | title'])) + self.body() + t('endfilter')
            if k == 18:
                return t('with u = %s, q = 1' % self.leaf()) + self.body() + t('endwith')
            return r.choice([t('generation') + self.body() + t('endgeneration'),
                             t('macro g(n)') + '[{{ caller() if n else "-" }}]' + t('endmacro') + t('call g(%s)' % self.leaf()) + self.body() + t('endcall')])
        finally:
            self.depth -= 1

    def template(self):
        self.budget = self.r.choice([3, 6, 10, 20, 40])
        return '{% set ns = namespace(v=1, w="q") %}' * (self.r.random() < .8) + ''.join(self.statement() for _ in range(self.r.randint(1, 3)))


def fuzz(seed, count):
    for i in range(count):
        r = random.Random(seed * 1000003 + i)
        args = {'messages': [{'role': r.choice(['user', 'assistant', 'system']), 'content': words(r, 4), 'n': r.randint(0, 3)} for _ in range(r.randint(0, 3))],
                'message': {'role': 'user', 'content': words(r, 4)}, 'items': [value(r, 2) for _ in range(r.randint(0, 4))], 's': words(r, 4),
                'd': {'k': value(r, 2), 'items': 3, 'a': [1, 2]}, 'n': r.randint(-3, 12), 'x': value(r, 1), 'y': value(r, 2), 'bos_token': '<s>'}
        emit('fuzz %d' % i, Grammar(r).template(), args)


def files(seed, count, names):
    for name in names:
        with open(name, encoding='utf8', newline='') as f:
            template = f.read()
        for i in range(count):
            emit('%s #%d' % (os.path.basename(name), i), template, conversation(random.Random('%s %d %d' % (seed, count, i))))


if __name__ == '__main__':
    if sys.argv[1] == 'fuzz':
        fuzz(int(sys.argv[2]), int(sys.argv[3]))
    else:
        files(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
