// openai.mjs PDD MODEL: OpenAI's own client against real `pdd cloud` processes. Each case says what
// it catches.
import assert from 'node:assert/strict';
import {execFileSync} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import OpenAI from 'openai';
import {announce, end, failed, metric, run, start, until} from './harness.mjs';

const [pdd, model] = process.argv.slice(2);
const messages = [{role: 'developer', content: 'Be brief.'},
                  {role: 'user', content: [{type: 'text', text: 'Tell me of a fox.'}]}];
const greedy = {model: 'tale', messages, temperature: 0, max_tokens: 24};
const secret = 'pdd-0123456789abcdef0123456789abcdef';

// A cloud on a free port; its URL once it listens.
const cloud = async (...args) => (await start(pdd, 'cloud', ...args)).url;

function client(url, options = {}) {
    return new OpenAI({baseURL: url + '/v1', apiKey: 'none', maxRetries: 0, timeout: 60000, ...options});
}

async function gather(stream) {
    const all = {text: '', finish: null, usage: null, tokens: [], chunks: 0};
    for await (const chunk of stream) {
        all.chunks++;
        if (chunk.usage) all.usage = chunk.usage;
        const choice = chunk.choices[0];
        if (!choice) continue;
        all.text += choice.delta ? choice.delta.content ?? '' : choice.text;
        all.finish = choice.finish_reason ?? all.finish;
        all.tokens.push(...(choice.logprobs?.content ?? []));
    }
    return all;
}

// The answer by this project's own protocol.
async function assist(url) {
    const plain = [{role: 'system', content: 'Be brief.'}, {role: 'user', content: 'Tell me of a fox.'}];
    const reply = await fetch(url + '/v1/assist', {
        method: 'POST',
        body: JSON.stringify({messages: plain, tokens_max: 24, sampling: {temperature: 0}}),
    });
    const events = (await reply.text()).split('\n\n').filter((e) => e.startsWith('event: token'));
    return events.map((e) => JSON.parse(e.slice(e.indexOf('data: ') + 6)).text).join('');
}

const cases = {
    // An answer that depends on how it was asked for.
    async same_answer_by_every_way({url, api}) {
        const whole = await api.chat.completions.create(greedy);
        const stream = await gather(await api.chat.completions.create({...greedy, stream: true}));
        assert.ok(stream.text.length > 20);
        assert.equal(whole.choices[0].message.content, stream.text);
        assert.equal(await assist(url), stream.text);
        assert.equal(whole.choices[0].message.role, 'assistant');
        assert.equal(stream.finish, 'length');
    },
    // A stream that the client's own collector does not understand.
    async stream_helper({api}) {
        const runner = api.chat.completions.stream(greedy);
        const text = await runner.finalContent();
        assert.equal((await api.chat.completions.create(greedy)).choices[0].message.content, text);
    },
    async completions({api}) {
        const ask = {model: 'tale', prompt: 'Once upon a time', temperature: 0, max_tokens: 20};
        const whole = await api.completions.create(ask);
        const stream = await gather(await api.completions.create({...ask, stream: true}));
        assert.equal(whole.object, 'text_completion');
        assert.equal(whole.choices[0].text, stream.text);
        assert.equal(whole.usage.completion_tokens, 20);
        const ids = (await (await fetch(api.baseURL.replace('/v1', '/tokenize'), {
            method: 'POST', body: JSON.stringify({prompt: ask.prompt})})).json()).tokens;
        assert.equal((await api.completions.create({...ask, prompt: ids})).choices[0].text, stream.text);
    },
    // Usage that is missing, or that hides what the prefix cache saved.
    async usage({api}) {
        const ask = {...greedy, stream: true, stream_options: {include_usage: true}};
        const story = 'A fox went over the hill and met a hare. '.repeat(12);
        ask.messages = [...messages, {role: 'assistant', content: story}, {role: 'user', content: 'And?'}];
        const first = await gather(await api.chat.completions.create(ask));
        const second = await gather(await api.chat.completions.create(ask));
        assert.ok(first.usage.completion_tokens > 0);
        assert.equal(first.usage.total_tokens, first.usage.prompt_tokens + first.usage.completion_tokens);
        assert.ok(second.usage.prompt_tokens_details.cached_tokens >= 64);
        assert.equal(first.text, second.text);
    },
    async stop_strings({api}) {
        const {text} = await gather(await api.chat.completions.create({...greedy, stream: true}));
        const stop = text.slice(9, 14);
        const want = text.slice(0, text.indexOf(stop));
        const stopped = await api.chat.completions.create({...greedy, stop: ['never said', stop]});
        const stream = await gather(await api.chat.completions.create({...greedy, stop, stream: true}));
        assert.equal(stopped.choices[0].message.content, want);
        assert.equal(stopped.choices[0].finish_reason, 'stop');
        assert.equal(stream.text, want);
        assert.equal(stream.finish, 'stop');
    },
    async logprobs({api}) {
        const ask = {...greedy, logprobs: true, top_logprobs: 5};
        const whole = (await api.chat.completions.create(ask)).choices[0];
        const stream = await gather(await api.chat.completions.create({...ask, stream: true}));
        assert.equal(whole.logprobs.content.length, 24);
        assert.deepEqual(whole.logprobs.content, stream.tokens);
        const bytes = whole.logprobs.content.flatMap((t) => t.bytes);
        assert.ok(Buffer.from(bytes).toString().trimStart() === whole.message.content);
        for (const token of whole.logprobs.content) {
            assert.equal(token.top_logprobs.length, 5);
            assert.equal(token.top_logprobs[0].token, token.token); // greedy
            assert.ok(token.logprob <= 0);
        }
        const short = {model: 'tale', prompt: 'A fox', max_tokens: 4, temperature: 0, logprobs: 2};
        const text = await api.completions.create(short);
        assert.equal(text.choices[0].logprobs.tokens.length, 4);
        assert.equal(text.choices[0].logprobs.text_offset[0], 0);
    },
    async seed({api}) {
        const ask = {...greedy, temperature: 1.5, seed: 12};
        const text = async (q) => (await api.chat.completions.create(q)).choices[0].message.content;
        assert.equal(await text(ask), await text(ask));
        assert.notEqual(await text(ask), await text({...ask, seed: 13}));
    },
    // A cloud that goes on for a client who has gone.
    async abort_cancels({slow}) {
        const api = client(slow);
        const stream = await api.chat.completions.create({...greedy, model: 'fake', max_tokens: 2000, stream: true});
        let n = 0;
        for await (const _ of stream) if (++n === 5) break; // the client aborts
        await until('cancelled', async () => (await metric(slow, 'pdd_requests_cancelled_total{phase="decode"}')) >= 1);
        assert.equal(await metric(slow, 'pdd_num_requests_running'), 0);
    },
    async bad_request({api}) {
        for (const [param, value] of [['n', 0], ['tools', [{type: 'function', function: {name: 'f'}}]],
                                      ['temperature', -1], ['frequency_penalty', 2.5],
                                      ['response_format', {type: 'json_object'}]])
            await assert.rejects(api.chat.completions.create({...greedy, [param]: value}), (e) => {
                assert.ok(e instanceof OpenAI.BadRequestError, String(e));
                assert.equal(e.param, param);
                assert.equal(e.type, 'invalid_request_error');
                return true;
            });
    },
    async not_found({api}) {
        await assert.rejects(api.chat.completions.create({...greedy, model: 'gpt-4o'}), OpenAI.NotFoundError);
        await assert.rejects(api.models.retrieve('gpt-4o'), OpenAI.NotFoundError);
    },
    async authentication({guarded}) {
        await assert.rejects(client(guarded).models.list(), OpenAI.AuthenticationError);
        const api = client(guarded, {apiKey: secret});
        assert.equal((await api.models.list()).data.length, 1);
    },
    // A full server answers 429, and names when to come again.
    async rate_limit({slow}) {
        const api = client(slow);
        const ask = {...greedy, model: 'fake', max_tokens: 2000, stream: true};
        const abort = new AbortController();
        const busy = [1, 2, 3, 4].map(() => api.chat.completions.create(ask, {signal: abort.signal}));
        const refused = await new Promise((yes, no) => {
            busy.forEach((p) => p.catch(yes));
            setTimeout(() => no(new Error('nobody was refused')), 60000).unref();
        });
        abort.abort();
        assert.ok(refused instanceof OpenAI.RateLimitError, String(refused));
        assert.ok(Number(refused.headers.get('retry-after')) >= 1);
    },
    async models({api}) {
        const list = await api.models.list();
        assert.equal(list.data[0].id, 'tale');
        const one = await api.models.retrieve('tale');
        assert.deepEqual(one.id, list.data[0].id);
        assert.equal(one.object, 'model');
        assert.ok(one.created > 1.7e9);
    },
};

async function main() {
    const keys = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'pdd-e2e-')), 'keys');
    const line = execFileSync(pdd, ['cloud', 'key', 'e2e', '--hash'], {input: secret + '\n'});
    fs.writeFileSync(keys, line, {mode: 0o600});
    const url = await cloud('--model', model, '--model-name', 'tale');
    const slow = await cloud('--fake', '3000', '--fake-beat-us', '5000', '--streams-max', '1', '--queue-max', '1');
    const guarded = await cloud('--fake', '8', '--key-file', keys);
    announce(Object.keys(cases).length);
    for (const [name, test] of Object.entries(cases)) await run(name, () => test({url, slow, guarded, api: client(url)}));
    fs.rmSync(path.dirname(keys), {recursive: true});
}

main().then(() => failed > 0, (e) => (console.log(e.stack), true)).then((bad) => {
    end();
    process.exitCode = bad ? 1 : 0;
});
