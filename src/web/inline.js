// inline.js: the text of one block (a paragraph, a heading, a cell) as it streams in: emphasis, code, links.
//
// What is certain is appended and never touched again; only the tail, in which a mark may still find its
// partner, is built anew. Each node is made by createElement and text nodes: a model's HTML is text.

const TAIL_MAX = 1500;     // characters that may wait for a partner; then the mark is text
const BLOCK_MAX = 4000;    // characters of one block; a longer one goes on in the next, so that layout stays cheap
const DEPTH_MAX = 6;
const LINK_MAX = 2000;

const punctuation = /[!-/:-@[-`{-~]/;
const word = /[\p{L}\p{N}_]/u;
// Overrides, embeddings and isolates reorder what stands around them; tag characters hide text.
const hidden = /[\u202a-\u202e\u2066-\u2069\u{e0000}-\u{e007f}]/u;
const control = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Text as it is shown: characters that reorder or hide are named instead. */
function putSafe(parent, text) {
    text = text.replace(control, '\ufffd');
    if (!hidden.test(text)) {
        const last = parent.lastChild;
        if (last && last.nodeType === Node.TEXT_NODE) last.appendData(text);
        else parent.append(text);
        return;
    }
    let plain = '';
    for (const c of text) {
        if (!hidden.test(c)) {
            plain += c;
            continue;
        }
        if (plain) parent.append(plain);
        plain = '';
        const mark = document.createElement('span');
        mark.className = 'named';
        mark.textContent = 'U+' + c.codePointAt(0).toString(16).toUpperCase().padStart(4, '0');
        parent.append(mark);
    }
    if (plain) parent.append(plain);
}

/** Who gave which part of a text: {end, run}, by offset; a run is {source, seam}. */
export class Runs {
    constructor() {
        this.all = [];
        this.length = 0;
    }

    add(n, run) {
        const last = this.all.at(-1);
        this.length += n;
        if (last && last.run === run) last.end = this.length;
        else if (n > 0) this.all.push({end: this.length, run});
    }

    /** Calls f(from, to, run) for each run's part of [from, to). */
    each(from, to, f) {
        for (const {end, run} of this.all) {
            if (end <= from) continue;
            f(from, Math.min(end, to), run);
            from = end;
            if (from >= to) return;
        }
    }
}

/**
 * One run's text in an element of its source, the last one where it can; where the source changes, with a
 * seam. `owner` and `offset` tell where that is, because a tail is built again.
 */
export function putRun(parent, text, run, owner, offset) {
    if (run.seam && (!run.owner || (run.owner === owner && run.offset === offset))) {
        run.owner = owner;
        run.offset = offset;
        const seam = document.createElement('span');
        seam.className = 'seam';
        seam.title = run.source === 'device' ? 'From here on, this device' : 'From here on, the cloud';
        parent.append(seam);
    }
    let piece = parent.lastChild;
    if (!piece || piece.run !== run) {
        piece = document.createElement('span');
        piece.className = run.source;
        piece.run = run;
        parent.append(piece);
    }
    putSafe(piece, text);
}

function runLength(text, at, end) {
    let n = 1;
    while (at + n < end && text[at + n] === text[at]) n++;
    return n;
}

function space(c) {
    return c === undefined || c === ' ' || c === '\n' || c === '\t';
}

/** The end of a span that `n` marks at `at` open, or -1. */
function closer(text, at, end, n) {
    const mark = text[at];
    for (let i = at + n; i < end; i++) {
        const c = text[i];
        if (c === '\\') i++;
        else if (c === '`') {
            const ticks = runLength(text, i, end), close = codeEnd(text, i + ticks, end, ticks);
            i = (close < 0 ? i + ticks : close + ticks) - 1;
        } else if (c === mark) {
            const m = runLength(text, i, end);
            const inside = mark === '_' && word.test(text[i + m] ?? '');
            if (m === n && !space(text[i - 1]) && !inside && i > at + n) return i;
            i += m - 1;
        }
    }
    return -1;
}

function codeEnd(text, from, end, ticks) {
    for (let i = from; i < end; i++) {
        if (text[i] !== '`') continue;
        const n = runLength(text, i, end);
        if (n === ticks) return i;
        i += n - 1;
    }
    return -1;
}

/** The partner of the '(' at `at`, or -1. */
function parenEnd(text, at, end) {
    for (let i = at, depth = 0; i < end && i - at < LINK_MAX; i++) {
        if (text[i] === '\n') return -1;
        if (text[i] === '(') depth++;
        else if (text[i] === ')' && --depth === 0) return i;
    }
    return -1;
}

/** [text](address) at `at`: {inner, innerEnd, href, end}; 0: it may become one; null: it is none. */
function linkAt(text, at, end) {
    let depth = 0, i = at;
    for (; i < end && i - at < LINK_MAX; i++) {
        if (text[i] === '\\') i++;
        else if (text[i] === '[') depth++;
        else if (text[i] === ']' && --depth === 0) break;
    }
    if (i >= end) return 0;
    if (text[i] !== ']') return null;
    if (i + 1 >= end) return 0;
    if (text[i + 1] !== '(') return null;
    const stop = parenEnd(text, i + 1, end);
    if (stop < 0) return end - i < LINK_MAX ? 0 : null;
    const href = text.slice(i + 2, stop).trim().split(/\s/)[0].replace(/^<|>$/g, '');
    return {inner: at + 1, innerEnd: i, href, end: stop + 1};
}

/** Only what a person can be sent to: no javascript:, no data:, no path of this server. */
function safeUrl(href) {
    try {
        const url = new URL(href);
        return ['http:', 'https:', 'mailto:'].includes(url.protocol) ? url : null;
    } catch {
        return null;
    }
}

const kinds = {'**': 'strong', __: 'strong', '*': 'em', _: 'em', '~~': 'del'};

/** Tokens of text[from, end): {kind, s, e, ...}; `open`: more text may change it. */
function scan(text, from, end) {
    const out = [], none = new Set(); // marks without a partner from here to the end
    const partner = (key, find) => {
        const at = none.has(key) ? -1 : find();
        if (at < 0) none.add(key);
        return at;
    };
    let plain = from;
    const put = (token, s, e) => {
        if (s > plain) out.push({kind: 'text', s: plain, e: s});
        if (token) out.push({...token, s, e});
        plain = e;
    };
    for (let i = from; i < end;) {
        const c = text[i];
        if (c === '\\' && i + 1 < end && punctuation.test(text[i + 1])) {
            put(null, i, i + 1);
            i += 2;
        } else if (c === '\\' && i + 1 === end) {
            put({kind: 'text', open: true}, i, end);
            i = end;
        } else if (c === '\n') {
            put({kind: 'br'}, i, i + 1);
            i++;
        } else if (c === '`') {
            const n = runLength(text, i, end), close = partner('`' + n, () => codeEnd(text, i + n, end, n));
            if (close < 0) put({kind: 'text', open: true}, i, i + n);
            else put({kind: 'code', inner: i + n, innerEnd: close, open: close + n === end}, i, close + n);
            i = close < 0 ? i + n : close + n;
        } else if (c === '*' || c === '_' || c === '~') {
            const n = runLength(text, i, end);
            const opens = !space(text[i + n]) && !(c === '_' && i > from && word.test(text[i - 1]));
            const kind = n === 3 && c !== '~' ? 'both' : kinds[text.slice(i, i + n)];
            const close = kind && opens ? partner(c + n, () => closer(text, i, end, n)) : -1;
            const last = i + n === end;
            if (close < 0) put({kind: 'text', open: (kind && opens) || last}, i, i + n);
            else put({kind, inner: i + n, innerEnd: close, open: close + n === end}, i, close + n);
            i = close < 0 ? i + n : close + n;
        } else if (c === '[' || (c === '!' && text[i + 1] === '[')) {
            const at = c === '!' ? i + 1 : i, link = linkAt(text, at, end);
            if (!link) put({kind: 'text', open: link === 0}, i, at + 1);
            else put({kind: 'link', ...link}, i, link.end);
            i = link ? link.end : at + 1;
        } else if (c === 'h' && (i === from || !word.test(text[i - 1])) && /^https?:\/\//.test(text.slice(i, i + 8))) {
            let e = i;
            while (e < end && !/[\s<>"`]/.test(text[e])) e++;
            const open = e === end;
            while (/[.,;:!?)\]'*_]/.test(text[e - 1])) e--;
            put({kind: 'address', open}, i, e);
            i = e;
        } else {
            i++;
        }
    }
    put(null, end, end);
    return out;
}

export class Inline {
    /** Text comes by append; its nodes go into `parent`. */
    constructor(parent) {
        this.parent = parent;
        this.text = '';
        this.src = new Runs();
        this.done = 0;      // characters whose nodes stay
        this.placed = 0;    // of them in this.parent
        this.tail = null;   // an element that does not stay
    }

    append(text, run) {
        this.text += text;
        this.src.add(text.length, run);
    }

    /** Bring the nodes up to date; `final`: nothing follows. */
    render(final = false) {
        this.tail?.remove();
        this.tail = null;
        if (this.done === this.text.length) return;
        const tokens = scan(this.text, this.done, this.text.length);
        let open = final ? tokens.length : this.certain(tokens);
        // A partner that is too far away is none: one look at the tail in each frame, however long the text.
        while (open < tokens.length && this.text.length - tokens[open].s > TAIL_MAX) open++;
        for (const token of tokens.slice(0, open)) {
            this.put(this.room(), token, 0);
            this.done = token.e;
        }
        this.putTail(tokens.slice(open));
    }

    /** How many tokens stay. A last word may grow into an address. */
    certain(tokens) {
        const open = tokens.findIndex((t) => t.open);
        if (open >= 0) return open;
        const last = tokens.at(-1);
        return last && last.kind === 'text' && /(^|\W)(h|ht|htt|https?|https?:\/?)$/.test(this.text.slice(last.s, last.e)) ?
            tokens.length - 1 : tokens.length;
    }

    putTail(tokens) {
        if (tokens.length === 0) return;
        this.tail = document.createElement('span');
        this.parent.append(this.tail);
        for (const token of tokens) this.put(this.tail, token, 0);
    }

    /** May it go on in a block of its own? A cell may not. */
    get parts() {
        return !/^T[DH]$/.test(this.parent.tagName);
    }

    /** A block that has become long goes on in a new one. */
    room() {
        if (this.done - this.placed < BLOCK_MAX || !this.parts) return this.parent;
        const next = document.createElement(this.parent.tagName);
        next.className = 'cont';
        next.dir = 'auto';
        this.parent.after(next);
        this.parent = next;
        this.placed = this.done;
        return next;
    }

    putText(parent, from, to) {
        this.src.each(from, to, (a, b, run) => putRun(parent, this.text.slice(a, b), run, this, a));
    }

    putInner(parent, token, depth) {
        if (depth >= DEPTH_MAX) {
            this.putText(parent, token.inner, token.innerEnd);
            return;
        }
        // The scan of an inner text begins at its start, so that its marks do not see the outer ones.
        for (const inner of scan(this.text.slice(0, token.innerEnd), token.inner, token.innerEnd)) this.put(parent, inner, depth + 1);
    }

    put(parent, token, depth) {
        if (token.kind === 'text') {
            this.putLong(parent, token, depth);
        } else if (token.kind === 'br') {
            parent.append(document.createElement('br'));
        } else if (token.kind === 'code') {
            const code = document.createElement('code');
            this.putText(code, token.inner, token.innerEnd);
            parent.append(code);
        } else if (token.kind === 'link') {
            this.putLink(parent, token, safeUrl(token.href), depth);
        } else if (token.kind === 'address') {
            this.putLink(parent, {...token, inner: token.s, innerEnd: token.e}, safeUrl(this.text.slice(token.s, token.e)), DEPTH_MAX);
        } else if (token.kind === 'both') {
            const strong = document.createElement('strong'), em = document.createElement('em');
            strong.append(em);
            parent.append(strong);
            this.putInner(em, token, depth);
        } else {
            const node = document.createElement(token.kind);
            parent.append(node);
            this.putInner(node, token, depth);
        }
    }

    /** Plain text; at the top, in blocks of bounded length. */
    putLong(parent, token, depth) {
        let from = token.s;
        while (depth === 0 && parent === this.parent && this.parts && token.e - this.placed > BLOCK_MAX + 200 && from < token.e) {
            let cut = Math.min(token.e, Math.max(from, this.placed + BLOCK_MAX));
            while (cut < token.e && this.text[cut] !== ' ' && cut - from < BLOCK_MAX + 200) cut++;
            if (cut >= token.e) break;
            this.putText(parent, from, cut);
            from = this.done = cut;
            parent = this.room();
        }
        this.putText(parent, from, token.e);
    }

    putLink(parent, token, url, depth) {
        if (!url) {
            this.putInner(parent, token, depth);
            return;
        }
        const a = document.createElement('a');
        a.href = url.href;
        a.target = '_blank';
        a.rel = 'noopener noreferrer nofollow';
        a.title = url.href;
        this.putInner(a, token, depth);
        parent.append(a);
        // A text that names another place than the link leads to is how people are deceived.
        const shown = this.text.slice(token.inner, token.innerEnd);
        if (!url.host || shown.includes(url.host)) return;
        const host = document.createElement('span');
        host.className = 'host';
        host.textContent = url.host;
        parent.append(host);
    }
}
