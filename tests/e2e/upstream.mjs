// upstream.mjs: a server of OpenAI's API for tests, which does what the last message names. It knows tools, several choices,
// JSON and log-probabilities, and stands for servers that one cannot run here.
import http from 'node:http';

const usage = {prompt_tokens: 7, completion_tokens: 5, total_tokens: 12, prompt_tokens_details: {cached_tokens: 3}};

// What a request is answered, as the choices of a whole answer.
function choices(ask) {
    const texts = ask.messages ? Array(ask.n ?? 1).fill('') : [ask.prompt].flat().flatMap((p) => Array(ask.n ?? 1).fill(p));
    return texts.map((prompt, index) => {
        const choice = {index, finish_reason: 'stop', logprobs: null};
        if (ask.logprobs) choice.logprobs = {content: [{token: 'Hi', logprob: -0.25, bytes: [72, 105], top_logprobs: []}]};
        if (!ask.messages) return {...choice, logprobs: null, text: `${ask.echo ? prompt : ''} is it`};
        const message = {role: 'assistant', content: `Hi ${index}`, refusal: null};
        if (ask.response_format) message.content = '{"city":"Rome"}';
        if (ask.reasoning_effort) message.reasoning_content = 'Let me think';
        if (ask.tools && ask.tool_choice !== 'none' && ask.messages.at(-1).role !== 'tool') {
            message.content = null;
            message.tool_calls = ['Rome', 'Oslo'].map((city, i) => ({id: `call_${index}${i}`, type: 'function', function: {
                name: ask.tools[0].function.name, arguments: JSON.stringify({city})}}));
            choice.finish_reason = 'tool_calls';
        }
        return {...choice, message};
    });
}

// The same, in pieces.
function* pieces(choice) {
    const {message, ...rest} = choice, head = {index: choice.index, finish_reason: null};
    if (!message) {
        yield {...head, text: choice.text};
        yield {...head, text: '', finish_reason: choice.finish_reason};
        return;
    }
    yield {...head, delta: {role: 'assistant', content: ''}};
    if (message.reasoning_content) yield {...head, delta: {reasoning_content: message.reasoning_content}};
    for (const word of message.content?.split(/(?= )/) ?? []) yield {...head, delta: {content: word}, logprobs: rest.logprobs};
    for (const [index, call] of (message.tool_calls ?? []).entries()) {
        const {name, arguments: text} = call.function;
        yield {...head, delta: {tool_calls: [{index, id: call.id, type: 'function', function: {name, arguments: ''}}]}};
        for (const part of text.match(/.{1,5}/g)) yield {...head, delta: {tool_calls: [{index, function: {arguments: part}}]}};
    }
    yield {...head, delta: {}, finish_reason: choice.finish_reason};
}

const event = (data) => `data: ${JSON.stringify(data)}\n\n`;
const chunk = (choice) => ({id: 'theirs', object: 'x', created: 1, model: 'secret', system_fingerprint: 'fp_script', choices: [choice]});

function stream(ask, response, said, state) {
    response.writeHead(200, {'Content-Type': 'text/event-stream'});
    response.on('close', () => state.closed++);
    if (said === 'go on') {
        const timer = setInterval(() => response.write(event(chunk({index: 0, delta: {content: 'on '}}))), 5);
        response.on('close', () => clearInterval(timer));
        return;
    }
    const lists = choices(ask).map((c) => [...pieces(c)]);
    const longest = Math.max(...lists.map((l) => l.length)), half = said === 'die' ? 4 : longest;
    for (let i = 0; i < half; i++) for (const list of lists) if (list[i]) response.write(event(chunk(list[i])));
    if (said === 'die') return setTimeout(() => response.destroy(), 20);
    if (said === 'fail') response.write(event({error: {message: 'out of memory'}}));
    if (ask.stream_options?.include_usage) response.write(event({...chunk({}), choices: [], usage}));
    response.end('data: [DONE]\n\n');
}

function answer(ask, response, state) {
    const last = ask.messages?.at(-1).content, said = typeof last === 'string' ? last : '';
    const refuse = (status, error, headers = {}) => {
        response.writeHead(status, {'Content-Type': 'application/json', ...headers});
        response.end(JSON.stringify({error}));
    };
    if (said === 'wait') return;
    if (said.startsWith('busy once') && !state.refused.has(said)) {
        state.refused.add(said);
        return refuse(429, {message: 'slow down'}, {'Retry-After': '1'});
    }
    if (said === 'busy') return refuse(429, {message: 'slow down'}, {'Retry-After': '7'});
    if (said === 'wrong') return refuse(400, {message: 'tools must be good', param: 'tools', code: 'bad_tools'});
    if (ask.stream) return stream(ask, response, said, state);
    response.writeHead(200, {'Content-Type': 'application/json'});
    response.end(JSON.stringify({...chunk({}), choices: choices(ask), usage}));
}

/** {url, state, close()}: state.asked is the last request, state.closed how many streams have ended. */
export function startUpstream() {
    const state = {asked: null, closed: 0, refused: new Set()};
    const server = http.createServer(async (request, response) => {
        if (request.url === '/v1/models')
            return response.end(JSON.stringify({object: 'list', data: [{id: 'script', object: 'model', owned_by: 'somebody'}]}));
        let body = '';
        for await (const part of request) body += part;
        state.asked = JSON.parse(body || '{}');
        answer(state.asked, response, state);
    });
    return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve({
        url: `http://127.0.0.1:${server.address().port}`, state,
        close: () => (server.closeAllConnections(), server.close()),
    })));
}
