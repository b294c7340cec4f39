// thread.js: the messages of a conversation: questions, and answers that grow.
import {Markdown} from './markdown.js';
import {Strip} from './strip.js';
import {facts, summary} from './facts.js';
import {setApproval} from './api.js';
import {textOf} from './talks.js';
import {$, button, bytes, clean, copyText, el, icon, plural, say} from './dom.js';

const LONG = 3; // groups of blocks
const CLOUD_CALL = /^(?:GET|POST) (https?:\/\/[^/\s]+)\S*: /; // how an error begins that the device's call of the cloud had

function documentChip(d) {
    const show = () => {
        $('document-title').textContent = d.name;
        $('document-text').textContent = d.text;
        $('dialog-document').showModal();
    };
    return el('button', {type: 'button', class: 'doc', onclick: show}, icon('page'), el('bdi', {}, d.name), el('small', {}, bytes(d.text.length)));
}

/** A question. `on.resend(text)` asks an edited one. */
export class QuestionView {
    constructor(message, on) {
        this.message = message;
        this.on = on;
        this.node = el('section', {class: 'question', 'aria-label': 'Your question'});
        this.show();
    }

    show() {
        const {message} = this;
        const docs = (message.documents ?? []).map(documentChip);
        this.edit = button('pencil', 'Edit and ask again', () => this.beginEdit());
        this.node.replaceChildren(
            el('div', {class: 'bubble'}, docs.length ? el('div', {class: 'docs'}, ...docs) : null, el('p', {dir: 'auto'}, message.text)),
            el('div', {class: 'tools'}, this.edit, button('copy', 'Copy the question', (e) => copyText(message.text, e.currentTarget))));
    }

    beginEdit() {
        const area = el('textarea', {dir: 'auto', rows: '3', 'aria-label': 'Edit your question'});
        area.value = this.message.text;
        const cancel = () => {
            this.show();
            this.edit.focus();
        };
        const send = () => area.value.trim() && this.on.resend(clean(area.value.trim()));
        area.addEventListener('keydown', (e) => {
            if (e.isComposing) return;
            if (e.key === 'Escape') cancel();
            else if (e.key === 'Enter' && !e.shiftKey) send();
            else return;
            e.preventDefault();
            e.stopPropagation();
        });
        this.node.replaceChildren(el('div', {class: 'editor'}, area,
            el('div', {class: 'buttons'}, el('small', {}, 'What follows it is replaced.'), el('button', {type: 'button', onclick: cancel}, 'Cancel'),
                el('button', {type: 'button', class: 'main-button', onclick: send}, 'Ask again'))));
        area.focus();
    }
}

/** What a model thinks before its answer, in front of `answer`: open until that begins, unless the reader said otherwise. */
class Thoughts {
    constructor(id, answer) {
        this.id = id;
        this.answer = answer;
        this.prose = el('div', {class: 'prose'});
        this.node = el('details', {class: 'thoughts'}, el('summary', {onclick: () => kept.set(id, !this.node.open)}, icon('chevron'), 'Thoughts'), this.prose);
        this.clear();
    }

    clear() {
        this.prose.replaceChildren();
        this.markdown = new Markdown(this.prose);
        this.node.remove();
    }

    push(text, source) {
        this.markdown.push(text, source);
        if (!this.node.parentNode) this.answer.before(this.node);
    }

    show(open) {
        this.node.open = kept.get(this.id) ?? open;
    }

    render(end) {
        this.markdown.render(end);
        noteLength(this.prose);
    }
}

const kept = new Map(); // whether the reader has opened or closed the thoughts of an answer, by its id

/** Of a long answer the browser lays out and paints what is near the view only. */
function noteLength(prose) {
    if (prose.childElementCount > LONG) prose.classList.add('long');
}

/** An answer: growing, as `ask` says, or as it was kept. */
export class AnswerView {
    /** on: again() of the last answer, grew(), follows(): is the end in view, changed(ask). context: {local, cloud, size}. */
    constructor(message, ask, on, context) {
        Object.assign(this, {message, ask, on, context});
        this.prose = el('div', {class: 'prose'});
        this.top = el('div', {class: 'top'});
        this.foot = el('div', {class: 'foot'});
        this.thoughts = new Thoughts(message.id, this.prose);
        this.node = el('article', {class: 'answer', 'aria-label': 'Answer'}, this.top, this.prose, this.foot);
        this.fill(ask ?? message);
        if (ask) this.watch(ask);
        else this.end();
    }

    fill({parts = [], thoughts = []}) {
        this.prose.replaceChildren();
        this.markdown = new Markdown(this.prose);
        this.thoughts.clear();
        for (const [source, text] of thoughts) this.thoughts.push(text, source);
        for (const [source, text] of parts) this.markdown.push(text, source);
        this.thoughts.show(parts.length === 0);
        this.begun = parts.length > 0;
        this.render(!this.ask);
    }

    render(end = false) {
        this.thoughts.render(end || this.begun);
        this.markdown.render(end);
        noteLength(this.prose);
    }

    /** The answer begins. Who has gone up to read its thoughts goes on reading. */
    begin() {
        this.begun = true;
        if (this.on.follows()) this.thoughts.show(false);
    }

    watch(ask) {
        this.strip = new Strip(ask, this.context);
        this.top.replaceChildren(this.strip.node);
        this.prose.setAttribute('aria-busy', 'true');
        this.listen = {
            thought: (e) => {
                this.thoughts.push(e.detail[1], e.detail[0]);
                this.later();
            },
            text: (e) => {
                if (!this.begun) this.begin();
                this.markdown.push(e.detail[1], e.detail[0]);
                this.later();
            },
            state: () => this.later(),
            reset: () => this.fill({}),
            over: () => this.over(),
        };
        for (const [name, f] of Object.entries(this.listen)) ask.addEventListener(name, f);
        this.showState();
    }

    /** Whatever came since is drawn once, with the next frame; in a hidden tab now and then. */
    later() {
        if (this.frame) return;
        const draw = () => {
            this.frame = null;
            if (!this.ask) return;
            this.render();
            this.showState();
            this.on.grew();
        };
        this.frame = document.hidden ? setTimeout(draw, 500) : requestAnimationFrame(draw);
    }

    showState() {
        const {ask} = this;
        this.strip.update();
        const held = ask.state === 'held';
        if (held && !this.consent) this.askConsent();
        else if (!held) this.endConsent();
        this.on.changed(ask);
    }

    /** Its focus goes to where the keyboard finds the end of the answer. */
    endConsent() {
        const had = this.consent?.contains(document.activeElement);
        this.consent?.remove();
        this.consent = null;
        if (had) $('stop').focus();
    }

    askConsent() {
        const {cloud, size, model} = this.context;
        const answer = (send) => this.ask.allow(send).catch((e) => e.code === 'approval_needed' ? this.askCode(answer) : say(e.message));
        const yes = el('button', {type: 'button', class: 'main-button', onclick: () => answer(true)}, 'Send to the cloud');
        const safe = cloud.startsWith('https:') ? 'encrypted' : 'not encrypted';
        this.consent = el('div', {class: 'consent', role: 'alertdialog', 'aria-labelledby': 'consent-title', 'aria-describedby': 'consent-what'},
            el('h2', {id: 'consent-title'}, 'May this question go to the cloud?'),
            el('p', {id: 'consent-what'}, 'To ', el('bdi', {class: 'address'}, cloud), `, ${safe}: `, this.describeSize(size), '. Until you say yes, nothing of it leaves this device.'),
            el('div', {class: 'buttons'}, yes, el('button', {type: 'button', onclick: () => answer(false)}, model ? 'Answer on this device' : 'Do not send')));
        this.top.append(this.consent);
        if ($('question') === document.activeElement || document.activeElement === document.body) yes.focus();
        this.on.grew();
    }

    /** Any program of this machine can ask; the code that the terminal shows is this person's. */
    askCode(answer) {
        const wrong = this.consent.querySelector('form');
        if (wrong) {
            if (!wrong.querySelector('.error')) wrong.append(el('p', {class: 'error', role: 'alert'}, 'This is not the code.'));
            wrong.querySelector('input').select();
            return;
        }
        const code = el('input', {type: 'password', autocomplete: 'off', 'aria-label': 'Code that pdd device printed'});
        const give = (event) => {
            event.preventDefault();
            setApproval(code.value.trim().replace(/^.*#allow=/, ''));
            answer(true);
        };
        this.consent.append(el('form', {class: 'give-code', onsubmit: give},
            el('p', {}, 'A yes needs the code of this run: pdd device printed a link with it when it started. Open that link, or put the code here.'),
            el('div', {class: 'buttons'}, code, el('button', {class: 'main-button'}, 'Send'))));
        code.focus();
        this.on.grew();
    }

    describeSize({characters, documents, earlier}) {
        const more = [documents ? plural(documents, 'document') : '', earlier ? plural(earlier, 'earlier message') : ''].filter(Boolean);
        return `your question${more.length ? ' with ' + more.join(' and ') : ''}, ${plural(characters, 'character')}`;
    }

    over() {
        const {ask} = this;
        cancelAnimationFrame(this.frame);
        this.leave();
        this.endConsent();
        this.ask = null;
        this.render(true);
        this.prose.removeAttribute('aria-busy');
        this.on.changed(ask);
        this.end();
        this.on.grew();
        const ends = {cancelled: 'Answer stopped', error: 'The answer failed'};
        say(ends[ask.finish] ?? `Answer complete, ${plural(ask.n, 'token')}`);
    }

    /** Another conversation is shown; the answer goes on without this view. */
    leave() {
        for (const [name, f] of Object.entries(this.listen ?? {})) this.ask?.removeEventListener(name, f);
        this.listen = null;
    }

    end() {
        const {message} = this, r = message.report;
        this.top.replaceChildren();
        if (r?.served?.length) this.top.append(this.servedBar(r));
        const problem = message.error?.replace(CLOUD_CALL, 'The cloud ($1): ') ?? (message.finish === 'cancelled' ? 'Stopped.' : message.finish === 'length' ? 'The longest answer was reached.' : null);
        const list = el('div', {class: 'facts-box', hidden: true});
        const toggle = r ? el('button', {type: 'button', class: 'summary', 'aria-expanded': 'false', onclick: () => {
            list.hidden = !list.hidden;
            toggle.setAttribute('aria-expanded', String(!list.hidden));
            if (!list.hasChildNodes()) list.append(facts(r, () => this.on.grew()));
            if (!list.hidden) this.on.grew();
        }}, summary(r), icon('chevron')) : null;
        this.foot.replaceChildren(
            ...(problem ? [el('p', {class: message.error ? 'error' : 'end', dir: 'auto'}, problem)] : []),
            el('div', {class: 'tools'}, toggle, el('span', {class: 'grow'}), button('copy', 'Copy the answer', (e) => copyText(textOf(message), e.currentTarget)),
                this.on.again ? button('again', 'Answer again', this.on.again) : null),
            list);
    }

    servedBar(r) {
        const total = r.served.reduce((sum, s) => sum + s[1], 0);
        const bar = el('div', {class: 'served', role: 'img', 'aria-label': `${plural(r.cloud_tokens, 'token')} from the cloud, ${r.device_tokens} from this device`});
        for (const [source, n] of r.served) {
            const part = el('span', {class: source});
            part.style.flexGrow = String(n / total);
            bar.append(part);
        }
        return bar;
    }
}
