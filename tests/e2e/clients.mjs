// clients.mjs PDD MODEL: three clients of npm (openai, ai with @ai-sdk/openai-compatible, @langchain/openai) with all that is
// served: by `pdd cloud` with its own engine, by `pdd cloud --upstream` over a scripted server and, where PDD_LLAMA_SERVER
// names one, over a real llama-server, and by `pdd device`. Each case says what it catches.
import assert from 'node:assert/strict';
import {execFileSync, spawn} from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {createOpenAICompatible} from '@ai-sdk/openai-compatible';
import {AIMessage, HumanMessage, ToolMessage} from '@langchain/core/messages';
import {ChatOpenAI, OpenAI as LangText} from '@langchain/openai';
import {APICallError, generateObject, generateText, jsonSchema, stepCountIs, streamObject, streamText, tool} from 'ai';
import OpenAI from 'openai';
import {announce, end, failed, metric, run, start, until} from './harness.mjs';
import {startUpstream} from './upstream.mjs';

const [pdd, model] = process.argv.slice(2);
const llamaServer = process.env.PDD_LLAMA_SERVER;
const template = path.join(path.dirname(fileURLToPath(import.meta.url)), 'tools.jinja'); // knows tools
const state = fs.mkdtempSync(path.join(os.tmpdir(), 'pdd-e2e-'));
const secret = 'pdd-0123456789abcdef0123456789abcdef';
const passage = 'The keeper oiled the wheels of the clock before midnight. ';

const hi = [{role: 'user', content: 'Hi'}];
const say = (content) => [{role: 'user', content}];
const schema = {type: 'object', properties: {city: {type: 'string', enum: ['Rome', 'Oslo']}}, required: ['city'], additionalProperties: false};
const weather = {type: 'function', function: {name: 'weather', description: 'The weather of a city', parameters: schema}};
const format = {type: 'json_schema', json_schema: {name: 'place', schema, strict: true}};
const history = [
    {role: 'user', content: passage + 'Who oiled the wheels?'},
    {role: 'assistant', content: null, tool_calls: [{id: 'c1', type: 'function', function: {name: 'weather', arguments: '{"city":"Rome"}'}}]},
    {role: 'tool', tool_call_id: 'c1', content: 'sunny'},
    {role: 'user', content: 'Who oiled the wheels?'},
];

const openai = (url, options = {}) => new OpenAI({baseURL: url + '/v1', apiKey: 'none', maxRetries: 0, timeout: 60000, ...options});
const aiSdk = (url, name, options = {}) => createOpenAICompatible({
    name: 'pdd', baseURL: url + '/v1', apiKey: 'none', includeUsage: true, supportsStructuredOutputs: true, ...options}).chatModel(name);
const lang = (url, name, options = {}) => new ChatOpenAI({model: name, apiKey: 'none', maxRetries: 0, configuration: {baseURL: url + '/v1'}, ...options});

async function all(stream) {
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return chunks;
}
const textOf = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? '').join('');

// What every one of the three serves, with a model that answers by itself.
const served = {
    // An answer that depends on the client, or on whether it is streamed; counts that are missing.
    async openai_chat({api, name, url}) {
        const ask = {model: name, messages: say(passage + 'Who oiled the wheels?'), temperature: 0, max_tokens: 12};
        const whole = await api.chat.completions.create(ask);
        const chunks = await all(await api.chat.completions.create({...ask, stream: true, stream_options: {include_usage: true}}));
        assert.ok(whole.choices[0].message.content.length > 2);
        assert.equal(textOf(chunks), whole.choices[0].message.content);
        assert.equal(chunks.at(-1).usage.completion_tokens, whole.usage.completion_tokens);
        const {text, usage} = await generateText({model: aiSdk(url, name), messages: ask.messages, temperature: 0, maxOutputTokens: 12});
        assert.equal(text, whole.choices[0].message.content);
        assert.equal(usage.outputTokens, whole.usage.completion_tokens);
        const said = await lang(url, name, {temperature: 0, maxTokens: 12}).invoke([new HumanMessage(ask.messages[0].content)]);
        assert.equal(said.content, text);
        assert.equal(said.usage_metadata.output_tokens, usage.outputTokens);
    },
    async streams_of_all_clients({name, url}) {
        const prompt = passage + 'When?';
        const {textStream, usage, finishReason} = streamText({model: aiSdk(url, name), prompt, temperature: 0, maxOutputTokens: 9});
        const text = (await all(textStream)).join('');
        assert.ok(text.length > 2 && (await usage).outputTokens > 0);
        assert.ok(['stop', 'length'].includes(await finishReason));
        const chunks = await all(await lang(url, name, {temperature: 0, maxTokens: 9}).stream(prompt));
        assert.equal(chunks.map((c) => c.content).join(''), text);
    },
    async stop_and_seed({api, name, url}) {
        const ask = {model: name, messages: say('Tell me of a fox.'), max_tokens: 16, temperature: 0};
        const text = (await api.chat.completions.create(ask)).choices[0].message.content;
        const stop = text.slice(4, 8);
        const cut = await generateText({model: aiSdk(url, name), prompt: 'Tell me of a fox.', temperature: 0, maxOutputTokens: 16, stopSequences: [stop]});
        assert.equal(cut.text, text.slice(0, text.indexOf(stop)));
        const drawn = async (seed) => (await api.chat.completions.create({...ask, temperature: 1.2, seed})).choices[0].message.content;
        assert.equal(await drawn(5), await drawn(5));
    },
    // A conversation with calls of functions and their results.
    async history_of_tools({api, name}) {
        const ask = {model: name, messages: history, tools: [weather], tool_choice: 'none', temperature: 0, max_tokens: 8};
        const whole = await api.chat.completions.create(ask);
        assert.ok(whole.choices[0].message.content.length > 2);
        assert.equal(textOf(await all(await api.chat.completions.create({...ask, stream: true}))), whole.choices[0].message.content);
    },
    // A thought that is lost, or told as the answer.
    async thoughts_apart({api, name, url}) {
        const ask = {model: name, messages: say('Who?'), temperature: 0, max_tokens: 5, enable_thinking: true};
        const {message} = (await api.chat.completions.create(ask)).choices[0];
        assert.ok(message.reasoning_content.length > 2 && !message.content);
        const chunks = await all(await api.chat.completions.create({...ask, stream: true}));
        assert.equal(chunks.map((c) => c.choices[0]?.delta.reasoning_content ?? '').join(''), message.reasoning_content);
        assert.equal(textOf(chunks), '');
        const options = {model: aiSdk(url, name), prompt: 'Who?', temperature: 0, maxOutputTokens: 5, providerOptions: {pdd: {enable_thinking: true}}};
        assert.equal((await generateText(options)).reasoningText, message.reasoning_content);
        assert.equal(await streamText(options).reasoningText, message.reasoning_content);
        const llm = lang(url, name, {temperature: 0, maxTokens: 5, modelKwargs: {enable_thinking: true}});
        assert.equal((await llm.invoke('Who?')).content, '');
        assert.equal((await all(await llm.stream('Who?'))).map((c) => c.content).join(''), '');
    },
    // Each client leaves in the middle of an answer; what computes it must not go on.
    async aborts({api, name, url, idle}) {
        const long = {ignore_eos: true}, prompt = 'Tell me of a fox.';
        const stream = await api.chat.completions.create({model: name, messages: say(prompt), max_tokens: 1500, stream: true, ...long});
        for await (const _ of stream) { stream.controller.abort(); break; }
        await until('idle after openai', idle);
        const whole = new AbortController();
        setTimeout(() => whole.abort(), 50);
        await assert.rejects(api.chat.completions.create({model: name, messages: say(prompt), max_tokens: 1500, ...long}, {signal: whole.signal}),
                             OpenAI.APIUserAbortError);
        await until('idle after a whole one', idle);
        const left = new AbortController();
        const {fullStream} = streamText({model: aiSdk(url, name), prompt, maxOutputTokens: 1500, abortSignal: left.signal,
                                         providerOptions: {pdd: long}, onError() {}});
        let aborted = false;
        for await (const part of fullStream) {
            if (part.type === 'text-delta') left.abort();
            aborted ||= part.type === 'abort';
        }
        assert.ok(aborted);
        await until('idle after ai', idle);
        const gone = new AbortController();
        await assert.rejects(async () => {
            for await (const _ of await lang(url, name, {maxTokens: 1500, modelKwargs: long}).stream(prompt, {signal: gone.signal})) gone.abort();
        });
        await until('idle after langchain', idle);
    },
    async batch({name, url}) {
        const llm = lang(url, name, {temperature: 0, maxTokens: 4}), prompts = ['A fox?', 'A hare?', 'A clock?'];
        const answers = await llm.batch(prompts);
        assert.deepEqual(answers.map((a) => a.content), [await llm.invoke(prompts[0]), await llm.invoke(prompts[1]), await llm.invoke(prompts[2])].map((a) => a.content));
    },
    async models_and_errors({api, name, url}) {
        const list = (await api.models.list()).data;
        assert.equal(list[0].id, name);
        await assert.rejects(api.chat.completions.create({model: 'gpt-4o', messages: hi}), OpenAI.NotFoundError);
        await assert.rejects(api.chat.completions.create({model: name, messages: hi, temperature: -1}), (e) =>
            e instanceof OpenAI.BadRequestError && e.param === 'temperature');
        await assert.rejects(api.embeddings.create({model: name, input: 'x'}), OpenAI.NotFoundError);
        await assert.rejects(generateText({model: aiSdk(url, 'gpt-4o'), prompt: 'x', maxRetries: 0}), (e) =>
            APICallError.isInstance(e) && e.statusCode === 404);
        await assert.rejects(lang(url, 'gpt-4o').invoke('x'), (e) => e.status === 404 || /404/.test(e.message));
    },
};

// What a cloud serves and a device does not.
const cloudOnly = {
    async choices_and_probabilities({api, name}) {
        const ask = {model: name, messages: say('Tell me of a fox.'), max_tokens: 6, temperature: 0.9, seed: 3, n: 2, logprobs: true, top_logprobs: 2};
        const whole = await api.chat.completions.create(ask);
        assert.deepEqual(whole.choices.map((c) => c.index), [0, 1]);
        for (const c of whole.choices) assert.equal(c.logprobs.content[0].top_logprobs.length, 2);
        const chunks = await all(await api.chat.completions.create({...ask, stream: true}));
        for (const index of [0, 1]) {
            const own = chunks.flatMap((c) => c.choices).filter((c) => c.index === index);
            assert.equal(own.at(-1).finish_reason, whole.choices[index].finish_reason);
            assert.equal(own.filter((c) => c.delta.role).length, 1);
        }
    },
    async penalties_and_bias({api, name}) {
        const ask = {model: name, messages: say('Tell me of a fox.'), max_tokens: 12, temperature: 0};
        const text = async (more) => (await api.chat.completions.create({...ask, ...more})).choices[0].message.content;
        assert.notEqual(await text({}), await text({frequency_penalty: 2, presence_penalty: 2, logit_bias: {400: 100}}));
    },
    async completions({api, name, url}) {
        const ask = {model: name, prompt: ['The keeper', 'A fox'], max_tokens: 5, temperature: 0};
        const whole = await api.completions.create(ask);
        assert.deepEqual(whole.choices.map((c) => c.index), [0, 1]);
        const chunks = await all(await api.completions.create({...ask, stream: true}));
        for (const c of whole.choices)
            assert.equal(chunks.flatMap((x) => x.choices).filter((x) => x.index === c.index).map((x) => x.text).join(''), c.text);
        const llm = new LangText({model: name, apiKey: 'none', maxRetries: 0, temperature: 0, maxTokens: 5, configuration: {baseURL: url + '/v1'}});
        assert.equal(await llm.invoke('The keeper'), whole.choices[0].text);
    },
};

// What only the server behind computes.
const passed = {
    // A call that is lost, or whose parts are put together wrongly, with any client.
    async openai_tools({api, name}) {
        const ask = {model: name, messages: say('Weather?'), tools: [weather], tool_choice: 'required', n: 2};
        const whole = await api.chat.completions.create(ask);
        assert.equal(whole.choices.length, 2);
        assert.equal(whole.choices[1].message.tool_calls[1].function.arguments, '{"city":"Oslo"}');
        assert.equal(whole.system_fingerprint, 'fp_script');
        const made = await api.chat.completions.stream(ask).finalChatCompletion();
        for (const i of [0, 1]) {
            assert.equal(made.choices[i].finish_reason, 'tool_calls');
            assert.deepEqual(made.choices[i].message.tool_calls.map((c) => [c.id, c.function.arguments]),
                             whole.choices[i].message.tool_calls.map((c) => [c.id, c.function.arguments]));
        }
    },
    async ai_sdk_tools({name, url}) {
        const tools = {weather: tool({description: 'x', inputSchema: jsonSchema(schema)})};
        const {toolCalls, finishReason} = await generateText({model: aiSdk(url, name), prompt: 'Weather?', tools});
        assert.deepEqual(toolCalls.map((c) => c.input.city), ['Rome', 'Oslo']);
        assert.equal(finishReason, 'tool-calls');
        const stream = streamText({model: aiSdk(url, name), prompt: 'Weather?', tools});
        assert.deepEqual((await stream.toolCalls).map((c) => c.input.city), ['Rome', 'Oslo']);
    },
    // A whole round: the call, its result, the answer.
    async langchain_tools({name, url}) {
        const llm = lang(url, name).bindTools([weather]);
        const asked = new HumanMessage('Weather?'), call = await llm.invoke([asked]);
        assert.deepEqual(call.tool_calls.map((c) => c.args.city), ['Rome', 'Oslo']);
        const results = call.tool_calls.map((c) => new ToolMessage({content: 'sunny', tool_call_id: c.id}));
        assert.equal((await llm.invoke([asked, new AIMessage(call), ...results])).content, 'Hi 0');
        const chunks = await all(await llm.stream([asked]));
        assert.deepEqual(chunks.reduce((a, b) => a.concat(b)).tool_calls.map((c) => c.args.city), ['Rome', 'Oslo']);
    },
    // Two turns that the client's own loop makes.
    async loops_of_tools({api, name, url}) {
        const cities = [];
        const execute = ({city}) => (cities.push(city), 'sunny');
        const runner = api.chat.completions.runTools({model: name, messages: say('Weather?'),
            tools: [{type: 'function', function: {...weather.function, function: execute, parse: JSON.parse}}]});
        assert.equal(await runner.finalContent(), 'Hi 0');
        const tools = {weather: tool({description: 'x', inputSchema: jsonSchema(schema), execute})};
        const {text, steps} = await generateText({model: aiSdk(url, name), prompt: 'Weather?', tools, stopWhen: stepCountIs(3)});
        assert.equal(text, 'Hi 0');
        assert.equal(steps.length, 2);
        assert.deepEqual(cities, ['Rome', 'Oslo', 'Rome', 'Oslo']);
    },
    // 429 with Retry-After is asked again by each client, and answered; a client's own time-out frees the slot.
    async retries_and_timeouts({api, name, url}) {
        const ask = (client) => ({model: name, messages: say('busy once ' + client), tools: [weather], tool_choice: 'none'});
        const [one, two, three] = await Promise.all([
            openai(url, {maxRetries: 1}).chat.completions.create(ask('openai')),
            generateText({model: aiSdk(url, name), prompt: 'busy once ai', maxRetries: 1}),
            lang(url, name, {maxRetries: 1}).invoke('busy once langchain')]);
        assert.deepEqual([one.choices[0].message.content, two.text, three.content], ['Hi 0', 'Hi 0', 'Hi 0']);
        await assert.rejects(api.chat.completions.create({...ask('x'), messages: say('wait')}, {timeout: 100}), OpenAI.APIConnectionTimeoutError);
        await assert.rejects(lang(url, name, {timeout: 100}).invoke('wait'), /[Tt]imed out|[Tt]imeout/);
        await until('a free slot', async () => (await metric(url, 'pdd_num_requests_running')) === 0);
    },
    async json({api, name, url, script}) {
        const parsed = await api.chat.completions.parse({model: name, messages: hi, response_format: format});
        assert.deepEqual(JSON.parse(parsed.choices[0].message.content), {city: 'Rome'});
        assert.deepEqual(script.state.asked.response_format, format);
        assert.deepEqual((await generateObject({model: aiSdk(url, name), schema: jsonSchema(schema), prompt: 'x'})).object, {city: 'Rome'});
        const shaped = lang(url, name).withStructuredOutput(schema, {name: 'place', method: 'jsonSchema'});
        assert.deepEqual(await shaped.invoke('x'), {city: 'Rome'});
        assert.deepEqual(await lang(url, name).withStructuredOutput(schema, {name: 'weather', method: 'functionCalling'}).invoke('x'), {city: 'Rome'});
        assert.deepEqual(await lang(url, name).withStructuredOutput(schema, {method: 'jsonMode'}).invoke('x'), {city: 'Rome'});
        const parts = streamObject({model: aiSdk(url, name), schema: jsonSchema(schema), prompt: 'x'});
        assert.deepEqual((await all(parts.partialObjectStream)).at(-1), {city: 'Rome'});
    },
    async thoughts({name, url}) {
        const options = {model: aiSdk(url, name), prompt: 'x', providerOptions: {pdd: {reasoningEffort: 'low'}}};
        assert.equal((await generateText(options)).reasoningText, 'Let me think');
        const stream = streamText(options);
        assert.equal(await stream.reasoningText, 'Let me think');
        assert.equal(await stream.text, 'Hi 0');
        const said = await lang(url, name, {modelKwargs: {reasoning_effort: 'low'}}).invoke('x');
        assert.equal(said.additional_kwargs.reasoning_content ?? 'Let me think', 'Let me think');
    },
    async probabilities_and_counts({api, name}) {
        const ask = {model: name, messages: hi, logprobs: true, stream: true, stream_options: {include_usage: true}};
        const chunks = await all(await api.chat.completions.create(ask));
        assert.equal(chunks[0].choices[0].logprobs.content[0].logprob, -0.25);
        assert.deepEqual(chunks.at(-1).usage.prompt_tokens_details, {cached_tokens: 3});
        const echo = await api.completions.create({model: name, prompt: ['a', 'b'], echo: true});
        assert.deepEqual(echo.choices.map((c) => c.text), ['a is it', 'b is it']);
    },
    async their_errors({api, name, url}) {
        const ask = {model: name, tools: [weather]};
        await assert.rejects(api.chat.completions.create({...ask, messages: say('wrong')}), (e) =>
            e instanceof OpenAI.BadRequestError && e.param === 'tools' && e.code === 'bad_tools');
        await assert.rejects(api.chat.completions.create({...ask, messages: say('busy')}), (e) =>
            e instanceof OpenAI.RateLimitError && e.headers.get('retry-after') === '7');
        await assert.rejects(generateText({model: aiSdk(url, name), prompt: 'busy', n: 2, maxRetries: 0}), (e) => e.statusCode === 429);
    },
    // A server that dies in the middle of a call, or says that it fails: an error with any client, never an answer that looks whole.
    async deaths({api, name, url}) {
        for (const word of ['die', 'fail']) {
            const ask = {model: name, messages: say(word), tools: [weather], n: 2, stream: true};
            if (word === 'fail') ask.tool_choice = 'none';
            const seen = [];
            const read = async () => { for await (const c of await api.chat.completions.create(ask)) seen.push(c); };
            if (word === 'die') {
                await assert.rejects(read(), (e) => e instanceof OpenAI.APIError && /upstream/.test(e.message));
                assert.ok(seen.length > 0);
                const tools = {weather: tool({description: 'x', inputSchema: jsonSchema(schema)})};
                const parts = await all(streamText({model: aiSdk(url, name), prompt: word, tools, maxRetries: 0, onError() {}}).fullStream);
                assert.ok(parts.some((p) => p.type === 'error'));
                await assert.rejects(lang(url, name).bindTools([weather]).stream(word).then(all));
            } else {
                await read(); // both choices were whole before it failed
                assert.deepEqual(seen.flatMap((c) => c.choices).filter((c) => c.finish_reason).map((c) => c.index), [0, 1]);
            }
        }
    },
    // A client that leaves, and a stream that goes on behind it.
    async abort_frees({api, name, url, script}) {
        const before = script.state.closed;
        const stream = await api.chat.completions.create({model: name, messages: say('go on'), tools: [weather], stream: true});
        let n = 0;
        for await (const _ of stream) if (++n === 3) break;
        await until('the end of the stream', () => script.state.closed > before);
        await until('a free slot', async () => (await metric(url, 'pdd_num_requests_running')) === 0);
    },
};

// A real llama-server behind.
const llama = {
    // Its template begins a call with one token, which the bias makes certain (tools.jinja).
    async tools({api, name, at}) {
        const ask = {model: name, messages: say('Weather?'), tools: [weather], tool_choice: {type: 'function', function: {name: 'weather'}},
                     temperature: 0, max_tokens: 80, logit_bias: {[at]: 100}};
        const check = (call) => {
            assert.equal(call.function.name, 'weather');
            assert.ok(['Rome', 'Oslo'].includes(JSON.parse(call.function.arguments).city));
        };
        const whole = await api.chat.completions.create(ask);
        check(whole.choices[0].message.tool_calls[0]);
        const calls = (await all(await api.chat.completions.create({...ask, stream: true}))).flatMap((c) => c.choices[0]?.delta.tool_calls ?? []);
        const first = calls.filter((c) => c.index === 0);
        check({function: {name: first[0].function.name, arguments: first.map((c) => c.function.arguments ?? '').join('')}});
    },
    async json_and_choice({api, name, url}) {
        const parsed = await api.chat.completions.create({model: name, messages: hi, response_format: format, temperature: 0});
        assert.ok(['Rome', 'Oslo'].includes(JSON.parse(parsed.choices[0].message.content).city));
        const {object} = await generateObject({model: aiSdk(url, name), schema: jsonSchema(schema), prompt: 'x', temperature: 0});
        assert.ok(['Rome', 'Oslo'].includes(object.city));
        const chosen = await api.chat.completions.create({model: name, messages: hi, guided_choice: ['red', 'blue'], temperature: 0});
        assert.ok(['red', 'blue'].includes(chosen.choices[0].message.content));
        await assert.rejects(api.chat.completions.create({model: name, messages: hi, guided_regex: 'a'}), (e) => e.param === 'guided_regex');
    },
    // Steps of the prefill, where options are passed on.
    async progress({api, name}) {
        const ask = {model: name, messages: say(passage.repeat(40)), n: 2, max_tokens: 2, stream: true, return_progress: true};
        const steps = (await all(await api.chat.completions.create(ask))).filter((c) => c.prompt_progress).map((c) => c.prompt_progress);
        assert.ok(steps.length > 0 && steps.at(-1).processed === steps.at(-1).total && steps.at(-1).total > 400);
    },
    async completion_probabilities({api, name}) {
        const {logprobs} = (await api.completions.create({model: name, prompt: 'The', max_tokens: 3, logprobs: 2, temperature: 0})).choices[0];
        assert.equal(logprobs.tokens.length, 3);
        assert.ok(logprobs.token_logprobs.every((p) => p <= 0));
    },
};

// The keys of a cloud, and its limits.
const keys = {
    // Tokens that only the end of a passed answer tells, and that cost a key nothing.
    async tokens_of_a_key({metered}) {
        const api = openai(metered, {apiKey: secret}), ask = {model: 'script', messages: hi, tools: [weather]};
        const before = [await metric(metered, 'pdd_prompt_tokens_total', secret), await metric(metered, 'pdd_generation_tokens_total', secret)];
        await api.chat.completions.create(ask); // 7 and 5 tokens, of 10 a minute
        assert.equal(await metric(metered, 'pdd_prompt_tokens_total', secret), before[0] + 7);
        assert.equal(await metric(metered, 'pdd_generation_tokens_total', secret), before[1] + 5);
        await assert.rejects(api.chat.completions.create(ask), OpenAI.RateLimitError);
    },
    async classes({guarded}) {
        await assert.rejects(openai(guarded).models.list(), OpenAI.AuthenticationError);
        await assert.rejects(generateText({model: aiSdk(guarded, 'fake'), prompt: 'x', maxRetries: 0}), (e) => e.statusCode === 401);
        assert.equal((await openai(guarded, {apiKey: secret}).models.list()).data.length, 1);
    },
    // More choices, passed on to another server, than the key may have streams.
    async choices_of_a_key({narrow}) {
        const api = openai(narrow, {apiKey: secret}), ask = {model: 'script', messages: hi, tools: [weather]};
        assert.equal((await api.chat.completions.create({...ask, n: 2})).choices.length, 2);
        await assert.rejects(api.chat.completions.create({...ask, n: 3}), (e) => e instanceof OpenAI.BadRequestError && e.param === 'n');
        await assert.rejects(api.completions.create({model: 'script', prompt: 'a', best_of: 3}), (e) =>
            e instanceof OpenAI.BadRequestError && e.param === 'best_of');
    },
};

async function startLlama(port) {
    const folder = path.dirname(llamaServer);
    const child = spawn(llamaServer, ['-m', model, '--alias', 'real', '--host', '127.0.0.1', '--port', String(port), '-c', '4096', '-np', '4',
        '-t', '1', '--jinja', '--chat-template-file', template],
        {stdio: 'ignore', env: {...process.env, LD_LIBRARY_PATH: folder}});
    const url = `http://127.0.0.1:${port}`;
    await until('a llama-server', async () => (await fetch(url + '/health').catch(() => null))?.status === 200);
    return {url, child};
}

async function freePort() {
    const found = await startUpstream();
    found.close();
    return Number(new URL(found.url).port);
}

const cloudOver = async (url, ...args) => {
    const {url: front} = await start(pdd, 'cloud', '--upstream', url, ...args);
    await until('an upstream', async () => (await fetch(front + '/ready')).status === 200);
    return front;
};

async function main() {
    const stage = async (url, gauge = 'pdd_num_requests_running') => ({url, api: openai(url), name: (await openai(url).models.list()).data[0].id,
                                                                       idle: async () => (await metric(url, gauge)) === 0});
    const keyFile = path.join(state, 'keys');
    const line = String(execFileSync(pdd, ['cloud', 'key', 'e2e', '--hash'], {input: secret + '\n'})).trim();
    fs.writeFileSync(keyFile, line + ' streams=2\n', {mode: 0o600});
    const script = await startUpstream();
    const engine = ['--model', model, '--threads', '1', '--chat-template-file', template];
    const own = await stage((await start(pdd, 'cloud', ...engine)).url);
    const scripted = {...await stage(await cloudOver(script.url)), script};
    const device = await stage((await start(pdd, 'device', ...engine, '--state', state, '--cloud', own.url,
                                            '--refine', 'off', '--idle-fill', 'off')).url, 'pdd_answers_running');
    const guarded = (await start(pdd, 'cloud', '--fake', '8', '--key-file', keyFile)).url;
    const meteredFile = path.join(state, 'metered');
    fs.writeFileSync(meteredFile, line + ' tokens_per_minute=10\n', {mode: 0o600});
    const metered = await cloudOver(script.url, '--key-file', meteredFile);
    const narrow = await cloudOver(script.url, '--key-file', keyFile);
    const plan = [['cloud', {...served, ...cloudOnly}, own], ['upstream', passed, scripted], ['device', served, device], ['keys', keys, {guarded, narrow, metered}]];
    let real;
    if (llamaServer) {
        real = await startLlama(await freePort());
        const at = (await (await fetch(real.url + '/tokenize', {method: 'POST', body: '{"content":"@"}'})).json()).tokens[0];
        const {thoughts_apart, ...rest} = served; // llama-server tells none of this template
        plan.push(['llama', {...rest, ...cloudOnly, ...llama}, {...await stage(await cloudOver(real.url)), at}]);
    }
    announce(plan.reduce((n, [, cases]) => n + Object.keys(cases).length, llamaServer ? 0 : 1));
    for (const [who, cases, on] of plan) for (const [name, test] of Object.entries(cases)) await run(`${who}_${name}`, () => test(on));
    if (!llamaServer) console.log('[  SKIPPED ] llama_server: PDD_LLAMA_SERVER names none');
    script.close();
    real?.child.kill('SIGKILL');
}

main().then(() => failed > 0, (e) => (console.log(e.stack), true)).then((bad) => {
    end();
    fs.rmSync(state, {recursive: true, force: true});
    process.exitCode = bad ? 1 : 0;
    setTimeout(() => process.exit(), 1000).unref();
});
