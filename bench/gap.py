#!/usr/bin/env python3
"""gap.py: how long one request can keep the answers of others waiting.

    bench/gap.py [--repeat 5] [--only PART] [--bin build/release/pdd]

Starts `pdd cloud` in three ways: with the model of models/, in front of a fake engine without a
tokenizer, and in front of that model with --upstream-vocab. On each, four streams answer without a pause
while one hostile request at a time is sent: the largest bodies that the server takes, refused or not.
Printed is, for each request, the longest gap between two tokens of a stream from its first byte until
its response has come: the best and the worst of the repetitions, beside the gaps while nothing is sent.
A stall of the server's loop is in every repetition, so `best` shows it; what other processes of the
machine do is in `worst`. `turn` is the longest turn of the server's loop, in CPU time and again the best: how long the
server itself keeps others waiting (bench/gap_turns.c). Python's standard library only.
"""
import argparse
import json
import mmap
import multiprocessing
import os
import random
import re
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
READER = os.path.join(HERE, "models/pdd-read-small-q6_k.gguf")
STREAMS, BEAT_US = 4, 2000
BOUND_MS = 20
MB = 1 << 20
AT_ONCE = 16 * 1024 - 100  # AT_ONCE_BYTES of src/cloud/api/request_work.c
FRONT_BODY = 16 * MB  # what a server takes that does not know its model's context


class Server:
    def __init__(self, binary, *args):
        counter = os.path.join(os.path.dirname(binary), "libgap_turns.so")
        with tempfile.TemporaryFile() as f:
            f.write(bytes(8))
            f.flush()
            self.turns = mmap.mmap(f.fileno(), 8)
            path = f"/proc/{os.getpid()}/fd/{f.fileno()}"
            self.start(binary, args, dict(os.environ, LD_PRELOAD=counter, GAP_TURNS=path))

    def start(self, binary, args, environment):
        self.process = subprocess.Popen(
            [binary, "cloud", "--listen", "127.0.0.1:0", "--log-level", "warn", "--tokens-max", "100000", *args],
            stdout=subprocess.PIPE, text=True, env=environment)
        line = self.process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        if not found:
            sys.exit(f"gap.py: the server did not start: {line}")
        self.port = int(found.group(1))
        self.url = f"http://127.0.0.1:{self.port}"

    def wait_ready(self):
        for _ in range(1000):
            if ask(self.port, request("GET", "/ready", b""))[0] == 200:
                return
            time.sleep(0.02)
        sys.exit("gap.py: the server is not ready")

    def longest_turn(self):
        """Of the loop since it was last asked for, in ms of CPU time."""
        (turn,) = struct.unpack("d", self.turns[:8])
        self.turns[:8] = struct.pack("d", 0.0)
        return turn

    def stop(self):
        self.process.terminate()
        self.process.wait()


def request(method, path, body):
    return (f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def ask(port, data):
    """Status and seconds of one request."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port)) as s:
        try:
            s.sendall(data)
        except OSError:
            pass  # refused while sending
        head = b""
        while piece := s.recv(1 << 16):
            head = head if len(head) > 64 else head + piece
    return int(head[9:12] or b"0"), time.monotonic() - began


def watch(port, stop, out):
    """Streams that are always open; when each token came, to the pipe `out` at the end."""
    question = request("POST", "/v1/chat/completions", json.dumps(
        {"messages": [{"role": "user", "content": "Tell a story."}], "stream": True, "max_tokens": 3000,
         "temperature": 1.0}).encode()).replace(b"Connection: close\r\n", b"")
    chooser, times = selectors.DefaultSelector(), []

    def open_one():
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(question)
        times.append([])
        chooser.register(s, selectors.EVENT_READ, times[-1])

    for _ in range(STREAMS):
        open_one()
    while not stop.is_set():
        for key, _ in chooser.select(0.05):
            data = key.fileobj.recv(1 << 16)
            key.data.append(time.monotonic())
            if not data or b"[DONE]" in data:
                chooser.unregister(key.fileobj)
                key.fileobj.close()
                open_one()
    out.send(times)


def longest(times, begin, end):
    """The longest gap between two tokens of a stream that has a part in [begin, end]. What comes first of a
    stream says that it was admitted: its first token waits for its own prefill, and is not counted."""
    most = 0.0
    for stream in times:
        for a, b in zip(stream[1:], stream[2:]):
            if b > begin and a < end:
                most = max(most, b - a)
    return most


def json_text(n, unit):
    """A JSON string of about n bytes."""
    return json.dumps(unit)[1:-1].encode() * (n // len(json.dumps(unit)[1:-1]))


def many(room, most, value):
    """`value` over and over, at most so many, with blanks up to `room` bytes."""
    n = min(most, room // (len(value) + 1))
    return b",".join([value.ljust(room // n - 1)] * n)


def requests_of(limit):
    """Hostile requests with bodies of up to `limit` bytes: name, path, body."""
    rng = random.Random(1)
    room = limit - 200
    words = " ".join("".join(rng.choices("abcdefghij", k=rng.randint(2, 12))) for _ in range(2000)) + " "
    chat = b'{"messages":[{"role":"user","content":"%s"}],"max_tokens":1}'
    yield "chat, words", "/v1/chat/completions", chat % json_text(room, words)
    yield "chat, one word", "/v1/chat/completions", chat % json_text(room, "abcdefgh")
    yield "chat, blanks", "/v1/chat/completions", chat % json_text(room, " ")
    yield "chat, escapes", "/v1/chat/completions", chat % json_text(room, "\u0001")
    yield "chat, CJK", "/v1/chat/completions", chat % ("漢字仮名".encode() * (room // 12))
    # As many values as the server takes of one request: more of them are refused without being parsed.
    yield "chat, numbers beside", "/v1/chat/completions", b'{"x":[' + many(room, 2700000, b"1") + b"]}"
    yield "chat, objects beside", "/v1/chat/completions", b'{"x":[' + many(room, 470000, b"{}") + b"]}"
    names = min(room // 12, 520000)
    yield "chat, many names", "/v1/chat/completions", b"{" + b",".join(
        b'"%0*x":1' % (min(room // names - 6, 40), i) for i in range(names)) + b"}"
    yield "assist, ids", "/v1/assist", b'{"prompt":[' + b"7," * min(room // 2 - 50, 1 << 20) + b'7],"tokens_max":1}'
    yield "assist, have", "/v1/assist", b'{"prompt":[7],"have":[' + b"300," * min(
        room // 4 - 50, 1 << 20) + b'300],"tokens_max":1}'
    yield "completions, words", "/v1/completions", b'{"prompt":"%s","max_tokens":1}' % json_text(room, words)
    yield "tokenize, words", "/tokenize", b'{"content":"%s"}' % json_text(room, words)
    yield "tokenize, one word", "/tokenize", b'{"content":"%s"}' % json_text(room, "abcdefgh")
    yield "detokenize, ids", "/detokenize", b'{"tokens":[' + b"300," * min(room // 4 - 50, 1 << 20) + b"300]}"
    yield "patch, numbers", "PATCH /v1/assist/x", b"[" + b"1," * (room // 2 - 50) + b"1]"
    yield "chat, log-probabilities", "/v1/chat/completions", (
        b'{"messages":[{"role":"user","content":"Tell a story."}],"max_tokens":2000,"temperature":2,"seed":7,'
        b'"logprobs":true,"top_logprobs":20}')


def measure(name, server, limit, options):
    receive, send = multiprocessing.Pipe(False)
    stop = multiprocessing.Event()
    watcher = multiprocessing.Process(target=watch, args=(server.port, stop, send))
    watcher.start()
    time.sleep(1.5)
    windows = []
    for _ in range(options.repeat):
        began, _ = time.monotonic(), server.longest_turn()
        time.sleep(0.5)
        windows.append(("nothing", 0, 0, began, time.monotonic(), 0, server.longest_turn()))
    for title, path, body in requests_of(limit):
        method, path = path.split(" ") if " " in path else ("POST", path)
        data = request(method, path, body)
        for _ in range(options.repeat):
            began, _ = time.monotonic(), server.longest_turn()
            status, seconds = ask(server.port, data)
            windows.append((title, len(body), status, began, time.monotonic(), seconds, server.longest_turn()))
            time.sleep(0.2)
    stop.set()
    times = receive.recv()
    watcher.join()
    print(f"\n### {name}\n\n| request | body, KB | status | response, ms | turn, ms | best gap, ms | worst |\n"
          "|---|---:|---:|---:|---:|---:|---:|")
    worst = (0.0, 0.0)
    for title in dict.fromkeys(w[0] for w in windows):
        mine = [w for w in windows if w[0] == title]
        gaps = [1e3 * longest(times, w[3], w[4]) for w in mine]
        turn = min(w[6] for w in mine)
        worst = (max(worst[0], turn), max(worst[1], min(gaps)))
        print(f"| {title} | {mine[0][1] / 1024:.0f} | {mine[-1][2] or ''} | {1e3 * min(w[5] for w in mine):.0f} | "
              f"{turn:.1f} | "
              f"{min(gaps):.1f} | {max(gaps):.1f} |")
    sys.stdout.flush()
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(HERE, "build/release/pdd"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--only", choices=("engine", "front", "vocab"))
    options = parser.parse_args()
    reader = ("--model", READER, "--threads", "1", "--context", "131072", "--prefix-cache", "0", "--step-ms", "10")
    worst = {}
    if options.only in (None, "engine"):
        server = Server(options.bin, *reader)
        worst["engine"] = measure("pdd cloud --model, context 131,072", server, 65536 + 131072 * 12, options)
        worst["engine, small"] = measure("the same, bodies that the loop works on itself", server, AT_ONCE, options)
        server.stop()
    if options.only in (None, "front"):
        inner = Server(options.bin, "--fake", "4000", "--fake-beat-us", str(BEAT_US))
        front = Server(options.bin, "--upstream", inner.url)
        front.wait_ready()
        worst["front"] = measure("pdd cloud --upstream", front, FRONT_BODY, options)
        front.stop()
        inner.stop()
    if options.only in (None, "vocab"):
        inner = Server(options.bin, *reader)
        front = Server(options.bin, "--upstream", inner.url, "--upstream-vocab", READER)
        front.wait_ready()
        worst["vocab"] = measure("pdd cloud --upstream --upstream-vocab", front, FRONT_BODY, options)
        front.stop()
        inner.stop()
    for name, (turn, gap) in worst.items():
        print(f"{name}: longest turn {turn:.1f} ms, longest best gap {gap:.1f} ms; the bound is {BOUND_MS} ms")


if __name__ == "__main__":
    main()
