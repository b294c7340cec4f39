"""`pdd cloud` as a process of ours on loopback, and what is asked of it; `pdd bench perplexity` beside it."""
import http.client
import json
import os
import subprocess
import sys
import tempfile

SLOTS = 4  # documents that are read at the same time
TEXTS_MAX = 512  # that `pdd bench perplexity` takes at once
CONTEXTS_KEPT = 2  # KV memory for so many contexts a slot: running ones, and prefixes that are kept


def inspect(pdd, model):
    return json.loads(subprocess.run([pdd, "model", "inspect", model, "--json"], check=True,
                                     stdout=subprocess.PIPE).stdout)


class Server:
    """With a prefix cache and SLOTS requests at once. Use as a context manager."""

    def __init__(self, pdd, model):
        about = inspect(pdd, model)
        self.context = about["hparams"]["context"]
        bytes_a_context = about["memory"]["kv_per_token"] * (self.context + 64)
        kv_mb = 1 + SLOTS * CONTEXTS_KEPT * bytes_a_context // 2**20
        self.process = subprocess.Popen(
            [pdd, "cloud", "--model", model, "--listen", "127.0.0.1:0", "--log-level", "error", "--streams-max",
             str(SLOTS), "--kv-mb", str(kv_mb), "--prefix-cache", "100"], stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if "http://" not in line:
            self.process.wait()
            sys.exit(f"{pdd} cloud did not start")
        self.port = int(line.split("http://", 1)[1].split()[0].rstrip("/").rsplit(":", 1)[1])
        self.about = Client(self.port).get("/v1/models")["data"][0]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


class Client:
    """One connection. Not to be shared by threads."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)

    def call(self, method, path, body=None):
        text = None if body is None else json.dumps(body)
        try:
            response = self.exchange(method, path, text)
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            self.connection.close()  # the server closes a connection that was idle for long; the next request opens one
            response = self.exchange(method, path, text)
        data = response.read()
        if response.status != 200:
            raise RuntimeError(f"{path}: {response.status} {data[:300].decode(errors='replace')}")
        return json.loads(data)

    def exchange(self, method, path, text):
        self.connection.request(method, path, text, {"Content-Type": "application/json"})
        return self.connection.getresponse()

    def get(self, path):
        return self.call("GET", path)

    def count(self, text):
        """Tokens of a text."""
        return self.call("POST", "/tokenize", {"content": text, "parse_special": False})["count"]

    def ask(self, message, max_tokens):
        """(answer, finish_reason, usage) of a user's message, greedy."""
        reply = self.call("POST", "/v1/chat/completions", {
            "messages": [{"role": "user", "content": message}], "temperature": 0, "max_tokens": max_tokens})
        choice = reply["choices"][0]
        return choice["message"]["content"] or "", choice["finish_reason"], reply["usage"]


def perplexity(pdd, model, texts, context):
    """The report of `pdd bench perplexity` over texts, each a document of its own."""
    with tempfile.TemporaryDirectory() as folder:
        options = []
        for i, text in enumerate(texts):
            path = os.path.join(folder, f"{i}.txt")
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            options += ["--file", path]
        done = subprocess.run([pdd, "bench", "perplexity", "--model", model, "--context", str(context), "--json",
                               *options], check=True, stdout=subprocess.PIPE)
        return json.loads(done.stdout)
