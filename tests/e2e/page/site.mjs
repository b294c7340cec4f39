// site.mjs: what surrounds the page in a case: an upstream server that says what it is told, folders, one browser.
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {chromium} from 'playwright-core';
import * as harness from './harness.mjs';

const folders = [];
let browser;

export async function open(executablePath) {
    browser = await chromium.launch({executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu']});
}

export async function close() {
    await browser?.close();
    harness.end();
    for (const f of folders) fs.rmSync(f, {recursive: true, force: true});
}

export function folder() {
    const f = fs.mkdtempSync(path.join(os.tmpdir(), 'pdd-page-'));
    folders.push(f);
    return f;
}

/** An OpenAI server of another kind, which streams `pieces` for every question: every so often burst(i) of them, from the i-th on. */
export function upstream(pieces, everyMs = 1, burst = () => 20) {
    const server = http.createServer((request, response) => {
        request.resume();
        if (request.url === '/v1/models') {
            response.end(JSON.stringify({object: 'list', data: [{id: 'told', object: 'model', owned_by: 'test'}]}));
            return;
        }
        if (request.url !== '/v1/chat/completions') {
            response.writeHead(request.url === '/health' ? 200 : 404).end();
            return;
        }
        server.asked++;
        response.writeHead(200, {'Content-Type': 'text/event-stream'});
        let i = 0;
        const put = (delta, finish) => response.write('data: ' + JSON.stringify({id: 'x', object: 'chat.completion.chunk', created: 1, model: 'told',
            choices: [{index: 0, delta, finish_reason: finish}]}) + '\n\n');
        const timer = setInterval(() => {
            for (let k = burst(i); k > 0 && i < pieces.length; k--) put({content: pieces[i++]}, null);
            if (i < pieces.length) return;
            clearInterval(timer);
            put({}, 'stop');
            response.end('data: [DONE]\n\n');
        }, everyMs);
        response.on('close', () => clearInterval(timer));
    });
    server.asked = 0;
    return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(Object.assign(server, {url: `http://127.0.0.1:${server.address().port}`}))));
}

/** A tab of a browser of its own, with what went wrong in it; `ready`: wait for the device's status. */
export async function tab(url, {ready = true, ...options} = {}) {
    const context = await browser.newContext({viewport: {width: 1100, height: 760}, acceptDownloads: true, reducedMotion: 'reduce', ...options});
    const page = await context.newPage();
    const wrong = [], asked = [];
    page.on('pageerror', (e) => wrong.push(e.stack));
    page.on('console', (m) => m.type() === 'error' && !/Failed to load resource/.test(m.text()) && wrong.push(m.text()));
    page.on('request', (r) => asked.push(r.url()));
    page.setDefaultTimeout(30000);
    await page.goto(url);
    if (ready) await page.waitForFunction(() => document.getElementById('where').childElementCount > 0);
    return Object.assign(page, {wrong, asked, leave: () => context.close()});
}
