// site.mjs: real processes for a case: clouds, devices, an upstream server that says what it is told, one browser.
import {spawn} from 'node:child_process';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import {chromium} from 'playwright-core';

const running = new Set();
const folders = [];
let browser;

/** What the processes complained of, for a case that fails. */
export const complaints = [];

export async function open(executablePath) {
    browser = await chromium.launch({executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage', '--disable-gpu']});
}

export async function close() {
    await browser?.close();
    for (const child of running) child.kill('SIGKILL');
    for (const f of folders) fs.rmSync(f, {recursive: true, force: true});
}

export function folder() {
    const f = fs.mkdtempSync(path.join(os.tmpdir(), 'pdd-page-'));
    folders.push(f);
    return f;
}

/** A `pdd COMMAND`, once it listens: {url, port, kill()}. */
export function start(pdd, command, ...args) {
    const listen = args.includes('--listen') ? [] : ['--listen', '127.0.0.1:0'];
    const child = spawn(pdd, [command, '--log-level', 'error', ...listen, ...args]);
    running.add(child);
    return new Promise((resolve, reject) => {
        let text = '';
        const look = (data) => {
            text += data;
            const found = text.match(/listening on (http:\/\/[^\s:]+:(\d+))/);
            if (found) resolve({url: found[1], port: Number(found[2]), kill: () => new Promise((gone) => {
                running.delete(child);
                child.once('exit', gone);
                child.kill('SIGKILL');
            })});
        };
        child.stdout.on('data', look);
        child.stderr.on('data', look);
        child.stderr.on('data', (data) => complaints.push(`${command} ${child.pid}: ${data}`));
        child.on('exit', (code) => reject(new Error(`pdd ${command} ended with ${code}: ${text}`)));
    });
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
