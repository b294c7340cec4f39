// pictures.mjs PDD CHROMIUM FOLDER: the pictures of docs/, taken of real processes and the demonstration's model and document.
//
// The device is emulated as in ./demo.sh. The cloud reads the document once before, as it does there; on a busy machine
// the device's own prefill takes longer than the emulated one, and there is no handover to see: try again.
// The model that thinks is a script, as the demonstration's does not.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import {fileURLToPath} from 'node:url';
import {start} from './harness.mjs';
import * as site from './site.mjs';

const [pdd, executable, out, root = path.join(path.dirname(fileURLToPath(import.meta.url)), '../..')] = process.argv.slice(2);
const model = path.join(root, 'models/pdd-read-q6_k.gguf');
const logbook = fs.readFileSync(path.join(root, 'demo/logbook.txt'), 'utf8');
const {question, short} = JSON.parse(fs.readFileSync(path.join(root, 'demo/logbook.json'), 'utf8'));

const cloud = () => start(pdd, 'cloud', '--model', model, '--profile', 'provider-20ms');
const device = (...more) => start(pdd, 'device', '--model', model, '--profile', 's24-ultra-gpu', ...more);

async function post(url, body) {
    const response = await fetch(url, {method: 'POST', body: JSON.stringify(body)});
    assert.ok(response.ok, await response.text());
}

/** The cloud reads the document once, as fast as this machine can. */
const warm = (c) => post(c.url + '/v1/chat/completions', {messages: [{role: 'user', content: `${logbook.trimEnd()}\n\n${question}`}], max_tokens: 1});

async function shot(page, name) {
    const file = path.join(out, name + '.png');
    await page.screenshot({path: file});
    const {size} = fs.statSync(file);
    console.log(`${file}: ${size} bytes`);
    assert.ok(size < 150000, 'a picture of more than 150 kB');
}

/** Earlier conversations, for the list. */
async function earlier(url) {
    for (const [i, s] of short.toReversed().entries()) {
        const talk = {id: 'c' + i, title: s.question, messages: [{role: 'user', text: s.question}, {role: 'assistant', id: 'a' + i, asked: {}, finish: 'stop', parts: [['device', s.answer]]}]};
        await fetch(`${url}/v1/conversations/${talk.id}`, {method: 'PUT', body: JSON.stringify(talk)});
    }
}

async function ask(page) {
    await page.setInputFiles('#file', {name: 'logbook.txt', mimeType: 'text/plain', buffer: Buffer.from(logbook)});
    await page.waitForSelector('.chips small >> text=tokens');
    await page.fill('#question', question);
    await page.keyboard.press('Enter');
}

const phase = (page, name) => page.waitForSelector(`.strip[data-phase="${name}"]`, {timeout: 90000});

async function handover(c) {
    const d = await device('--cloud', c.url, '--state', site.folder());
    await earlier(d.url);
    const page = await site.tab(d.url, {viewport: {width: 1120, height: 740}});
    await ask(page);
    await phase(page, 'handover');
    await page.waitForTimeout(1400);
    await shot(page, 'page-handover');
    await page.waitForSelector('.summary', {timeout: 90000});
    await page.emulateMedia({colorScheme: 'dark'});
    await page.setViewportSize({width: 1120, height: 940});
    await page.click('.summary');
    await page.waitForTimeout(400);
    await shot(page, 'page-dark');
    const phone = await site.tab(page.url(), {viewport: {width: 390, height: 780}});
    await phone.waitForSelector('.summary');
    await phone.waitForTimeout(300);
    await shot(phone, 'page-phone');
    await phone.leave();
    await page.leave();
    await d.kill();
}

async function lost(c) {
    const d = await device('--cloud', c.url, '--state', site.folder());
    await earlier(d.url);
    const page = await site.tab(d.url, {viewport: {width: 1120, height: 700}});
    await ask(page);
    await phase(page, 'cloud');
    await page.waitForTimeout(2000);
    await c.kill();
    await page.waitForSelector('#banner:visible');
    await page.waitForFunction(() => document.querySelectorAll('.prose .device').length > 0 && document.querySelector('.prose').textContent.length > 420, undefined, {timeout: 90000});
    await shot(page, 'page-cloud-lost');
    await page.leave();
}

async function thoughts() {
    const thought = 'The logbook names the lantern twice.\n\n1. On Monday the sailor takes it ashore.\n2. On Thursday it hangs in the **chapel** of the harbour.\n\n' +
        'So it was left there in between, and the keeper\'s daughter is the first who speaks of it.';
    const answer = 'He left it **in the chapel** of the harbour, where the keeper\'s daughter found it.';
    const pieces = ['<think>\n', ...thought.match(/[^]{1,9}/g), '\n</think>\n\n', ...answer.match(/[^]{1,5}/g)];
    let gate = pieces.indexOf('\n</think>\n\n') - 1;
    const u = await site.upstream(pieces, 5, (i) => i < gate ? 1 : 0), c = await start(pdd, 'cloud', '--upstream', u.url);
    const d = await start(pdd, 'device', '--no-model', '--state', site.folder(), '--cloud', c.url);
    const page = await site.tab(d.url, {viewport: {width: 390, height: 640}, colorScheme: 'dark'});
    await page.fill('#question', 'Where did the old sailor leave the brass lantern?');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => /is the first/.test(document.querySelector('.thoughts')?.textContent));
    await shot(page, 'page-thoughts');
    await page.leave();
    u.close();
    await d.kill();
}

await site.open(executable);
try {
    await thoughts();
    const c = await cloud();
    await warm(c);
    await handover(c);
    await lost(c);
} finally {
    await site.close();
}
process.exit(0);
