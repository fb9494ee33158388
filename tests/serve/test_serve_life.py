#!/usr/bin/env python3
"""How `llmsched serve` lives and ends: loading, keys, full queues, peers that leave, drain, abort,
timetables with stamps. Standard library only. A tiny random model: arithmetic is not the subject.

    test_serve_life.py BINARY SOURCE
"""

import csv
import http.client
import json
import os
import socket
import sys
import threading
import time

sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from harness import BINARY, SLOWER, check, expect, finish, signal, tempfile, tiny_model  # noqa: E402
from server import Server  # noqa: E402

LONG = {"prompt": "Hello", "max_tokens": 900, "ignore_eos": True}


def send(server, fields, key=None):
    """A socket on which a completion was asked for."""
    body = json.dumps(fields).encode()
    head = (f"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n" + (f"Authorization: Bearer {key}\r\n" if key else ""))
    s = socket.create_connection(("127.0.0.1", server.port), timeout=60 * SLOWER)
    s.sendall(head.encode() + b"\r\n" + body)
    return s


def answer(s):
    """(status, headers, body) of the answer that comes on a socket; of a stream as far as it goes."""
    r = http.client.HTTPResponse(s)
    r.begin()
    try:
        text = r.read().decode()
    except http.client.IncompleteRead as e:
        text = e.partial.decode()
    s.close()
    return r.status, r.headers, text


def ask(server, fields, key=None):
    return answer(send(server, fields, key))


def text_of(body):
    return json.loads(body)["choices"][0]["text"]


def finish_of(body):
    return json.loads(body)["choices"][0]["finish_reason"]


def wait_until(condition, what, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    check(condition(), what)


def leaving(model, *args):
    """Peers that leave, in every way, leave nothing behind."""
    with Server(BINARY, *model, "--max-seqs", "8") as server:
        time.sleep(0.3)  # until it has seen the end of the connection that asked for its health
        fds = server.descriptors()
        peers = [send(server, dict(LONG, stream=i % 2 == 0, n=1 + i % 3)) for i in range(12)]
        wait_until(lambda: server.metric("vllm:num_requests_running") == 8, "8 at once")
        check(server.metric("vllm:num_requests_waiting") == 24 - 8, "the others wait")
        for s in peers:
            s.close()
        why = server.wait_idle(10)
        check(why is None, f"after all peers left: {why}")
        check(server.metric("vllm:http_requests_client_disconnected_total") == 12, "12 peers left")
        wait_until(lambda: server.descriptors() <= fds, "no descriptor is left")
        # The storm of openai-api.md: many long requests, dropped after half a second.
        peers = [send(server, dict(LONG, stream=True)) for _ in range(200)]
        time.sleep(0.5)
        for s in peers:
            s.close()
        begin = time.monotonic()
        status, _, body = ask(server, {"prompt": "Hello", "max_tokens": 5, "ignore_eos": True})
        check(status == 200 and time.monotonic() - begin < 5, f"a normal one answers: {status}")
        why = server.wait_idle(10)
        check(why is None, f"after the storm: {why}")
        wait_until(lambda: server.descriptors() <= fds, "no descriptor is left by the storm")


def slow_reader(model):
    """A peer that asks for much and reads nothing is dropped; the others do not notice."""
    with Server(BINARY, *model) as server:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.connect(("127.0.0.1", server.port))
        body = json.dumps(dict(LONG, stream=True, n=128, logprobs=5, max_tokens=1000)).encode()
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
                  b"Content-Length: %d\r\n\r\n" % len(body) + body)
        status, _, text = ask(server, {"prompt": "Hello", "max_tokens": 20, "ignore_eos": True})
        check(status == 200, f"another one beside it: {status}")
        why = server.wait_idle(20 * SLOWER)
        check(why is None, f"the slow reader was dropped: {why}")
        check(server.metric("vllm:http_requests_client_disconnected_total") == 1, "as one who left")
        s.close()


def keys(model, folder):
    path = os.path.join(folder, "key")
    with open(path, "w") as f:
        f.write("s3cret\n")
    for args, env in [(("--api-key-file", path), {}), ((), {"LLMSCHED_API_KEY": "s3cret"})]:
        with Server(BINARY, *model, *args, env=env) as server:
            fields = {"prompt": "a", "max_tokens": 1}
            for key, status in [(None, 401), ("wrong!", 401), ("s3cret", 200)]:
                got, _, text = ask(server, fields, key)
                check(got == status, f"key {key}: {got}")
                check(got == 200 or json.loads(text)["error"]["type"] == "AuthenticationError", text)
            check("s3cret" not in server.output(), "the key is not shown")


def full_queue(model):
    with Server(BINARY, *model, "--max-seqs", "1", "--max-queue", "2") as server:
        peers = [send(server, LONG)]
        wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "one runs")
        peers += [send(server, LONG), send(server, LONG)]
        wait_until(lambda: server.metric("vllm:num_requests_waiting") == 2, "two wait")
        status, headers, text = ask(server, LONG)
        check((status, headers["Retry-After"]) == (429, "1"), f"the queue is full: {status} {text}")
        status, _, text = ask(server, dict(LONG, n=3))
        check(status == 400, f"more choices than the queue ever takes: {status} {text}")
        for s in peers:
            s.close()
        check(server.wait_idle() is None, "and empty again")
        check(ask(server, {"prompt": "a", "max_tokens": 1})[0] == 200, "and open")


def drain(model):
    """SIGTERM: what runs ends whole, streams too; new ones are refused; exit code 0."""
    with Server(BINARY, *model, "--shutdown-timeout", str(30 * SLOWER)) as server:
        running = [send(server, LONG), send(server, dict(LONG, stream=True))]
        wait_until(lambda: server.metric("vllm:num_requests_running") == 2, "two run")
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.get("/health")[0] == 503, "/health says so")
        status, headers, text = ask(server, LONG)
        check(status == 503 and headers["Retry-After"], f"new ones: {status} {text}")
        status, _, text = answer(running[0])
        check(status == 200 and finish_of(text) == "length", f"{status} {text[-300:]}")
        status, _, text = answer(running[1])
        check(text.endswith("data: [DONE]\n\n") and '"finish_reason":"length"' in text, text[-300:])
        check(server.wait() == 0, f"exit code {server.process.returncode}\n{server.output()}")


def abort(model):
    """What still runs after the timeout ends with finish_reason abort, and still with code 0."""
    for timeout in ("0", "0.3"):
        with Server(BINARY, *model, "--shutdown-timeout", timeout, "--max-seqs", "2") as server:
            fields = dict(LONG, n=128)  # more than ends in time
            running = [send(server, fields), send(server, dict(fields, stream=True))]
            wait_until(lambda: server.metric("vllm:num_requests_running") == 2, "two run")
            begin = time.monotonic()
            server.signal(signal.SIGINT)
            status, _, text = answer(running[0])
            reasons = [c["finish_reason"] for c in json.loads(text)["choices"]]
            check(status == 200 and "abort" in reasons, f"{status} {reasons}")
            status, _, text = answer(running[1])
            check(text.endswith("data: [DONE]\n\n") and '"finish_reason":"abort"' in text, text[-300:])
            check(server.wait() == 0 and time.monotonic() - begin < 4 + float(timeout),
                  f"{server.process.returncode} {server.output()}")


def second_signal(model):
    with Server(BINARY, *model, "--max-seqs", "1") as server:
        s = send(server, dict(LONG, n=64))
        wait_until(lambda: server.metric("vllm:num_requests_running") == 1, "one runs")
        server.signal(signal.SIGTERM)
        wait_until(lambda: server.get("/health")[0] == 503, "it drains")
        server.signal(signal.SIGINT)
        check(server.wait(10) == 130, f"exit code {server.process.returncode}")
        s.close()


def loading(folder, tiny):
    """It listens before the model is there; and says why when the model cannot be had."""
    with Server(BINARY, "--model", "gpt2", "--random-weights", "--kv-blocks", "64", ready=False) as server:
        status, body = server.get("/health")
        check(status == 503 and "being loaded" in body, f"before it is ready: {status} {body}")
        check(server.get("/v1/models")[0] == 200, "models are known before")
        server.wait_ready()
        server.signal(signal.SIGTERM)
        check(server.wait() == 0, server.output())
    with Server(BINARY, "--model", "gpt2-large", "--random-weights", ready=False) as server:
        begin = time.monotonic()
        server.signal(signal.SIGTERM)  # nobody waits for the load
        check(server.wait() == 0 and time.monotonic() - begin < 4, server.output())
    broken = os.path.join(folder, "broken")
    os.makedirs(broken)
    for name in ("config.json", "tokenizer.json"):
        os.symlink(os.path.join(tiny, "config.json") if name == "config.json" else
                   os.path.join(sys.argv[2], "tests", "data", "tokenizers", "llama2.json"),
                   os.path.join(broken, name))
    with open(os.path.join(broken, "model.safetensors"), "wb") as f:
        f.write(b"\x10\0\0\0\0\0\0\0{}              ")
    expect(["serve", "--port", "0", "--model", broken], 3, err="broken")


def usage():
    for args, code, part in [
        (["--tpot", "5"], 2, "--tpot has no meaning with --executor model"),
        (["--executor", "synthetic", "--tpot", "5"], 2, "is not a duration"),
        (["--executor", "synthetic", "--ttft=-1s"], 2, "is not a duration"),
        (["--executor", "synthetic", "--model", "x"], 2, "--model has no meaning"),
        (["--stamps", "x"], 2, "--stamps has no meaning"),
        (["--scheduler", "nave"], 2, "naive"),
        (["--set", "naive.batch_size=4"], 2, "no scheduler of this run is called \"naive\""),
        (["--scheduler", "naive", "--set", "naive.batch_size=0"], 2, "batch_size"),
        (["--port", "65536"], 2, "--port"),
        (["--served-model-name", ""], 2, "name is empty"),
        (["--api-key-file", "/nonexistent"], 3, "--api-key-file"),
        (["--api-key-file", "/dev/null"], 3, "--api-key-file"),
        (["--model", "no-such-model"], 3, "no-such-model"),
    ]:
        expect(["serve"] + args, code, err=part)
    expect(["serve"], 2, err="LLMSCHED_API_KEY: a key is one line", env={"LLMSCHED_API_KEY": "a b"})
    expect(["serve", "--help"], 0, out=["curl ", "--shutdown-timeout", "TLS is left to a proxy"])
    with Server(BINARY, "--executor", "synthetic") as server:
        expect(["serve", "--executor", "synthetic", "--port", str(server.port)], 1,
               err="choose another --port")


def timetable(folder):
    """Tokens on time; what clients see and what the stamps say; the loads of 1,000 streams."""
    path = os.path.join(folder, "stamps.csv")
    with Server(BINARY, "--executor", "synthetic", "--ttft", "50ms", "--tpot", "10ms", "--stamps", path,
                "--max-queue", "100000") as server:
        seen = []

        def one(i):
            c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            c.request("POST", "/v1/completions", headers={"Content-Type": "application/json",
                                                          "X-Request-Id": f"r{i}"},
                      body=json.dumps({"prompt": "a", "max_tokens": 20, "stream": True, "seed": i % 2}))
            seen.append((i % 2, "".join(json.loads(line[6:])["choices"][0]["text"]
                                        for line in c.getresponse().read().decode().split("\n\n")
                                        if line.startswith("data: {"))))
            c.close()

        threads = [threading.Thread(target=one, args=(i,)) for i in range(20)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        check(len(seen) == 20 and len(set(seen)) == 2, f"a seed gives its text again: {set(seen)}")
        check(all(len(text) == 20 for _, text in seen), "20 tokens of one byte")
        check(ask(server, {"prompt": "a", "max_tokens": 3})[0] == 200, "not streamed, without a name")
        server.signal(signal.SIGTERM)
        check(server.wait() == 0, server.output())
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    check(list(rows[0]) == ["request_id", "token", "due_ns", "written_ns"], f"{rows[0]}")
    named = [r for r in rows if r["request_id"].startswith("r")]
    check(len(named) == 400 and len(rows) == 403, f"{len(named)} of {len(rows)} stamps")
    for name in {r["request_id"] for r in named}:
        mine = [r for r in named if r["request_id"] == name]
        due = [int(r["due_ns"]) for r in mine]
        check([int(r["token"]) for r in mine] == list(range(20)), f"{name}: every token once, in order")
        check(all(b - a == 10_000_000 for a, b in zip(due, due[1:])), f"{name}: due every 10 ms: {due}")
    check(all(int(r["written_ns"]) >= int(r["due_ns"]) for r in rows), "nothing is written early")


def main():
    with tempfile.TemporaryDirectory() as folder:
        # A token takes some milliseconds: what is to run while something else happens still runs.
        # Under a sanitizer fewer layers take as long.
        layers = {"address": 2, "thread": 1}.get(os.environ.get("LLMSCHED_SANITIZE"), 8)
        tiny = tiny_model(folder, hidden_size=256, intermediate_size=1024, num_hidden_layers=layers)
        model = ("--model", tiny, "--random-weights", "--threads", "1", "--kv-blocks", "512")
        usage()
        leaving(model)
        slow_reader(model)
        keys(model, folder)
        full_queue(model)
        drain(model)
        abort(model)
        second_signal(model)
        loading(folder, tiny)
        timetable(folder)
    finish()


main()
