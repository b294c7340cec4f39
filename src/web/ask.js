// ask.js: one question and its answer, followed to its end: through cut connections, a reloaded page and a device
// that was restarted. The server counts tokens; the page comes back with the index that it has.
import {ApiError, call, events, approval} from './api.js';

const WAIT_MS = [200, 400, 800, 1500, 3000];
const KEEP_S = 86400; // an answer goes on that long while no page reads it

/** Live answers by id; more than one may run, in several conversations. */
export const live = new Map();

export class Ask extends EventTarget {
    /** `body`: the request, to ask with if the device does not know the answer. */
    constructor(id, body) {
        super();
        this.id = id;
        this.body = body;
        this.abort = new AbortController();
        this.clear();
        live.set(id, this);
    }

    clear() {
        this.parts = [];         // [source, text] of the answer, in order
        this.thoughts = [];      // the same of what the model thinks before it
        this.first = null;       // source of the first token, and of the latest
        this.source = null;
        this.n = 0;              // tokens
        this.handover = 0;       // index of the first token of the device after tokens of the cloud
        this.state = 'asking';   // held, waiting, running; away: the device's server is; over
        this.waiting = 0;
        this.progress = {};      // {device: [done, total], cloud: ...}
        this.trouble = null;
        this.report = null;
        this.finish = null;
        this.error = null;
    }

    tell(name, detail) {
        this.dispatchEvent(new CustomEvent(name, {detail}));
    }

    /** Ask, or with `known` first look for the answer. Returns at its end. */
    async follow(known = false) {
        let tries = 0;
        for (;;) {
            const before = this.n;
            try {
                await this.read(known ? await this.attach() : await this.post());
                break;
            } catch (e) {
                if (e.name === 'AbortError') return;
                if (!(e instanceof ApiError)) throw e;
                if (e.status === 404 || (e.status === 400 && known && this.n > 0)) {
                    known = e.status !== 404; // lost: ask again by the same id. Or it has fewer tokens: from its first
                    this.clear();
                    this.tell('reset');
                } else if (e.status === 0) {
                    known = true;
                    this.setState('away');
                } else if (e.status === 429) {
                    this.setState('busy');
                } else {
                    this.finish = 'error';
                    this.error = e.message;
                    break;
                }
                tries = this.n > before ? 0 : tries + 1;
                const wait = Math.max(WAIT_MS[Math.min(tries, WAIT_MS.length) - 1] ?? 200, e.status === 429 ? 1000 * e.retryAfter : 0);
                if (e.status !== 404 && e.status !== 400) await this.pause(wait);
                if (this.abort.signal.aborted) return;
            }
        }
        live.delete(this.id);
        this.setState('over');
        this.tell('over');
    }

    pause(wait) {
        return new Promise((resolve) => {
            const timer = setTimeout(resolve, wait);
            this.abort.signal.addEventListener('abort', () => (clearTimeout(timer), resolve()), {once: true});
        });
    }

    post() {
        return call('POST', '/v1/chat/completions', {...this.body, stream: true,
            pdd: {...this.body.pdd, id: this.id, keep: KEEP_S, progress: true}}, this.abort.signal);
    }

    attach() {
        return call('GET', `/v1/answers/${this.id}?from=${this.n}&stream=1`, undefined, this.abort.signal);
    }

    async read(response) {
        for await (const chunk of events(response)) {
            if (chunk.error) {
                this.finish = 'error';
                this.error = chunk.error.message;
                continue;
            }
            const choice = chunk.choices?.[0], pdd = chunk.pdd ?? {};
            if (choice?.finish_reason || pdd.served) {
                this.report = pdd;
                this.finish = choice?.finish_reason ?? this.finish;
            } else if (pdd.source) {
                this.take(pdd, choice?.delta ?? {});
            } else {
                this.note(pdd);
            }
        }
    }

    /** Tokens; a chunk that begins before what we have is one of another reading. */
    take({index, n, source}, {content, reasoning_content: thought}) {
        if (index !== this.n) throw new ApiError(0, 'cut', 'tokens are missing', 1);
        if (source === 'device' && this.source === 'cloud' && !this.handover) this.handover = index;
        this.first ??= source;
        this.source = source;
        this.n += n;
        if (this.state !== 'running') this.setState('running');
        if (thought) this.add('thought', this.thoughts, thought);
        if (content) this.add('text', this.parts, content);
    }

    add(name, parts, said) {
        const text = said.replaceAll('\0', '\ufffd'), last = parts.at(-1);
        if (last && last[0] === this.source) last[1] += text;
        else parts.push([this.source, text]);
        this.tell(name, [this.source, text]);
    }

    /** So far there are thoughts and no answer. */
    get thinks() {
        return this.thoughts.length > 0 && this.parts.length === 0;
    }

    note(pdd) {
        if (pdd.progress) this.progress = pdd.progress;
        if (pdd.trouble) this.trouble = pdd.trouble;
        if (pdd.waiting !== undefined) this.waiting = pdd.waiting;
        if (pdd.state) this.setState(pdd.state);
        else this.tell('state');
    }

    setState(state) {
        this.state = state;
        this.tell('state');
    }

    /** It ends as "cancelled", with what it has. */
    async stop() {
        try {
            await call('DELETE', `/v1/answers/${this.id}`);
        } catch (e) {
            if (this.state !== 'away' && this.state !== 'busy' && this.state !== 'asking') return;
            this.abort.abort(); // the device cannot be told
            this.finish = 'cancelled';
            live.delete(this.id);
            this.setState('over');
            this.tell('over');
        }
    }

    /** The person's word on a question that is held; after a no this device answers alone. */
    allow(send) {
        this.local = !send;
        const code = approval();
        return call('POST', `/v1/answers/${this.id}/send`, {send}, undefined, send && code ? {'X-PDD-Approval': code} : {});
    }

    /** The page no longer cares: its conversation was deleted. */
    forget() {
        this.abort.abort();
        live.delete(this.id);
        call('DELETE', `/v1/answers/${this.id}`).catch(() => {});
    }
}
