// markdown.js: Markdown that streams in, as nodes: paragraphs, headings, lists, quotes, code, tables, rules.
//
// A line is taken as soon as its beginning says what it is, and its text goes on to the block that is open. What
// has been shown stays: the work for a new token does not grow with the answer.
import {Inline, Runs, putRun} from './inline.js';
import {button, copyText} from './dom.js';

const HOLD_MAX = 300;      // characters of a line that may still become several things
const ROW_MAX = 20000;     // of a table's row
const DEPTH_MAX = 8;       // lists and quotes in each other
const LINES_MAX = 60;      // of code in one element
const ROWS_MAX = 100;      // of a table in one element
const GROUP_MAX = 24;      // blocks of a group, of which the browser skips those that are far from the view

const bullet = /^( *)([-*+]|\d{1,9}[.)])(?: +|$)/;
const rule = /^ {0,3}([-*_])(?: *\1){2,} *$/;
const fence = /^ {0,3}(`{3,}|~{3,})([^`]*)$/;
const delimiter = /^\|?(?: *:?-+:? *\|)+ *(?::?-+:?)?$/;   // of a line without blanks around it: they would be tried in pairs

/** A code block: text that grows by lines. */
class Code {
    constructor(box, fenced, indent, language) {
        this.fence = fenced;
        this.indent = indent;
        this.raw = '';
        this.lines = 0;
        const head = document.createElement('div'), name = document.createElement('span');
        head.className = 'code-head';
        name.textContent = language.slice(0, 40);
        head.append(name, button('copy', 'Copy the code', (e) => copyText(this.raw, e.currentTarget)));
        const pre = document.createElement('pre');
        pre.tabIndex = 0;
        this.code = document.createElement('code');
        this.code.dir = 'ltr';
        pre.append(this.code);
        box.className = 'code';
        box.append(head, pre);
    }

    append(text, run) {
        if (!this.part || this.lines >= LINES_MAX) {
            this.part = document.createElement('div');
            this.code.append(this.part);
            this.lines = 0;
        }
        putRun(this.part, text, run, this, this.raw.length);
        this.raw += text;
    }

    endLine(run) {
        if (!this.part) this.append('', run);
        this.lines++;
        putRun(this.part, '\n', run, this, this.raw.length);
        this.raw += '\n';
    }

    render() {}
}

export class Markdown {
    constructor(root) {
        this.root = root;
        this.group = null;         // element of the latest blocks
        this.buffer = '';          // text that no block has taken
        this.src = new Runs();     // of all text
        this.at = 0;               // offset of the buffer in it
        this.stack = [];           // {kind: 'quote' | 'item', node, indent, list}
        this.leaf = null;          // the block that takes the line's text
        this.inLine = false;       // its beginning is decided
        this.table = null;
        this.held = null;          // a line that may be the head of a table
    }

    push(text, source) {
        text = text.replaceAll('\r', '');
        if (!text) return;
        if (!this.run || this.run.source !== source) this.run = {source, seam: Boolean(this.run)};
        this.buffer += text;
        this.src.add(text.length, this.run);
    }

    /** Bring the nodes up to date; `final`: the answer is complete. */
    render(final = false) {
        while (this.buffer.length > 0 && this.step(final));
        if (final) {
            this.flushHeld();
            this.endLeaf();
        } else if (this.leaf) {
            this.leaf.render();
        }
    }

    /** One line, or what there is of it. False: it has to grow. */
    step(final) {
        const nl = this.buffer.indexOf('\n');
        const line = nl < 0 ? this.buffer : this.buffer.slice(0, nl);
        const whole = nl >= 0 || final;
        if (!this.inLine) {
            if (!whole && this.undecided(line)) return false;
            this.beginLine(line, whole);
        } else {
            this.take(line.length);
        }
        if (nl >= 0 && this.buffer[0] === '\n') {
            if (this.leaf instanceof Code && this.inLine) this.leaf.endLine(this.run);
            this.skip(1);
            this.inLine = false;
        }
        return nl >= 0;
    }

    /** May the beginning of a line still become something else? */
    undecided(line) {
        const text = line.replace(/^(?: {0,3}> ?| *(?:[-*+]|\d{1,9}[.)]) +)+/, '').trimStart();
        if (text[0] === '|' || (this.held && /^[-:]/.test(text))) return line.length < ROW_MAX;
        if (line.length > HOLD_MAX) return false;
        if (this.leaf instanceof Code) return /^ {0,3}(`*|~*) *$/.test(line);
        return text === '' || /^(#{1,6}|[-*_+ ]+|\d{1,9}[.)]?|`{1,2}|~{1,2})$/.test(text) || /^(```|~~~)/.test(text) || /^(\d{1,9}[.)]|[-*+]) *$/.test(text);
    }

    /** Give the next n characters to the leaf. */
    take(n) {
        const text = this.buffer.slice(0, n);
        const leaf = this.leaf;
        if (leaf) this.src.each(this.at, this.at + n, (a, b, run) => leaf.append(text.slice(a - this.at, b - this.at), run));
        this.skip(n);
    }

    skip(n) {
        this.buffer = this.buffer.slice(n);
        this.at += n;
    }

    get box() {
        return this.stack.at(-1)?.node ?? this.group ?? this.root;
    }

    newGroup() {
        this.group = document.createElement('div');
        this.group.className = 'group';
        this.root.append(this.group);
    }

    endLeaf() {
        if (this.leaf) this.leaf.render(true);
        this.leaf = null;
    }

    closeTo(depth) {
        if (this.stack.length <= depth) return;
        this.endLeaf();
        this.endTable();
        this.stack.length = depth;
    }

    open(tag) {
        this.endLeaf();
        this.endTable();
        if (this.stack.length === 0 && !(this.group?.childElementCount < GROUP_MAX)) this.newGroup();
        const node = document.createElement(tag);
        node.dir = 'auto';
        this.box.append(node);
        return node;
    }

    beginLine(line, whole) {
        if (this.leaf instanceof Code) {
            this.codeLine(line);
            return;
        }
        let text = this.enter(line);
        if (text.trim() === '' && whole) {
            this.blank(line.length);
            return;
        }
        const used = line.length - text.length;
        if (whole && this.tableLine(text, used)) return;
        this.flushHeld();
        this.skip(used);
        const heading = /^(#{1,6}) +/.exec(text), opens = whole ? fence.exec(text) : null;
        if (opens) {
            const box = this.open('div');
            this.leaf = new Code(box, opens[1], used, opens[2].trim());
            this.skip(text.length);
            return;
        }
        if (whole && rule.test(text)) {
            this.open('hr');
            this.skip(text.length);
            return;
        }
        if (heading) {
            this.leaf = new Inline(this.open('h' + Math.min(6, heading[1].length + 2)));
            this.leaf.heading = true;
            this.skip(heading[0].length);
            text = text.slice(heading[0].length);
        } else if (!this.leaf || this.leaf.heading) {
            this.leaf = new Inline(this.open('p'));
        } else {
            this.leaf.append('\n', this.run);
        }
        this.inLine = true;
        this.take(text.length);
    }

    codeLine(line) {
        const end = /^[ >]*(`{3,}|~{3,}) *$/.exec(line);
        if (end && end[1].startsWith(this.leaf.fence)) {
            this.skip(line.length);
            this.leaf = null;
            return;
        }
        const inner = Math.min(this.leaf.indent, /^[ >]*/.exec(line)[0].length);
        this.skip(inner);
        this.inLine = true;
        this.take(line.length - inner);
    }

    blank(n) {
        this.endLeaf();
        this.endTable();
        this.flushHeld();
        this.skip(n);
        const quote = this.stack.findIndex((c) => c.kind === 'quote');
        if (quote >= 0 && !this.quoted) this.closeTo(quote);
    }

    /** Quotes and list items that the line goes on with or opens. Returns what is left of it. */
    enter(line) {
        let text = line, depth = 0;
        this.quoted = false;
        for (; depth < this.stack.length; depth++) {
            const c = this.stack[depth];
            const indent = text.length - text.trimStart().length;
            if (c.kind === 'quote') {
                if (!/^ {0,3}>/.test(text)) break;
                text = text.replace(/^ {0,3}> ?/, '');
                this.quoted = true;
            } else if (text.trim() !== '' && indent < c.indent) {
                break;
            } else {
                text = text.slice(Math.min(indent, c.indent));
            }
        }
        if (text.trim() === '') return text;
        const lazy = depth < this.stack.length && this.leaf && !this.leaf.heading && !this.starts(text);
        if (lazy) return text.trimStart();
        this.closeTo(depth);
        while (this.stack.length < DEPTH_MAX && this.starts(text)) {
            const next = this.openContainer(text);
            if (next === null) break;
            text = next;
        }
        return this.leaf ? text.trimStart() : text.replace(/^ {1,3}(?=\S)/, '');
    }

    starts(text) {
        return /^ {0,3}>/.test(text) || (bullet.test(text) && !rule.test(text));
    }

    openContainer(text) {
        if (/^ {0,3}>/.test(text)) {
            const node = this.open('blockquote');
            this.stack.push({kind: 'quote', node});
            this.quoted = true;
            return text.replace(/^ {0,3}> ?/, '');
        }
        const found = bullet.exec(text);
        if (!found) return null;
        const ordered = /\d/.test(found[2]), tag = ordered ? 'OL' : 'UL';
        let list = this.box.lastElementChild;
        this.endLeaf();
        if (!list || list.tagName !== tag || list.dataset.mark !== found[2].at(-1)) {
            list = this.open(tag.toLowerCase());
            list.dataset.mark = found[2].at(-1);
            if (ordered && parseInt(found[2], 10) !== 1) list.start = parseInt(found[2], 10);
        }
        const node = document.createElement('li');
        node.dir = 'auto';
        list.append(node);
        this.stack.push({kind: 'item', node, indent: Math.max(2, found[0].trimEnd().length + 1)});
        return text.slice(found[0].length);
    }

    // ---- tables ----

    /** Takes the line if it belongs to a table, or may. */
    tableLine(text, used) {
        const row = text.trimStart()[0] === '|';
        if (this.table && row) {
            this.addRow(this.cells(text, used), 'td');
        } else if (this.held && delimiter.test(text.trim())) {
            this.openTable(text);
        } else {
            this.flushHeld();
            if (!row || this.leaf) return false;
            this.held = this.cells(text, used);
        }
        this.skip(used + text.length);
        return true;
    }

    /** The cells of a row as [offset, text] of all text. */
    cells(text, used) {
        const out = [], start = this.at + used;
        let from = text.indexOf('|') + 1;
        for (let i = from; i <= text.length; i++) {
            if (text[i] === '\\') i++;
            else if (i === text.length || text[i] === '|') {
                if (i < text.length || text.slice(from, i).trim()) out.push([start + from, text.slice(from, i)]);
                from = i + 1;
            }
        }
        return {cells: out, line: text, start};
    }

    openTable(line) {
        const head = this.held;
        this.held = null;
        const box = this.open('div');
        box.className = 'table';
        box.tabIndex = 0;
        this.table = {box, rows: 0, align: line.split('|').filter((c) => c.trim()).map((c) => {
            const t = c.trim();
            return t.endsWith(':') ? (t.startsWith(':') ? 'center' : 'end') : '';
        })};
        this.newBody();
        this.addRow(head, 'th');
    }

    newBody() {
        const table = document.createElement('table');
        this.table.box.append(table);
        this.table.body = table;
        this.table.rows = 0;
    }

    addRow(row, tag) {
        if (++this.table.rows > ROWS_MAX) this.newBody();
        const tr = document.createElement('tr');
        for (const [i, [offset, text]] of row.cells.entries()) {
            const cell = document.createElement(tag);
            cell.dir = 'auto';
            if (tag === 'th') cell.scope = 'col';
            if (this.table.align[i]) cell.className = this.table.align[i];
            this.put(cell, offset, text.trimEnd());
            tr.append(cell);
        }
        this.table.body.append(tr);
    }

    put(node, offset, text) {
        const inline = new Inline(node), from = text.length - text.trimStart().length;
        this.src.each(offset + from, offset + text.length, (a, b, run) => inline.append(text.slice(a - offset, b - offset), run));
        inline.render(true);
    }

    endTable() {
        this.table = null;
    }

    /** It was no table. */
    flushHeld() {
        const held = this.held;
        if (!held) return;
        this.held = null;
        this.put(this.open('p'), held.start, held.line);
    }
}
