// app.js: the page of `pdd device`: the list of conversations, the one that is shown, the question box.
import {Ask, live} from './ask.js';
import {ApiError, json, setToken} from './api.js';
import {AnswerView, QuestionView} from './thread.js';
import * as talks from './talks.js';
import {$, button, bytes, clean, cut, dress, el, fresh, icon, plural, remember, saveAs, say} from './dom.js';

const PASTE_MAX = 2000;          // characters; a longer paste becomes a document
const DOCUMENT_MAX = 3 << 20;    // bytes; the device keeps 4 MiB of a conversation
const NEAR_END = 80;             // pixels from the end within which the view follows the answer
const TITLE_MAX = 45;            // characters
const TOUCH_MS = 600;            // a scroll that soon after a touch, a wheel or a key is the reader's
const STATUS_MS = 5000;

let status = null;      // of /v1/status; null: not known yet
let reachable = true;   // is the device's server?
let listed = [];        // {id, title, updated}
let talk = null;        // the conversation that is shown
let views = [];
let documents = [];     // {name, text, tokens} for the next question
let cloudLost = null;   // {why, alone: does the device go on}

// ---- what is shown around the conversation ----

function applyPreferences() {
    document.documentElement.dataset.theme = remember.theme;
    document.documentElement.dataset.tint = remember.tint;
    $('tint').setAttribute('aria-pressed', String(remember.tint === 'on'));
}

function showStatus() {
    if (!status) return;
    const local = status.local_only;
    $('local-only').hidden = !local;
    $('mode-box').hidden = local || !status.model; // no choice
    const model = status.model?.id ?? 'no model on this device';
    $('where').replaceChildren(
        el('p', {class: 'row'}, el('span', {class: 'dot device', 'aria-hidden': 'true'}), el('bdi', {title: model}, model)),
        local ? el('p', {class: 'row'}, icon('lock'), 'Local only: nothing leaves this device') :
            el('p', {class: 'row'}, el('span', {class: 'dot cloud', 'aria-hidden': 'true'}), el('bdi', {title: status.cloud}, new URL(status.cloud).host)),
        ...(status.ask_before_sending ? [el('p', {class: 'row note'}, 'You are asked before anything is sent')] : []),
        ...(status.emulated ? [el('p', {class: 'row note'}, status.emulated)] : []));
}

/** What the idle device reads, so that the next question finds it ready. */
function showReading() {
    const reading = status?.reading;
    $('reading').hidden = !reading;
    if (reading) $('reading').firstElementChild.textContent = `Reads on while idle, ${Math.floor(100 * reading[0] / Math.max(1, reading[1]))} %`;
}

function showBanner() {
    const banner = $('banner');
    let words = null, detail = '', page = null;
    if (!reachable) words = 'This device\'s server does not answer. The page goes on as soon as it does.';
    else if (cloudLost) {
        page = /the network asks for a log-in page: (https?:\/\/\S+)/.exec(cloudLost.why)?.[1];
        words = page ? 'The network asks for a log-in page.' : 'The cloud is away.';
        if (cloudLost.alone) words += ' This device goes on alone.';
        detail = cloudLost.why;
    }
    const told = words ? words + (page ?? '') : '';
    if (told === (banner.dataset.words ?? '')) return;
    banner.dataset.words = told;
    banner.hidden = !words;
    banner.classList.toggle('severe', !reachable);
    banner.replaceChildren(el('span', {class: 'dot', 'aria-hidden': 'true'}), el('span', {class: 'words', title: detail}, words ?? '',
        page ? el('a', {href: page, target: '_blank', rel: 'noopener noreferrer'}, page) : ''),
        reachable ? button('close', 'Close this notice', () => noteCloud(null)) : '');
    if (words) say(words);
}

function noteCloud(lost) {
    cloudLost = lost;
    showBanner();
}

async function watchDevice() {
    try {
        status = await json('GET', '/v1/status');
        const back = !reachable;
        reachable = true;
        showStatus();
        showReading();
        if (back) await open();
    } catch (e) {
        if (e.status === 401) await askToken();
        else reachable = !(e instanceof ApiError && e.status === 0);
    }
    showBanner();
}

function askToken() {
    const dialog = $('dialog-token');
    if (dialog.open) return Promise.resolve();
    dialog.showModal();
    return new Promise((resolve) => dialog.addEventListener('close', () => {
        setToken($('token').value.trim());
        resolve(start());
    }, {once: true}));
}

// ---- the list ----

const running = (id) => [...live.values()].some((a) => a.body.pdd.conversation === id);

async function loadList() {
    listed = await talks.list();
    showList();
}

/** The list anew, with the focus where it was. A name that is being typed is left alone. */
function showList() {
    const list = $('talks'), had = list.contains(document.activeElement) ? document.activeElement : null;
    if (list.querySelector('input')) return;
    const id = had?.closest('li').dataset.id, place = had ? [...had.parentNode.children].indexOf(had) : 0;
    const items = listed.map((t) => {
        const current = t.id === talk?.id;
        const open = el('button', {type: 'button', class: 'talk', 'aria-current': current ? 'page' : null, onclick: () => go(t.id)},
            running(t.id) ? el('span', {class: 'dot live', role: 'img', 'aria-label': 'being answered'}) : null, el('bdi', {}, t.title || 'Conversation'));
        return el('li', {class: current ? 'current' : '', 'data-id': t.id}, open,
            button('pencil', `Rename ${t.title}`, (e) => rename(t, e.currentTarget.closest('li'))), button('trash', `Delete ${t.title}`, () => remove(t)));
    });
    list.replaceChildren(...items);
    if (had) (items.find((li) => li.dataset.id === id)?.children[place] ?? $('new')).focus();
    const note = $('side-note');
    note.hidden = talks.kept();
    note.textContent = 'Kept in this tab only: the device keeps nothing after it stops.';
}

function rename(t, li) {
    const input = el('input', {type: 'text', dir: 'auto', 'aria-label': 'Name of the conversation'});
    input.value = t.title;
    let done = false;
    const finish = async (keep) => {
        if (done) return;
        done = true;
        input.remove();
        const title = cut(clean(input.value.trim()), TITLE_MAX);
        if (keep && title && title !== t.title) {
            const whole = t.id === talk?.id ? talk : await talks.load(t.id);
            if (whole) {
                whole.title = title;
                whole.named = true;
                await talks.save(whole);
            }
            if (t.id === talk?.id) showTitle();
        }
        await loadList();
        [...$('talks').children].find((item) => item.dataset.id === t.id)?.firstElementChild.focus();
    };
    input.addEventListener('keydown', (e) => {
        if (e.key === 'Enter' || e.key === 'Escape') {
            e.stopPropagation();
            e.preventDefault();
            finish(e.key === 'Enter');
        }
    });
    input.addEventListener('blur', () => finish(true));
    li.replaceChildren(input);
    input.select();
}

function remove(t) {
    $('delete-name').textContent = t.title;
    const dialog = $('dialog-delete');
    dialog.returnValue = 'no';
    dialog.showModal();
    dialog.addEventListener('close', async () => {
        if (dialog.returnValue !== 'yes') return;
        for (const a of live.values()) if (a.body.pdd.conversation === t.id) a.forget();
        await talks.drop(t.id);
        if (t.id === talk?.id) go(null);
        await loadList();
        say('Conversation deleted');
    }, {once: true});
}

// ---- the conversation ----

function showTitle() {
    $('title').textContent = talk?.title || 'New conversation';
    document.title = talk?.title ? `${talk.title} · P/D-Device` : 'P/D-Device';
    $('export').hidden = !talk?.messages.length;
}

/** The address names the conversation, so that a reload and the browser's Back find it. */
function go(id) {
    const hash = id ? '#' + id : '';
    if (location.hash !== hash) history.pushState(null, '', location.pathname + hash);
    closeSide();
    return openTalk(id);
}

let opening = 0;

async function openTalk(id) {
    const mine = ++opening;
    let next = null;
    try {
        next = id ? await talks.load(id) : null;
        if (mine !== opening) return;
        if (id && !next) history.replaceState(null, '', location.pathname); // it was deleted
    } catch (e) {
        tellProblem(e.message);
    }
    talk = next;
    resume();
    showTitle();
    showList();
    showThread();
    scrollToEnd();
    if (matchMedia('(pointer: fine)').matches) $('question').focus();
}

function greeting() {
    if (status?.local_only) return 'Nothing leaves this device.';
    return status?.model ? 'The first words come from the cloud, the rest from this device.' : 'The cloud answers.';
}

function showThread() {
    for (const v of views) v.leave?.();
    views = [];
    const thread = $('thread');
    if (!talk?.messages.length) {
        thread.replaceChildren(el('div', {class: 'hello'}, el('span', {class: 'mark big', 'aria-hidden': 'true'}),
            el('p', {}, `Ask something. ${greeting()}`)));
        showBusy();
        return;
    }
    views = talk.messages.map((m, i) => m.role === 'user' ? new QuestionView(m, {resend: (text) => resend(i, text)}) : answerView(m, i));
    thread.replaceChildren(...views.map((v) => v.node));
    showBusy();
}

function sizeOf(i) {
    const question = talk.messages[i - 1];
    return {characters: talks.requestOf(talk, i).messages.reduce((n, m) => n + m.content.length, 0),
        documents: question.documents?.length ?? 0, earlier: i - 1};
}

function answerView(message, i) {
    const ask = live.get(message.id);
    const shown = talk;
    return new AnswerView(message, ask, {
        again: i === talk.messages.length - 1 ? () => resend(i - 1, talk.messages[i - 1].text) : null,
        grew: () => talk === shown && followEnd(),
        follows: () => atEnd,
        changed: (a) => {
            if (a.trouble) noteCloud({why: a.trouble, alone: Boolean(status?.model) && a.body.pdd.mode !== 'cloud'});
            else if (a.first === 'cloud') noteCloud(null);
            showBusy();
        },
    }, {local: status?.local_only || message.asked.mode === 'local', cloud: status?.cloud ?? 'the cloud', model: Boolean(status?.model), size: ask && ask.n === 0 ? sizeOf(i) : {}});
}

/** Answers that this page, or one before it, did not see to their end. */
function resume() {
    if (!talk) return;
    for (const [i, m] of talk.messages.entries())
        if (m.role === 'assistant' && !m.finish && !live.has(m.id)) follow(talk, i, true);
}

/** Follow answer `i` to its end and keep it, whatever is shown meanwhile. */
async function follow(owner, i, known) {
    const message = owner.messages[i];
    const ask = new Ask(message.id, talks.requestOf(owner, i));
    // Before the view hears of the end, the message has it.
    ask.addEventListener('over', () => Object.assign(message, {parts: ask.parts, thoughts: ask.thoughts.length ? ask.thoughts : undefined, report: ask.report, finish: ask.finish ?? 'error', error: ask.error}));
    const end = ask.follow(known);
    showList();
    try {
        await end;
    } catch (e) {
        tellProblem(e.message);
    }
    if (message.finish) {
        const newer = talk && talk.id === owner.id ? talk : owner;
        await talks.save(newer).catch((e) => tellProblem(e.message));
    }
    await loadList().catch(() => {});
    showBusy();
    watchDevice();
}

const shownAsk = () => talk?.messages.map((m) => live.get(m.id)).find(Boolean);

function showBusy() {
    const busy = Boolean(shownAsk());
    const stop = $('stop'), had = document.activeElement === stop;
    stop.hidden = !busy;
    $('send').hidden = busy;
    if (had && !busy) $('question').focus();
}

async function stop() {
    await shownAsk()?.stop();
}

function titleOf(text, docs) {
    const line = text.trim().split('\n')[0];
    return cut(line || docs[0]?.name || 'Conversation', TITLE_MAX);
}

async function ask(text, docs) {
    const now = Math.floor(Date.now() / 1000);
    talk ??= {id: fresh('c'), title: '', created: now, messages: []};
    if (!talk.messages.length && !talk.named) talk.title = titleOf(text, docs);
    const mode = status?.local_only ? 'local' : status && !status.model ? 'auto' : remember.mode;
    talk.messages.push({role: 'user', text, documents: docs.map(({name, text: t}) => ({name, text: t}))});
    talk.messages.push({role: 'assistant', id: fresh('a'), asked: {mode, pace: remember.pace, temperature: remember.temperature, tokensMax: remember.tokensMax, system: remember.system}});
    const owner = talk;
    history.replaceState(null, '', '#' + talk.id);
    try {
        await talks.save(owner); // first, so that no crash loses the question
    } catch (e) {
        if (e.status !== 0) {
            owner.messages.length -= 2;
            throw e;
        }
    }
    loadList().catch(() => {});
    const done = follow(owner, owner.messages.length - 1, false);
    showTitle();
    showThread();
    scrollToEnd();
    await done;
}

async function resend(i, text) {
    if (shownAsk()) await stop();
    const docs = talk.messages[i].documents ?? [];
    talk.messages.length = i;
    await ask(text, docs);
}

// ---- the view follows the end, unless the reader went elsewhere ----

let atEnd = true;
let touched = 0; // when the reader last moved the view: not every scroll is theirs, as heights of what is far away are guesses

function followEnd() {
    const scroll = $('scroll');
    if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function scrollToEnd() {
    atEnd = true;
    followEnd();
    requestAnimationFrame(followEnd); // heights that were guessed are known then
}

function onScroll() {
    const scroll = $('scroll'), now = performance.now();
    const near = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < NEAR_END;
    if (near) atEnd = true;
    else if (now - touched < TOUCH_MS) {
        atEnd = false;
        touched = now;
    }
    $('to-end').hidden = near;
}

function bindScroll() {
    const scroll = $('scroll');
    for (const name of ['wheel', 'touchmove', 'keydown', 'pointerdown'])
        scroll.addEventListener(name, () => (touched = performance.now()), {passive: true});
    scroll.addEventListener('scroll', onScroll, {passive: true});
    $('to-end').addEventListener('click', scrollToEnd);
}

// ---- the question box ----

function showDocuments() {
    $('chips').hidden = documents.length === 0;
    $('chips').replaceChildren(...documents.map((d, i) => el('li', {}, icon('page'), el('bdi', {}, d.name),
        el('small', {class: d.tokens > (status?.model?.context_length ?? Infinity) ? 'too-long' : ''}, d.tokens ? plural(d.tokens, 'token') : bytes(d.text.length)),
        button('close', `Remove ${d.name}`, () => {
            documents.splice(i, 1);
            showDocuments();
            $('question').focus();
        }))));
}

async function addDocument(name, text) {
    if (text.length > DOCUMENT_MAX || text.includes('\0')) {
        say(`${name} cannot be attached`);
        tellProblem(text.includes('\0') ? `${name} is no text.` : `${name} is longer than ${bytes(DOCUMENT_MAX)}.`);
        return;
    }
    const d = {name: clean(name), text: clean(text), tokens: 0};
    documents.push(d);
    showDocuments();
    say(`${name} attached`);
    if (!status?.model) return;
    try {
        d.tokens = (await json('POST', '/tokenize', {content: text})).tokens.length;
        showDocuments();
    } catch {}
}

function tellProblem(text) {
    const chips = $('chips');
    showDocuments();
    chips.hidden = false;
    chips.prepend(el('li', {class: 'problem', role: 'alert'}, text));
}

async function addFiles(files) {
    for (const file of files) {
        if (file.size > DOCUMENT_MAX) tellProblem(`${file.name} is longer than ${bytes(DOCUMENT_MAX)}.`);
        else await addDocument(file.name, await file.text());
    }
}

function grow() {
    const q = $('question');
    q.style.height = 'auto';
    q.style.height = Math.min(q.scrollHeight, innerHeight * 0.4) + 'px';
}

async function send() {
    const text = clean($('question').value.trim()), docs = documents;
    if ((!text && !docs.length) || shownAsk()) return;
    $('question').value = '';
    documents = [];
    grow();
    showDocuments();
    try {
        await ask(text, docs);
    } catch (e) {
        if ($('question').value === '') $('question').value = text;
        documents = docs;
        grow();
        tellProblem(e.message);
        showThread();
    }
}

function bindComposer() {
    const q = $('question');
    q.addEventListener('input', grow);
    q.addEventListener('keydown', (e) => {
        if (e.key !== 'Enter' || e.shiftKey || e.isComposing || matchMedia('(pointer: coarse)').matches) return;
        e.preventDefault();
        send();
    });
    q.addEventListener('paste', (e) => {
        if (e.clipboardData.files.length) {
            e.preventDefault();
            addFiles([...e.clipboardData.files]);
            return;
        }
        const text = e.clipboardData.getData('text/plain');
        if (text.length <= PASTE_MAX) return;
        e.preventDefault();
        addDocument('Pasted text', text);
    });
    $('composer').addEventListener('submit', (e) => {
        e.preventDefault();
        send();
    });
    $('stop').addEventListener('click', stop);
    $('attach').addEventListener('click', () => $('file').click());
    $('file').addEventListener('change', async () => {
        await addFiles([...$('file').files]);
        $('file').value = '';
        q.focus();
    });
    document.addEventListener('dragover', (e) => e.preventDefault());
    document.addEventListener('drop', (e) => {
        e.preventDefault();
        addFiles([...e.dataTransfer.files]);
    });
    for (const name of ['mode', 'pace']) {
        $(name).value = remember[name];
        $(name).addEventListener('change', () => (remember[name] = $(name).value));
    }
}

// ---- list on narrow screens, settings, export ----

function openSide() {
    $('app').classList.add('side-open');
    $('open-side').setAttribute('aria-expanded', 'true');
    $('new').focus();
}

function closeSide() {
    if (!$('app').classList.contains('side-open')) return;
    $('app').classList.remove('side-open');
    $('open-side').setAttribute('aria-expanded', 'false');
    $('open-side').focus();
}

function bindSettings() {
    $('theme').value = remember.theme;
    $('temperature').value = remember.temperature;
    $('tokens-max').value = remember.tokensMax;
    $('system').value = remember.system;
    $('theme').addEventListener('change', () => {
        remember.theme = $('theme').value;
        applyPreferences();
    });
    $('temperature').addEventListener('change', () => (remember.temperature = Math.min(2, Math.max(0, Number($('temperature').value) || 0))));
    $('tokens-max').addEventListener('change', () => (remember.tokensMax = Math.min(100000, Math.max(1, Math.floor(Number($('tokens-max').value)) || 1024))));
    $('system').addEventListener('change', () => (remember.system = clean($('system').value.trim())));
    $('settings').addEventListener('click', () => $('dialog-settings').showModal());
    $('tint').addEventListener('click', () => {
        remember.tint = remember.tint === 'on' ? 'off' : 'on';
        applyPreferences();
    });
}

function exportTalk() {
    const dialog = $('dialog-export');
    dialog.returnValue = 'no';
    dialog.showModal();
    dialog.addEventListener('close', () => {
        const name = (talk.title || 'conversation').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '').slice(0, 60);
        if (dialog.returnValue === 'md') saveAs(name + '.md', 'text/markdown', talks.toMarkdown(talk));
        if (dialog.returnValue === 'json') saveAs(name + '.json', 'application/json', JSON.stringify(talk, null, 2));
    }, {once: true});
}

function bind() {
    dress(document);
    bindComposer();
    bindSettings();
    $('new').addEventListener('click', () => go(null));
    $('open-side').addEventListener('click', openSide);
    $('close-side').addEventListener('click', closeSide);
    $('veil').addEventListener('click', closeSide);
    $('export').addEventListener('click', exportTalk);
    bindScroll();
    $('reading-stop').addEventListener('click', () => json('DELETE', '/v1/reading').then(watchDevice, (e) => tellProblem(e.message)));
    addEventListener('focus', () => status && loadList().catch(() => {})); // another tab may have changed it
    addEventListener('popstate', () => openTalk(location.hash.slice(1) || null));
    document.addEventListener('keydown', (e) => {
        if (e.key !== 'Escape' || document.querySelector('dialog[open]')) return;
        if ($('app').classList.contains('side-open')) closeSide();
        else stop();
    });
}

let opened = false;

/** The list and the conversation of the address; again after the device was away, if it was not shown. */
async function open() {
    await loadList();
    if (!opened) await openTalk(location.hash.slice(1) || null);
    opened = true;
}

async function start() {
    await watchDevice();
    if (status && !opened) await open().catch((e) => tellProblem(e.message));
}

applyPreferences();
bind();

/** A closer look while something moves. */
function watch() {
    setTimeout(async () => {
        if (!document.hidden) await watchDevice();
        watch();
    }, status?.reading ? STATUS_MS / 5 : STATUS_MS);
}

start().then(watch);
