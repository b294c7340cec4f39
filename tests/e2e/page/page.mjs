// page.mjs PDD CHROMIUM [CASE...]: the page of `pdd device` in a real browser, with real servers that are killed and started
// again. Each case says what it catches.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import {announce, failed, run, start} from './harness.mjs';
import * as site from './site.mjs';

const [pdd, executable, ...only] = process.argv.slice(2);
const AT_ONCE = 4;
const LONGEST = ['answer_of_200_kB', 'conversations', 'accessibility']; // begin first
const question = 'Where did the old sailor leave the brass lantern, and who found it in the end? '.repeat(4).trim();
const FAKE = ['--fake', '140'];
const SLOW = ['--profile', 'oneplus12-1b', '--no-state']; // 50 tokens a second, and 1.3 s to read the question

const cloud = (...args) => start(pdd, 'cloud', ...FAKE, ...args);
const device = (...args) => start(pdd, 'device', ...args);

async function ask(page, text = question) {
    await page.fill('#question', text);
    await page.keyboard.press('Enter');
    await page.waitForSelector('.answer');
}

const over = (page) => page.waitForSelector('.answer:last-child .summary');
const tokens = (page, n) => page.waitForFunction((k) => (document.querySelector('.answer:last-child .prose')?.textContent.length ?? 0) >= k, n);
const plain = (text) => text.replace(/[*_`#>\s]+/g, '');

/** What the page shows is what the device has, each token once. */
async function same(page, url) {
    const list = await (await fetch(url + '/v1/answers')).json();
    const answer = await (await fetch(`${url}/v1/answers/${list.data[0].id}`)).json();
    assert.equal(plain(await page.textContent('.answer:last-child .prose')), plain(answer.text));
    return answer;
}

const cases = {
    // Tokens that come late, in the wrong colour, or with facts that do not add up.
    async first_token_and_tint() {
        const c = await cloud(), d = await device(...FAKE, ...SLOW, '--cloud', c.url), page = await site.tab(d.url);
        await ask(page);
        await page.waitForSelector('.strip[data-phase="cloud"]');
        assert.match(await page.textContent('.strip .right'), /reads along, \d+ %|^$/);
        await page.waitForSelector('.prose .cloud');
        await page.waitForSelector('.prose .device');
        await over(page);
        const {report} = await same(page, d.url);
        assert.ok(report.cloud_tokens > 0 && report.device_tokens > 0);
        assert.equal(await page.locator('.prose .seam').count(), 1);
        const lengths = await page.evaluate(() => ['cloud', 'device'].map((s) => [...document.querySelectorAll('.prose .' + s)].reduce((n, e) => n + e.textContent.length, 0)));
        assert.ok(lengths[0] > 0 && lengths[1] > 0);
        const back = () => page.evaluate(() => getComputedStyle(document.querySelector('.prose .cloud')).backgroundColor);
        const tinted = await back();
        await page.click('#tint');
        assert.notEqual(await back(), tinted);
        assert.equal(await page.getAttribute('#tint', 'aria-pressed'), 'false');
        await page.click('.summary');
        const facts = await page.textContent('.facts');
        assert.match(facts, new RegExp(`at token ${report.handover},`));
        assert.match(facts, /Left this device/);
        assert.match(facts, /Energy[\d.]+ J, (measured|declared): /);
        assert.ok(facts.includes(report.plan.why));
        return page;
    },
    // An answer that goes on, in the cloud or here, after the person has stopped it.
    async stop() {
        const c = await cloud(), d = await device(...FAKE, ...SLOW, '--cloud', c.url), page = await site.tab(d.url);
        await ask(page);
        await tokens(page, 10);
        await page.click('#stop');
        await page.waitForSelector('.foot .end');
        assert.equal(await page.textContent('.foot .end'), 'Stopped.');
        const answer = await same(page, d.url);
        assert.equal(answer.finish_reason, 'cancelled');
        assert.ok(answer.tokens < 140);
        assert.ok(await page.isVisible('#send'));
        return page;
    },
    // Words lost or shown twice by a reload in mid-answer; and a tab that is opened in place of a closed one.
    async reload_in_mid_answer() {
        const c = await cloud(), d = await device(...FAKE, '--profile', 'oneplus12-1b', '--state', site.folder(), '--cloud', c.url);
        const page = await site.tab(d.url);
        await ask(page);
        await tokens(page, 20);
        await page.reload();
        await tokens(page, 20);
        await page.waitForSelector('#stop:visible');
        const address = page.url();
        await page.leave();
        const again = await site.tab(address);
        await over(again);
        const {report} = await same(again, d.url);
        assert.equal(report.tokens, 140);
        assert.equal(await again.locator('.talks li').count(), 1);
        await again.reload();
        await over(again);
        assert.equal(await again.locator('.prose .seam').count(), 1);
        return again;
    },
    // A lost cloud that stops the answer, or that the person is not told of.
    async cloud_killed_in_mid_answer() {
        const c = await cloud('--fake-beat-us', '100000'), d = await device(...FAKE, '--profile', 's24-ultra-cpu', '--no-state', '--cloud', c.url);
        const page = await site.tab(d.url);
        await ask(page);
        await tokens(page, 5);
        await c.kill();
        await page.waitForSelector('#banner:visible');
        assert.match(await page.textContent('#banner'), /The cloud is away\. This device goes on/);
        await over(page);
        const {report} = await same(page, d.url);
        assert.ok(report.device_tokens > 0 && report.trouble);
        return page;
    },
    // A device that is killed and started again loses the answer, or the page does not find back to it.
    async device_restarted_in_mid_answer() {
        const c = await cloud(), state = site.folder(), options = [...FAKE, '--profile', 'oneplus12-1b', '--state', state, '--cloud', c.url];
        const d = await device(...options), page = await site.tab(d.url);
        await ask(page);
        await tokens(page, 25);
        await d.kill();
        await page.waitForSelector('.strip[data-phase="away"]');
        await device(...options, '--listen', `127.0.0.1:${d.port}`);
        await over(page);
        const {report, text} = await same(page, d.url);
        assert.equal(report.tokens, 140);
        const lone = await device(...FAKE, '--local-only', '--no-state'), other = await site.tab(lone.url);
        await ask(other);
        await over(other);
        assert.equal((await same(other, lone.url)).text, text);
        await other.leave();
        return page;
    },
    // The same without a state folder: nothing is left, so the question is asked again.
    async device_restarted_without_state() {
        const options = [...FAKE, ...SLOW, '--local-only'], d = await device(...options), page = await site.tab(d.url);
        await ask(page);
        await tokens(page, 15);
        await d.kill();
        await device(...options, '--listen', `127.0.0.1:${d.port}`);
        await over(page);
        assert.equal((await same(page, d.url)).report.tokens, 140);
        assert.match(await page.textContent('#side-note'), /this tab only/);
        return page;
    },
    // A page that offers the cloud, or does not say that nothing leaves.
    async local_only() {
        const d = await device(...FAKE, '--local-only', '--no-state'), page = await site.tab(d.url);
        assert.ok(await page.isVisible('#local-only'));
        assert.ok(!await page.isVisible('#mode'));
        await ask(page);
        await over(page);
        await page.click('.summary');
        assert.match(await page.textContent('.facts'), /Left this devicenothing/);
        assert.equal(await page.locator('.prose .cloud').count(), 0);
        assert.ok(page.asked.every((u) => u.startsWith(d.url)));
        return page;
    },
    // Scripts, pictures, styles, addresses and reordered text of a model that means harm; marks that take a look at all before them each.
    async hostile_output() {
        const harm = [
            '<script>window.harmed = 1</script>\n\n<img src=x onerror="window.harmed = 2">\n\n<style>*{display:none}</style>\n\n',
            '[click](javascript:window.harmed=3) [data](data:text/html,<script>1</script>) [here](/v1/status) ![pic](https://evil.example/p.png)\n\n',
            '[https://bank.example](https://evil.example/login) <svg onload=alert(1)> <a href="javascript:1">x</a>\n\n',
            'The file is \u202Egnp.exe\u202C and \u2066hidden\u2069 and \u0007bell\n\n',
            '```html\n</code></pre><script>window.harmed = 4</script>\n```\n\n', '| <b>x</b> | [y](vbscript:1) |\n|---|---|\n| <script>window.harmed=5</script> | `</td>` |\n\n',
            '> '.repeat(200) + 'deep\n\n', '- '.repeat(200) + 'deep\n\n', '*'.repeat(3000) + '\n\n', '['.repeat(3000) + '\n\n', '*a '.repeat(8000) + '\n\n', '`'.repeat(999) + '\n\n',
            '| a |\n|---|\n| ' + 'word '.repeat(1200) + '|\n\n', '| a |\n' + ' '.repeat(100000) + '- x\n\n', 'end of harm',
        ];
        const u = await site.upstream(harm.flatMap((t) => t.match(t.length > 50000 ? /[^]{1,1000}/g : /[^]{1,61}/g)));
        const c = await start(pdd, 'cloud', '--upstream', u.url), d = await device('--no-model', '--no-state', '--cloud', c.url);
        const page = await site.tab(d.url);
        await ask(page);
        await over(page);
        assert.equal((await page.textContent('.prose')).slice(-11), 'end of harm');
        const found = await page.evaluate(() => ({
            harmed: window.harmed, bad: document.querySelectorAll('.prose :is(script, img, style, svg:not(.code-head svg), iframe, object)').length,
            links: [...document.querySelectorAll('.prose a')].map((a) => a.getAttribute('href')), hosts: [...document.querySelectorAll('.prose .host')].map((h) => h.textContent),
            named: [...document.querySelectorAll('.named')].map((n) => n.textContent), text: document.querySelector('.prose').textContent,
            wide: document.documentElement.scrollWidth > innerWidth,
        }));
        assert.equal(found.harmed, undefined);
        assert.equal(found.bad, 0);
        assert.ok(found.links.every((l) => /^https:\/\/(evil|bank)\.example\//.test(l)), String(found.links));
        assert.ok(found.hosts.includes('evil.example'));
        assert.deepEqual(found.named, ['U+202E', 'U+202C', 'U+2066', 'U+2069']);
        assert.ok(!/[\u0007\u202e\u2066]/.test(found.text));
        assert.ok(found.text.includes('<script>window.harmed = 1</script>'));
        assert.ok(!found.wide);
        assert.ok(page.asked.every((a) => a.startsWith(d.url)), 'another server was asked');
        u.close();
        return page;
    },
    // An answer whose end costs more than its beginning: what was shown is built again.
    async answer_of_200_kB() {
        const part = (i) => `## Part ${i}\n\nA paragraph with **bold**, *soft* and \`code\` words, number ${i}, of some length, as answers have them. `.padEnd(420, 'More words follow here. ') +
            `\n\n- one\n- two of ${i}\n\n\`\`\`c\nint part_${i}(void) {\n    return ${i};\n}\n\`\`\`\n\n`;
        const text = Array.from({length: 380}, (_, i) => part(i)).join('') + '## Slowly\n\n' + 'Some words more. '.repeat(1000) + '\n\nlast line';
        assert.ok(text.length > 200000);
        const pieces = text.match(/[^]{1,60}/g), slow = Math.floor(text.indexOf('## Slowly') / 60);
        const u = await site.upstream(pieces, 10, (i) => i < slow ? 20 : 1);
        const c = await start(pdd, 'cloud', '--upstream', u.url, '--tokens-max', '100000'), d = await device('--no-model', '--no-state', '--cloud', c.url);
        const page = await site.tab(d.url);
        await page.evaluate(() => {
            document.getElementById('tokens-max').value = 90000;
            document.getElementById('tokens-max').dispatchEvent(new Event('change'));
            document.getElementById('pace').value = 'off';
            document.getElementById('pace').dispatchEvent(new Event('change'));
            const seen = window.seen = {removed: 0, added: 0};
            new MutationObserver((all) => {
                for (const m of all) {
                    if (!m.target.closest?.('.prose')) continue;
                    seen.added += m.addedNodes.length;
                    for (const n of m.removedNodes) if (n.nodeType !== Node.ELEMENT_NODE || n.tagName !== 'SPAN') seen.removed++;
                }
            }).observe(document.getElementById('thread'), {childList: true, subtree: true});
        });
        await ask(page, 'Write at length.');
        await page.waitForSelector('.prose h4');
        await page.evaluate(() => (window.first = document.querySelector('.prose h4')));
        // What a frame costs when the answer is long; printed, not judged: the machine may be busy.
        const cdp = await page.context().newCDPSession(page);
        await cdp.send('Performance.enable', {timeDomain: 'threadTicks'});
        const used = async () => (await cdp.send('Performance.getMetrics')).metrics.find((m) => m.name === 'TaskDuration').value * 1000;
        await page.waitForSelector('.prose h4 >> text=Slowly');
        const before = await used();
        await page.evaluate(() => {
            window.frames_ms = [];
            let last = performance.now();
            const look = (now) => {
                if (!document.querySelector('.strip')) return;
                window.frames_ms.push(now - last);
                last = now;
                requestAnimationFrame(look);
            };
            requestAnimationFrame(look);
        });
        await over(page);
        const spent = await used() - before, frames = await page.evaluate(() => window.frames_ms);
        const seen = await page.evaluate(() => ({...window.seen, first: window.first.isConnected && window.first.textContent, shown: document.querySelector('.prose').textContent.length,
            nodes: document.querySelectorAll('.prose *').length}));
        assert.match(await page.textContent('.prose'), /last line$/);
        assert.equal(seen.first, 'Part 0');
        const below = await page.evaluate(() => document.getElementById('scroll').scrollHeight - document.getElementById('scroll').scrollTop - document.getElementById('scroll').clientHeight);
        assert.ok(below < 100, `the view is ${below} pixels from the end`);
        assert.equal(seen.removed, 0);
        assert.ok(seen.added < 4 * seen.nodes, `${seen.added} nodes were made for ${seen.nodes}`);
        const sorted = frames.sort((a, b) => a - b), at = (p) => sorted[Math.floor((sorted.length - 1) * p)]?.toFixed(1);
        console.log(`    ${text.length} bytes; the last 17 kB: ${frames.length} frames, half within ${at(0.5)} ms, 95 % within ${at(0.95)} ms; ${(spent / frames.length).toFixed(1)} ms of CPU a frame`);
        u.close();
        return page;
    },
    // Thoughts in the answer, in its copy or in the next prompt; lost by a reload; in the way once the answer is there.
    async thoughts() {
        const thought = 'The lantern hangs where it **hung**. <img src=x onerror="window.harmed = 1">\n\nWho found it? ' + 'Let me see. '.repeat(40);
        const answer = 'In the chapel, *as the log says*.';
        const pieces = ['<think>\n', ...thought.match(/[^]{1,12}/g), '\n</think>\n\n', ...answer.match(/[^]{1,5}/g)], end = pieces.indexOf('\n</think>\n\n');
        let gate = 30;
        const u = await site.upstream(pieces, 2, (i) => i < gate ? 1 : 0), c = await start(pdd, 'cloud', '--upstream', u.url);
        const d = await device('--no-model', '--state', site.folder(), '--cloud', c.url), page = await site.tab(d.url, {permissions: ['clipboard-read', 'clipboard-write']});
        const details = page.locator('.answer:last-child .thoughts'), isOpen = () => details.evaluate((n) => n.open);
        const holds = (text) => page.waitForFunction((t) => document.querySelector('.answer:last-child .thoughts .prose')?.textContent.includes(t), text);
        const part = (from, to) => pieces.slice(from, to).join('').replaceAll('*', '').trim();
        await page.evaluate(() => {
            window.said = [];
            new MutationObserver(() => window.said.push(document.getElementById('say').textContent)).observe(document.getElementById('say'), {childList: true, characterData: true, subtree: true});
        });
        await ask(page);
        await holds(part(20, 30));
        assert.ok(await isOpen());
        assert.equal(await page.textContent('.strip .words'), 'The cloud thinks');
        assert.equal(await details.ariaSnapshot().then((t) => /Thoughts/.test(t)), true);
        assert.ok((await page.evaluate(() => window.said)).length <= 3, 'a sentence for each token');
        await page.reload();
        await holds(part(20, 30));
        assert.ok(await isOpen());
        await page.evaluate(() => (window.first = document.querySelector('.thoughts p')));
        gate = end + 4;
        await page.waitForFunction(() => document.querySelector('.answer > .prose').textContent.length > 3);
        assert.equal(await isOpen(), false);
        assert.equal(await page.textContent('.strip .words'), 'The cloud answers');
        assert.ok(await page.evaluate(() => window.first.isConnected), 'what was shown was built again');
        await details.locator('summary').focus(); // the reader's word stays
        await page.keyboard.press('Enter');
        gate = Infinity;
        await over(page);
        assert.ok(await isOpen());
        const shown = plain(thought);
        assert.equal(plain(await details.locator('.prose').textContent()), shown);
        assert.equal(plain(await page.textContent('.answer > .prose')), plain(answer));
        assert.equal(await page.evaluate(() => window.harmed ?? document.querySelectorAll('.thoughts img').length), 0);
        await page.click('[aria-label="Copy the answer"]');
        await page.waitForFunction(() => document.getElementById('say').textContent === 'Copied');
        const drawn = () => page.getAttribute('[aria-label="Copy the answer"] path', 'd'), tick = await drawn();
        await page.waitForFunction((was) => document.querySelector('[aria-label="Copy the answer"] path').getAttribute('d') !== was, tick); // for a moment
        assert.equal(await page.evaluate(() => navigator.clipboard.readText()), answer);
        await page.reload();
        await over(page);
        assert.equal(await isOpen(), false);
        assert.equal(plain(await details.locator('.prose').textContent()), shown);
        for (const [kind, has] of [['json', (t) => JSON.parse(t).messages[1].thoughts[0][1].trim() === thought.trim()], ['md', (t) => t.includes('<summary>Thoughts</summary>') && t.includes(thought.trim())]]) {
            await page.click('#export');
            const [file] = await Promise.all([page.waitForEvent('download'), page.click(`#dialog-export button[value=${kind}]`)]);
            assert.ok(has(fs.readFileSync(await file.path(), 'utf8')), kind);
        }
        // The next prompt has none of them. A reader who shut them while they came is not asked again.
        gate = 30;
        const sent = page.waitForRequest((r) => r.url().endsWith('/v1/chat/completions'));
        await page.fill('#question', 'And who found it?');
        await page.keyboard.press('Enter');
        assert.deepEqual((await sent).postDataJSON().messages.map((m) => m.content), [question, answer, 'And who found it?']);
        await holds(part(20, 30));
        await details.locator('summary').click();
        gate = Infinity;
        await page.waitForFunction(() => document.querySelectorAll('.summary').length === 2);
        assert.equal(await isOpen(), false);
        u.close();
        return page;
    },
    // A network that wants a log-in, and a person who is not led there; or a link to what is no page.
    async log_in_page() {
        let place = 'http://login.example/start?x=1';
        const portal = http.createServer((request, response) => (request.resume(), response.writeHead(302, {Location: place}).end()));
        await new Promise((resolve) => portal.listen(0, '127.0.0.1', resolve));
        const d = await device(...FAKE, '--profile', 's24-ultra-cpu', '--no-state', '--cloud', `http://127.0.0.1:${portal.address().port}`), page = await site.tab(d.url);
        await ask(page);
        await page.waitForSelector('#banner a');
        assert.equal(await page.textContent('#banner .words'), `The network asks for a log-in page. This device goes on alone.${place}`);
        assert.equal(await page.getAttribute('#banner a', 'href'), place);
        assert.equal(await page.getAttribute('#banner a', 'rel'), 'noopener noreferrer');
        await page.click('#stop');
        await over(page);
        place = 'javascript:alert(1)';
        await ask(page, 'Again? ' + question);
        await page.waitForFunction(() => document.querySelector('#banner .words')?.textContent.startsWith('The cloud is away.'));
        assert.equal(await page.locator('#banner a').count(), 0);
        portal.close();
        return page;
    },
    // A choice that is none, a promise of an answer that nobody can give, an error in the words of the wire.
    async no_model() {
        const d = await device('--no-model', '--no-state', '--cloud', 'http://127.0.0.1:9', '--ask-before-sending');
        const page = await site.tab(d.said().match(/http:\S+#allow=[0-9a-f]{32}/)[0]);
        assert.ok(!await page.isVisible('#mode'));
        await ask(page);
        await page.waitForSelector('.consent >> text=Do not send');
        await page.keyboard.press('Enter');
        await page.waitForSelector('.foot .error');
        assert.match(await page.textContent('.foot .error'), /^The cloud \(http:\/\/127\.0\.0\.1:9\): no connection can be made/);
        return page;
    },
    // Work of an idle device that nobody sees, or that cannot be stopped.
    async reads_on() {
        const c = await cloud(), d = await device(...FAKE, '--profile', 's24-ultra-cpu', '--no-state', '--idle-fill', 'on', '--cloud', c.url);
        const page = await site.tab(d.url);
        await page.selectOption('#pace', 'off');
        await ask(page, question.repeat(6));
        await over(page);
        await page.waitForSelector('#reading:visible');
        assert.match(await page.textContent('#reading'), /Reads on while idle, \d+ %/);
        await page.click('#reading-stop');
        await page.waitForSelector('#reading', {state: 'hidden'});
        assert.equal((await (await fetch(d.url + '/v1/status')).json()).reading, null);
        return page;
    },
    // A question that leaves before the person has said yes, or that does after a no.
    async ask_before_sending() {
        const u = await site.upstream(['From ', 'the ', 'cloud.']), c = await start(pdd, 'cloud', '--upstream', u.url);
        const d = await device(...FAKE, '--no-state', '--ask-before-sending', '--cloud', c.url), page = await site.tab(d.url);
        await ask(page);
        await page.waitForSelector('.consent');
        assert.match(await page.textContent('.consent'), /not encrypted/);
        assert.ok((await page.textContent('.consent .address')).startsWith(c.url));
        assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Send to the cloud');
        assert.equal(u.asked, 0);
        await page.click('text=Answer on this device');
        await page.waitForSelector('.consent', {state: 'detached'});
        assert.notEqual(await page.evaluate(() => document.activeElement.tagName), 'BODY'); // the keyboard's place is not lost
        assert.equal(await page.locator('.lane.cloud:visible').count(), 0);
        await over(page);
        assert.equal(u.asked, 0);
        assert.equal((await same(page, d.url)).report.sent_bytes, 0);
        await page.selectOption('#mode', 'cloud');
        await ask(page, 'Another question?');
        await page.waitForSelector('.consent');
        await page.keyboard.press('Enter');
        // A yes of a page that was opened without the link needs the code of the terminal.
        await page.waitForSelector('.consent form');
        assert.equal(u.asked, 0);
        await page.keyboard.type('0123');
        await page.keyboard.press('Enter');
        await page.waitForSelector('.give-code .error:visible >> text=This is not the code');
        assert.equal(await page.evaluate(() => getComputedStyle(document.querySelector('.give-code')).overflow), 'visible'); // it is no box of code
        assert.equal(u.asked, 0);
        const link = d.said().match(/http:\S+#allow=[0-9a-f]{32}/)[0];
        await page.fill('.consent input', link);
        await page.keyboard.press('Enter');
        await page.waitForFunction(() => document.querySelectorAll('.summary').length === 2);
        assert.equal(u.asked, 1);
        await page.leave();
        const linked = await site.tab(link);
        assert.equal(new URL(linked.url()).hash.includes('allow'), false);
        await linked.selectOption('#mode', 'cloud');
        await ask(linked, 'And another?');
        await linked.waitForSelector('.consent');
        await linked.keyboard.press('Enter');
        await over(linked);
        assert.equal(u.asked, 2);
        u.close();
        return linked;
    },
    // A list that forgets, a name that does not stay, an edit that leaves the old course in place.
    async conversations() {
        const d = await device('--fake', '12', '--local-only', '--state', site.folder()), page = await site.tab(d.url);
        await ask(page, 'First question');
        await over(page);
        await page.click('#new');
        await ask(page, 'Second question');
        await over(page);
        await page.waitForFunction(() => document.querySelectorAll('.talks li').length === 2);
        await page.hover('.talks li:nth-child(2)');
        await page.click('.talks li:nth-child(2) [aria-label^="Rename"]');
        await page.fill('.talks input', 'A better name');
        await page.keyboard.press('Enter');
        await page.click('.talks >> text=A better name');
        await page.waitForFunction(() => document.getElementById('title').textContent === 'A better name');
        await page.hover('.question');
        await page.click('[aria-label="Edit and ask again"]');
        await page.fill('.editor textarea', 'First question, edited');
        await page.keyboard.press('Enter');
        await page.waitForFunction(() => document.querySelector('.bubble p')?.textContent === 'First question, edited');
        await over(page);
        const before = await page.textContent('.prose');
        await page.click('[aria-label="Answer again"]');
        for (let n = 0; n < 4; await page.waitForTimeout(20)) // it is the fourth that has ended
            n = (await (await fetch(d.url + '/v1/answers')).json()).data.filter((a) => a.finish_reason).length;
        await over(page);
        assert.equal(await page.textContent('.prose'), before);
        assert.equal(await page.locator('.answer').count(), 1);
        await page.click('#export');
        const [file] = await Promise.all([page.waitForEvent('download'), page.click('#dialog-export button[value=json]')]);
        const kept = JSON.parse(fs.readFileSync(await file.path(), 'utf8'));
        assert.equal(kept.title, 'A better name');
        assert.equal(kept.messages.length, 2);
        assert.equal(plain(kept.messages[1].parts.map((p) => p[1]).join('')), plain(before));
        await page.reload();
        await over(page);
        assert.equal(await page.textContent('#title'), 'A better name');
        await page.hover('.talks li.current');
        await page.click('.talks li.current [aria-label^="Delete"]');
        await page.click('#dialog-delete button.danger');
        await page.waitForFunction(() => document.querySelectorAll('.talks li').length === 1);
        assert.equal((await (await fetch(d.url + '/v1/conversations')).json()).data.length, 1);
        assert.equal((await (await fetch(d.url + '/v1/answers')).json()).data.length, 1);
        assert.equal(await page.textContent('#title'), 'New conversation');
        return page;
    },
    // A name that is taken half typed, or a focus that is lost, as an answer ends meanwhile.
    async list_stays_in_hand() {
        const d = await device('--fake', '40', ...SLOW, '--local-only'), page = await site.tab(d.url);
        await ask(page);
        await page.waitForSelector('.talks .talk');
        await page.focus('.talks .talk');
        await page.keyboard.press('Tab');
        await over(page);
        await page.waitForFunction(() => !document.querySelector('.talks .live'));
        assert.match(await page.evaluate(() => document.activeElement.ariaLabel ?? document.activeElement.tagName), /^Rename /);
        await page.click('[aria-label="Answer again"]');
        await page.waitForSelector('.strip');
        await page.hover('.talks li');
        await page.click('[aria-label^="Rename"]');
        await page.fill('.talks input', 'Half a na');
        await over(page);
        await page.waitForSelector('#send:visible');
        await page.evaluate(() => dispatchEvent(new Event('focus'))); // the list is loaded again
        await page.keyboard.type('me');
        await page.keyboard.press('Enter');
        await page.waitForSelector('.talk >> text="Half a name"');
        return page;
    },
    // Halves of characters and zeros, which the device refuses: the conversation is not kept.
    async odd_text() {
        const d = await device('--fake', '12', '--local-only', '--state', site.folder()), page = await site.tab(d.url);
        await page.evaluate(() => (document.getElementById('question').value = '\u{1f98a}'.repeat(60) + '\ud83d \0 end'));
        await page.focus('#question');
        await page.keyboard.press('Enter');
        await over(page);
        await same(page, d.url);
        const {data} = await (await fetch(d.url + '/v1/conversations')).json();
        assert.equal(data.length, 1);
        assert.equal(data[0].title, '\u{1f98a}'.repeat(44) + '\u2026');
        return page;
    },
    // A document that is lost on its way into the prompt.
    async documents() {
        const d = await device('--fake', '12', '--local-only', '--no-state'), page = await site.tab(d.url);
        await page.setInputFiles('#file', {name: 'log <b>.txt', mimeType: 'text/plain', buffer: Buffer.from('The ferry sails on Monday.\n')});
        await page.waitForSelector('.chips li >> text=/^2\\d tokens$/');
        const long = 'a word and '.repeat(250);
        await page.evaluate((text) => {
            const data = new DataTransfer();
            data.setData('text/plain', text);
            document.getElementById('question').dispatchEvent(new ClipboardEvent('paste', {clipboardData: data, bubbles: true, cancelable: true}));
        }, long);
        await page.waitForSelector('.chips li >> text=Pasted text');
        const sent = page.waitForRequest((r) => r.url().endsWith('/v1/chat/completions'));
        await ask(page, 'When does it sail?');
        const {messages} = (await sent).postDataJSON();
        assert.equal(messages.at(-1).content, `The ferry sails on Monday.\n\n${long.trimEnd()}\n\nWhen does it sail?`);
        await over(page);
        await page.click('.doc >> nth=0');
        assert.equal(await page.textContent('#document-text'), 'The ferry sails on Monday.\n');
        return page;
    },
    // A prompt that was shortened, and a person who is not told so.
    async refined() {
        const d = await device(...FAKE, '--refine', 'local:0.3', '--local-only', '--no-state'), page = await site.tab(d.url);
        const entries = Array.from({length: 40}, (_, i) => `Entry ${i}: the crew of boat ${i} mended a net and rowed to pier ${7 * i}.`);
        await ask(page, `${entries.join(' ')} The brass lantern of the old sailor hangs in the chapel.\nWhere did the old sailor leave the brass lantern?`);
        await over(page);
        assert.equal((await same(page, d.url)).report.match, 'refined');
        await page.click('.summary');
        assert.match(await page.textContent('.facts'), /Agreementthis device read a shortened prompt.*Kept of the prompt\d\d %/);
        return page;
    },
    // What a screen reader gets: names, roles, and not a sentence for every token. And no mouse.
    async accessibility() {
        const c = await cloud(), d = await device(...FAKE, ...SLOW, '--cloud', c.url), page = await site.tab(d.url);
        await page.evaluate(() => {
            window.said = [];
            new MutationObserver(() => window.said.push(document.getElementById('say').textContent)).observe(document.getElementById('say'), {childList: true, characterData: true, subtree: true});
        });
        assert.equal(await page.evaluate(() => document.activeElement.id), 'question');
        await page.keyboard.type('Where is the lantern? ' + question);
        await page.keyboard.press('Enter');
        await page.waitForSelector('.prose .cloud');
        const tree = await page.locator('body').ariaSnapshot();
        for (const part of ['navigation "Conversations"', 'main', 'button "New conversation"', 'textbox "Your question"', 'region "Your question"', 'article "Answer"',
            'group "Progress"', 'progressbar "This device\'s reading of the prompt"', 'button "Stop the answer"', 'combobox "Who answers"', 'status'])
            assert.ok(tree.includes(part), `${part} is missing in\n${tree}`);
        await over(page);
        const said = await page.evaluate(() => window.said);
        assert.ok(said.length <= 8, String(said));
        assert.match(said.at(-1), /^Answer complete, 140 tokens$/);
        const unnamed = await page.evaluate(() => [...document.querySelectorAll('button, input, select, textarea')].filter((e) => !e.hidden && e.id !== 'file' &&
            !(e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML));
        assert.deepEqual(unnamed, []);
        for (let i = 0; i < 40 && !await page.evaluate(() => document.activeElement.classList.contains('summary')); i++) await page.keyboard.press('Shift+Tab');
        await page.keyboard.press('Enter');
        assert.ok(await page.isVisible('.facts'));
        assert.equal(await page.getAttribute('.summary', 'aria-expanded'), 'true');
        return page;
    },
    // A page that is cut off or squeezed on a phone, or whose list cannot be reached there.
    async phone() {
        const narrow = {viewport: {width: 360, height: 640}, colorScheme: 'dark', hasTouch: true};
        const c = await cloud(), e = await device('--fake', '40', '--no-state', '--cloud', c.url), crowded = await site.tab(e.url, narrow);
        const d = await device('--fake', '40', '--local-only', '--no-state'), page = await site.tab(d.url, narrow);
        for (const p of [page, crowded]) {
            assert.ok((await p.locator('#send').boundingBox()).width >= 36, 'the button is squeezed');
            assert.ok((await p.locator('#pace').boundingBox()).width >= 70, 'the pace cannot be read');
            assert.ok(await p.evaluate(() => [...document.querySelectorAll('.composer-row > *')].every((n) => n.getBoundingClientRect().right < document.getElementById('composer').getBoundingClientRect().right)));
        }
        await crowded.leave();
        await page.fill('#question', 'A word that is ' + 'long'.repeat(60));
        await page.click('#send');
        await over(page);
        await page.click('.summary');
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth && document.getElementById('scroll').scrollWidth <= document.getElementById('scroll').clientWidth));
        assert.ok(!await page.isVisible('#side'));
        await page.click('#open-side');
        await page.waitForSelector('.talk:visible');
        await page.keyboard.press('Escape');
        await page.waitForSelector('.talk', {state: 'hidden'});
        const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
        await page.evaluate(() => document.getElementById('theme').value = 'light');
        await page.dispatchEvent('#theme', 'change');
        assert.notEqual(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), dark);
        return page;
    },
    // A device with a token serves the page to nobody, or its answers to everybody.
    async token() {
        const file = site.folder() + '/token';
        fs.writeFileSync(file, 'pdd-secret-0123456789\n', {mode: 0o600});
        const d = await device('--fake', '8', '--local-only', '--no-state', '--token-file', file);
        const page = await site.tab(d.url, {ready: false});
        await page.waitForSelector('#dialog-token[open]');
        assert.equal(await page.textContent('#where'), '');
        await page.fill('#token', 'pdd-secret-0123456789');
        await page.keyboard.press('Enter');
        await page.waitForFunction(() => document.getElementById('where').childElementCount > 0);
        await ask(page, 'Hello?');
        await over(page);
        return page;
    },
};

/** A case passes when nothing went wrong in its page besides. */
async function pass(name) {
    const page = await cases[name]();
    assert.deepEqual(page.wrong, []);
    await page.leave();
}

async function main() {
    const names = Object.keys(cases).filter((n) => only.length === 0 || only.includes(n));
    await site.open(executable);
    announce(names.length);
    const queue = [...LONGEST.filter((n) => names.includes(n)), ...names.filter((n) => !LONGEST.includes(n))];
    await Promise.all(Array.from({length: AT_ONCE}, async () => {
        while (queue.length) {
            const name = queue.shift();
            await run(name, () => pass(name));
        }
    }));
}

main().then(() => failed > 0, (e) => (console.log(e.stack), true)).then(async (bad) => {
    await site.close();
    process.exit(bad ? 1 : 0);
});
