// device.mjs PDD MODEL: OpenAI's own client against a real `pdd device` in front of a real `pdd cloud`,
// each of which is killed.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import OpenAI from 'openai';
import {announce, end, failed, run, start, until} from './harness.mjs';

const [pdd, model] = process.argv.slice(2);
const passage = 'The keeper oiled the wheels of the clock before midnight. '.repeat(20);
const messages = [{role: 'system', content: passage}, {role: 'user', content: 'Who oiled the wheels, and when?'}];
const state = fs.mkdtempSync(path.join(os.tmpdir(), 'pdd-e2e-'));

const cloudArgs = ['--model', model, '--threads', '1', '--profile', 'm3-max'];
const deviceArgs = (url) => ['--model', model, '--threads', '1', '--profile', 'oneplus12-1b', '--cloud', url, '--state', state,
                             '--refine', 'off', '--idle-fill', 'off'];

const client = (url) => new OpenAI({baseURL: url + '/v1', apiKey: 'none', maxRetries: 0, timeout: 60000});
const question = (name, pddObject = {}, more = {}) =>
    ({model: name, messages, temperature: 0, max_tokens: 40, pdd: pddObject, ...more});

// Text, indices and report of a stream, until its end or `enough` tokens.
async function gather(stream, enough = Infinity) {
    const all = {text: '', next: null, sources: [], report: null, progress: 0};
    for await (const chunk of stream) {
        if (chunk.pdd?.progress) all.progress++;
        const choice = chunk.choices[0];
        if (!choice) continue;
        if (chunk.pdd?.index !== undefined) {
            assert.equal(chunk.pdd.index, all.next ?? chunk.pdd.index, 'a token is lost or repeated');
            all.next = chunk.pdd.index + chunk.pdd.n;
            all.sources.push(chunk.pdd.source);
        }
        all.text += choice.delta.content ?? '';
        if (choice.finish_reason) all.report = chunk.pdd;
        if (all.next >= enough) break;
    }
    return all;
}

const json = async (url) => (await fetch(url)).json();

// The rest of an answer, as a page that lost its connection reads it.
async function resume(url, id, from) {
    const response = await fetch(`${url}/v1/answers/${id}?from=${from}&stream=1`);
    assert.equal(response.status, 200);
    const events = (await response.text()).split('\n\n').filter((e) => e.startsWith('data: {'));
    const chunks = events.map((e) => JSON.parse(e.slice(6)));
    async function* each() { yield* chunks; }
    return gather(each());
}

const cases = {
    // By the device, the cloud or both, streamed or not: one answer, and reports that add up.
    async same_answer({api, name}) {
        const whole = await api.chat.completions.create(question(name, {mode: 'local'})).withResponse();
        const text = whole.data.choices[0].message.content;
        assert.equal(whole.data.pdd.cloud_tokens, 0);
        assert.equal(whole.data.pdd.sent_bytes, 0);
        assert.equal(JSON.parse(whole.response.headers.get('x-pdd-report')).id, whole.data.pdd.id);
        assert.equal(whole.response.headers.get('x-pdd-answer'), whole.data.id);
        const both = await gather(await api.chat.completions.create(
            {...question(name, {cloud_tokens: 6, progress: true}), stream: true}));
        assert.equal(both.text, text);
        assert.equal(both.report.tokens, both.report.cloud_tokens + both.report.device_tokens);
        const cloud = await gather(await api.chat.completions.create({...question(name, {mode: 'cloud'}), stream: true}));
        assert.equal(cloud.text, text);
        assert.equal(cloud.report.match, 'exact');
        assert.ok(cloud.sources.every((s) => s === 'cloud') && cloud.report.sent_bytes > 0);
    },
    // An answer that goes on for a client that has gone, or not though it was asked to.
    async abort_cancels({api, name, url}) {
        for (const [id, keep, want] of [['gone', 0, 'cancelled'], ['stays', 60, null]]) {
            const stream = await api.chat.completions.create({...question(name, {id, keep, mode: 'local'}), stream: true});
            await gather(stream, 2);
            await until('the end of ' + id, async () => (await json(`${url}/v1/answers/${id}`).catch(() => null))?.state === 'done');
            const answer = await json(`${url}/v1/answers/${id}`);
            if (want) assert.equal(answer.finish_reason, want);
            else assert.notEqual(answer.finish_reason, 'cancelled');
        }
    },
    // The cloud dies in the middle of its tokens: the device goes on from the last one.
    async cloud_killed(t) {
        const want = (await t.api.chat.completions.create(question(t.name, {mode: 'local'}))).choices[0].message.content;
        const fresh = 'Do say: '; // no KV of this prompt yet, so that the cloud is ahead
        const ask = (pddObject) => ({...question(t.name, pddObject), messages: [{role: 'system', content: fresh + passage}, messages[1]]});
        const stream = await t.api.chat.completions.create({...ask({cloud_tokens: 40}), stream: true});
        let killed = false;
        const kill = async () => { killed = true; await t.cloud.kill(); };
        async function* watch() {
            for await (const chunk of stream) {
                if (!killed && chunk.pdd?.source === 'cloud') await kill();
                yield chunk;
            }
        }
        const all = await gather(watch());
        const local = (await t.api.chat.completions.create(ask({mode: 'local'}))).choices[0].message.content;
        assert.ok(killed && want.length > 0);
        assert.equal(all.text, local);
        t.cloud = await start(pdd, 'cloud', '--listen', new URL(t.cloud.url).host, ...cloudArgs);
    },
    // The device dies in the middle of an answer, starts again, and the answer goes on.
    async device_killed(t) {
        const want = (await t.api.chat.completions.create(question(t.name, {mode: 'local'}))).choices[0].message.content;
        const id = 'survivor', host = new URL(t.url).host;
        const stream = await t.api.chat.completions.create({...question(t.name, {id, keep: 60, mode: 'local'}), stream: true});
        const first = await gather(stream, 3);
        await t.device.kill();
        t.device = await start(pdd, 'device', '--listen', host, ...deviceArgs(t.cloud.url));
        const rest = await resume(t.url, id, first.next);
        assert.equal(first.text + rest.text, want);
        assert.ok(rest.report.resumed >= first.next);
        const again = await t.api.chat.completions.create(question(t.name, {id})); // the same id: the same answer
        assert.equal(again.choices[0].message.content, want);
    },
    async errors({api, name, url}) {
        await assert.rejects(api.chat.completions.create(question(name, {mode: 'fast'})), OpenAI.BadRequestError);
        await assert.rejects(api.chat.completions.create(question('gpt-4o')), OpenAI.NotFoundError);
        const evil = await fetch(url + '/v1/models', {headers: {Origin: 'http://evil.example'}});
        assert.equal(evil.status, 403);
    },
    async completions({api, name}) {
        const ask = {model: name, prompt: 'The keeper', max_tokens: 8, temperature: 0};
        const whole = await api.completions.create(ask);
        let text = '';
        for await (const chunk of await api.completions.create({...ask, stream: true})) text += chunk.choices[0].text;
        assert.equal(text, whole.choices[0].text);
        assert.equal(whole.usage.completion_tokens, 8);
    },
};

async function main() {
    const t = {};
    t.cloud = await start(pdd, 'cloud', ...cloudArgs);
    t.device = await start(pdd, 'device', ...deviceArgs(t.cloud.url));
    t.url = t.device.url;
    t.api = client(t.url);
    t.name = (await t.api.models.list()).data[0].id;
    announce(Object.keys(cases).length);
    for (const [name, test] of Object.entries(cases)) await run(name, () => test(t));
}

main().then(() => failed > 0, (e) => (console.log(e.stack), true)).then((bad) => {
    end();
    fs.rmSync(state, {recursive: true, force: true});
    process.exitCode = bad ? 1 : 0;
});
