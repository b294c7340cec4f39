// dom.js: elements, icons, what a screen reader is told, and the preferences that this browser keeps.

export const $ = (id) => document.getElementById(id);

/** An element: el('p', {class: 'x', dir: 'auto', onclick: f}, 'text', child, ...). Text stays text. */
export function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
        if (value === null || value === undefined || value === false) continue;
        if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
        else node.setAttribute(name, value === true ? '' : value);
    }
    node.append(...children.filter((c) => c !== null && c !== undefined));
    return node;
}

const SHOWN_MS = 1500;

const paths = {
    menu: 'M4 7h16M4 12h16M4 17h16',
    close: 'M6 6l12 12M18 6L6 18',
    plus: 'M12 5v14M5 12h14',
    up: 'M12 19V5M6 11l6-6 6 6',
    down: 'M12 5v14M6 13l6 6 6-6',
    stop: 'M7 7h10v10H7z',
    clip: 'M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.4 3.4 0 0 1 4.8 4.8l-8.4 8.4a1.7 1.7 0 0 1-2.4-2.4L14.5 7.300',
    gear: 'M12 15.200a3.200 3.200 0 1 0 0-6.400 3.200 3.200 0 0 0 0 6.400zM12 2.800v3M12 18.200v3M2.800 12h3M18.200 12h3M5.500 5.500l2.100 2.100M16.400 16.400l2.100 2.100M18.500 5.500l-2.100 2.100M7.600 16.400l-2.100 2.100',
    tint: 'M12 3.500s6 6.200 6 10.500a6 6 0 0 1-12 0c0-4.300 6-10.500 6-10.500zM12 20V9',
    download: 'M12 4v11M7 11l5 5 5-5M5 20h14',
    pencil: 'M4 20l1-4L16.500 4.500l3 3L8 19zM14 7l3 3',
    trash: 'M5 7h14M10 7V4.500h4V7M7 7l1 13h8l1-13M10.500 11v5.500M13.500 11v5.500',
    copy: 'M9 9h10v11H9zM15 9V4H5v11h4',
    again: 'M19 12a7 7 0 1 1-2.200-5.100M19 3.500V8h-4.500',
    done: 'M5 12.500l4.500 4.500L19 7.500',
    lock: 'M7 11V8a5 5 0 0 1 10 0v3M5.500 11h13v9h-13z',
    page: 'M6 3h8l4 4v14H6zM14 3v4h4M9 12h6M9 16h6',
    chevron: 'M8 10l4 4 4-4',
};

export function icon(name) {
    const ns = 'http://www.w3.org/2000/svg';
    const svg = document.createElementNS(ns, 'svg');
    svg.setAttribute('viewBox', '0 0 24 24');
    svg.setAttribute('aria-hidden', 'true');
    const path = document.createElementNS(ns, 'path');
    path.setAttribute('d', paths[name]);
    svg.append(path);
    return svg;
}

/** Give each element with data-icon its picture. */
export function dress(root) {
    for (const node of root.querySelectorAll('[data-icon]')) node.prepend(icon(node.dataset.icon));
}

export function button(name, label, onclick, text = null) {
    const attributes = {type: 'button', class: text ? 'small' : 'icon', onclick};
    if (!text) Object.assign(attributes, {'aria-label': label, title: label});
    return el('button', attributes, icon(name), text);
}

/** Tell a screen reader, once. */
export function say(text) {
    $('say').textContent = text;
}

export const count = (n) => Number(n).toLocaleString('en');
export const plural = (n, one, many = one + 's') => `${count(n)} ${n === 1 ? one : many}`;
export const bytes = (n) => n < 1000 ? `${n} bytes` : n < 1e6 ? `${(n / 1e3).toFixed(1)} kB` : `${(n / 1e6).toFixed(1)} MB`;
export const ms = (n) => n >= 10000 ? `${(n / 1000).toFixed(1)} s` : `${count(Math.round(n))} ms`;

/** Text that JSON and the device's server take: no halves of characters, no zeros. */
export const clean = (text) => (text.toWellFormed?.() ?? text).replaceAll('\0', '\ufffd');

/** The beginning of a text: whole characters, at most n of them, and whole words where there are some. */
export function cut(text, n) {
    const all = Array.from(text);
    if (all.length <= n) return text;
    const head = all.slice(0, n - 1).join('');
    return (all[n - 1] === ' ' ? head : head.replace(/(\S)\s+\S*$/, '$1')) + '\u2026';
}

export const fresh = (prefix) => {
    const random = crypto.getRandomValues(new Uint8Array(12));
    return prefix + Array.from(random, (b) => b.toString(16).padStart(2, '0')).join('');
};

// A browser may forbid storage; then preferences last as long as the page.
const preferences = {theme: 'auto', tint: 'on', mode: 'auto', pace: 'smooth', temperature: 0, tokensMax: 1024, system: ''};
const KEY = 'pdd-taste';
try {
    Object.assign(preferences, JSON.parse(localStorage.getItem(KEY) ?? '{}'));
} catch {}

export const remember = new Proxy(preferences, {
    set(target, name, value) {
        target[name] = value;
        try {
            localStorage.setItem(KEY, JSON.stringify(target));
        } catch {}
        return true;
    },
});

/** `at`: the button, which shows for a moment that it is done, or not. */
export async function copyText(text, at) {
    let shown = 'done';
    try {
        await navigator.clipboard.writeText(text);
        say('Copied');
    } catch {
        shown = 'close';
        say('This browser does not allow copying');
    }
    at.replaceChildren(icon(shown));
    setTimeout(() => at.replaceChildren(icon('copy')), SHOWN_MS);
}

/** Offer `text` as a file. */
export function saveAs(name, type, text) {
    const url = URL.createObjectURL(new Blob([text], {type}));
    el('a', {href: url, download: name}).click();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
}
