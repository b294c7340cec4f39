// talks.js: conversations, as the device keeps them; without its state folder, as long as this tab lives.
import {ApiError, json} from './api.js';

const HERE = 'pdd-talks';
let here = null; // conversations by id, where the device keeps none

function loadHere() {
    try {
        here = JSON.parse(sessionStorage.getItem(HERE) ?? 'null') ?? {};
    } catch {
        here = {};
    }
}

function saveHere() {
    try {
        sessionStorage.setItem(HERE, JSON.stringify(here));
    } catch {} // a full or forbidden storage: as long as the page lives
}

/** Does the device keep conversations? */
export const kept = () => here === null;

const notKept = (e) => e instanceof ApiError && (e.status === 404 || e.status === 501 || e.status === 500);

export async function list() {
    if (here === null) {
        try {
            return (await json('GET', '/v1/conversations')).data;
        } catch (e) {
            if (!notKept(e)) throw e;
            loadHere();
        }
    }
    return Object.values(here).sort((a, b) => b.updated - a.updated);
}

export async function load(id) {
    if (here !== null) return here[id] ?? null;
    try {
        return await json('GET', '/v1/conversations/' + id);
    } catch (e) {
        if (e.status === 404) return null;
        throw e;
    }
}

export async function save(talk) {
    talk.updated = Math.floor(Date.now() / 1000);
    if (here === null) {
        try {
            await json('PUT', '/v1/conversations/' + talk.id, talk);
            return;
        } catch (e) {
            if (!notKept(e)) throw e;
            loadHere();
        }
    }
    here[talk.id] = talk;
    saveHere();
}

export async function drop(id) {
    if (here !== null) {
        delete here[id];
        saveHere();
        return;
    }
    try {
        await json('DELETE', '/v1/conversations/' + id);
    } catch (e) {
        if (e.status !== 404) throw e;
    }
}

/** What a question is as a message: its documents first, each followed by an empty line. */
export function content(message) {
    return [...(message.documents ?? []).map((d) => d.text.trimEnd()), message.text].join('\n\n');
}

const join = (parts) => (parts ?? []).map((p) => p[1]).join('');

export const textOf = (answer) => join(answer.parts);

/** The request that message `i`, an answer, is the response to. Models are not told what they thought before. */
export function requestOf(talk, i) {
    const asked = talk.messages[i].asked;
    const messages = asked.system ? [{role: 'system', content: asked.system}] : [];
    for (const m of talk.messages.slice(0, i)) {
        if (m.role === 'user') messages.push({role: 'user', content: content(m)});
        else if (textOf(m)) messages.push({role: 'assistant', content: textOf(m)});
    }
    return {messages, temperature: asked.temperature, max_tokens: asked.tokensMax, pdd: {mode: asked.mode, pace: asked.pace, conversation: talk.id}};
}

export function toMarkdown(talk) {
    const out = [`# ${talk.title}`, ''];
    for (const m of talk.messages) {
        if (m.role === 'user') {
            for (const d of m.documents ?? []) out.push(`*Document: ${d.name}*`, '');
            out.push(m.text.replace(/^/gm, '> '), '');
        } else {
            if (m.thoughts) out.push('<details><summary>Thoughts</summary>', '', join(m.thoughts), '', '</details>', '');
            out.push(textOf(m), '');
            const r = m.report;
            if (r) out.push(`<sub>${r.tokens} tokens, ${r.cloud_tokens} of them from the cloud; first after ${Math.round(r.ttft_ms)} ms</sub>`, '');
        }
    }
    return out.join('\n');
}
