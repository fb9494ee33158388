#!/usr/bin/env python3
"""`llmsched serve` on the real model: every route, errors, streams, stop, echo, log-probabilities, n,
seeds, usage. Standard library only.

    test_serve.py BINARY SOURCE
"""

import http.client
import json
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(sys.argv[2], "tests"))
from harness import BINARY, SOURCE, check, finish  # noqa: E402
from server import Server  # noqa: E402

MODEL = os.environ.get("LLMSCHED_TEST_MODEL", os.path.join(SOURCE, "models", "SmolLM2-135M-Instruct"))
PROMPT = "The capital of France is"
IDS = [504, 3575, 282, 4649, 314]
TEXT = " Paris.\n\nThe answer is: 2018-01-22 "  # greedy, 20 tokens


class Client:
    """One kept-alive connection."""

    def __init__(self, server, path="/v1/completions"):
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        self.path = path

    def request(self, method, path, body=None, headers=None):
        """(status, headers, body as text)"""
        self.connection.request(method, path, body=body, headers=headers or {})
        r = self.connection.getresponse()
        return r.status, r.headers, r.read().decode()

    def post(self, fields, path=None, **headers):
        body = fields if isinstance(fields, (str, bytes)) else json.dumps(fields)
        headers = {"Content-Type": "application/json", **headers}
        status, got, text = self.request("POST", path or self.path, body, headers)
        return status, got, json.loads(text)

    def ask(self, path=None, **fields):
        """The answer to a request that must succeed."""
        status, _, answer = self.post(fields, path)
        check(status == 200, f"{fields}: {status} {answer}")
        return answer

    def stream(self, path=None, **fields):
        """(headers, events before [DONE])"""
        self.connection.request("POST", path or self.path, body=json.dumps(dict(fields, stream=True)),
                                headers={"Content-Type": "application/json"})
        r = self.connection.getresponse()
        text = r.read().decode()
        check(r.status == 200, f"{fields}: {r.status} {text}")
        events = text.split("\n\n")
        check(events[-2:] == ["data: [DONE]", ""], f"a stream ends with [DONE]: {events[-2:]}")
        check(all(e.startswith("data: ") and "\n" not in e for e in events[:-1]), "only data lines")
        return r.headers, [json.loads(e[6:]) for e in events[:-2]]


def greedy(**more):
    return dict({"prompt": PROMPT, "max_tokens": 20, "temperature": 0}, **more)


def routes(server, client):
    status, headers, text = client.request("GET", "/v1/models")
    models = json.loads(text)
    check(status == 200 and headers["Content-Type"] == "application/json", f"models: {status}")
    check([m["id"] for m in models["data"]] == ["smol", "other"], f"names: {models}")
    check(models["object"] == "list" and models["data"][0]["max_model_len"] == 1024, f"{models}")
    status, headers, text = client.request("GET", "/health")
    check((status, text) == (200, ""), f"health: {status} {text!r}")
    version = json.loads(client.request("GET", "/version")[2])["version"]
    shown = subprocess.run([BINARY, "--version"], stdout=subprocess.PIPE, check=True).stdout.decode()
    check(f"llmsched {version} " in shown, f"version {version}, but {shown}")
    status, headers, text = client.request("GET", "/metrics")
    check(status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4"), "metrics")
    check('vllm:cache_config_info{block_size="16",cache_dtype="bf16",dtype="bf16"' in text, "the cache is described")
    status, _, text = client.request("HEAD", "/v1/models")
    check((status, text) == (200, ""), "HEAD has no body")


def tokens(client):
    a = client.ask("/tokenize", prompt=PROMPT, return_token_strs=True)
    check(a == {"count": 5, "max_model_len": 1024, "tokens": IDS,
                "token_strs": ["The", "Ġcapital", "Ġof", "ĠFrance", "Ġis"]}, f"tokenize: {a}")
    check(client.ask("/detokenize", tokens=IDS) == {"prompt": PROMPT}, "detokenize")
    a = client.ask("/tokenize", messages=[{"role": "user", "content": "Hi"}])
    text = client.ask("/detokenize", tokens=a["tokens"])["prompt"]
    check(text.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"), f"chat: {text!r}")
    long = client.ask("/tokenize", prompt="a b " * 100000)  # an answer of more than a megabyte
    check(long["count"] == len(long["tokens"]) >= 200000, f"a long text: {long['count']}")


def errors(client):
    # body, status, param, part of the message
    for body, status, param, part in [
        ("{", 400, None, "not valid JSON"),
        ("[1]", 400, None, "must be a JSON object"),
        ("null", 400, None, "must be a JSON object"),
        ({}, 400, "prompt", "is missing"),
        ({"prompt": ""}, 400, "prompt", "prompt"),
        ({"prompt": [-1]}, 400, "prompt[0]", "-1"),
        ({"prompt": [49152]}, 400, "prompt[0]", "out of vocabulary"),
        (greedy(max_tokens="5"), 400, "max_tokens", "must be an integer"),
        (greedy(max_tokens=0), 400, "max_tokens", "only allowed with \"echo\""),
        (greedy(max_tokens=1020), 400, "prompt", "together 1025, but the model's context length is 1024"),
        (greedy(temperature=-1), 400, "temperature", "0 to 2"),
        (greedy(logprobs=21), 400, "logprobs", "0 to 20"),
        (greedy(n=0), 400, "n", "1 to 128"),
        (greedy(best_of=2), 400, "best_of", "not supported"),
        (greedy(suffix="x"), 400, "suffix", "not supported"),
        (greedy(response_format={"type": "json_object"}), 400, "response_format", "not supported"),
        (greedy(stream_options={"include_usage": True}), 400, "stream_options", "stream"),
        (greedy(logit_bias={"49152": 1}), 400, "logit_bias", "out of vocabulary"),
        (greedy(model="gpt-4"), 404, "model", "`gpt-4` does not exist"),
        (greedy(prompt="word " * 3000), 400, "prompt", "context length is 1024"),
        (greedy(prompt="x" * 900000), 400, "prompt", "cannot fit the model's context length"),
        (greedy(logprobs=20, n=100, max_tokens=1000), 400, "logprobs", "lower max_tokens"),
    ]:
        got, _, answer = client.post(body)
        e = answer.get("error", {})
        check(got == status and e.get("code") == status and e.get("param") == param
              and part in e.get("message", "") and e.get("type") == {400: "BadRequestError",
                                                                     404: "NotFoundError"}[status],
              f"{str(body)[:80]}: {got} {answer}")
        check(len(json.dumps(answer)) < 8000, "no error repeats its input without bound")
    # what the head alone decides: each on a connection of its own
    for method, path, headers, status, extra in [
        ("GET", "/v1/nothing", {}, 404, None),
        ("GET", "/v1/completions", {}, 405, ("Allow", "POST")),
        ("POST", "/health", {}, 405, ("Allow", "GET, HEAD")),
        ("POST", "/v1/completions", {"Content-Type": "text/plain"}, 415, None),
        ("POST", "/v1/completions", {}, 415, None),
    ]:
        got, fields, text = client.request(method, path, b"" if method == "POST" else None, headers)
        check(got == status and json.loads(text)["error"]["code"] == status, f"{path}: {got} {text}")
        check(extra is None or fields[extra[0]] == extra[1], f"{path}: {fields}")


def completions(client):
    status, headers, a = client.post(greedy(), **{"X-Request-Id": "my-1"})
    check(status == 200 and headers["x-request-id"] == "my-1", f"{status} {headers}")
    check(a["id"] == "cmpl-my-1" and a["object"] == "text_completion" and a["model"] == "smol", f"{a}")
    check(a["choices"] == [{"index": 0, "text": TEXT, "logprobs": None, "finish_reason": "length",
                            "stop_reason": None}], f"{a['choices']}")
    check(a["usage"] == {"prompt_tokens": 5, "completion_tokens": 20, "total_tokens": 25,
                         "prompt_tokens_details": {"cached_tokens": 0}}, f"{a['usage']}")
    check(client.ask(**greedy(prompt=IDS))["choices"][0]["text"] == TEXT, "ids are the same prompt")
    check(client.ask(**greedy(model="other"))["model"] == "smol", "an alias")
    a = client.ask(**greedy(prompt=[PROMPT, "Hello"], n=2))
    check([c["index"] for c in a["choices"]] == [0, 1, 2, 3], f"{a['choices']}")
    texts = [c["text"] for c in a["choices"]]
    check(texts[:2] == [TEXT, TEXT] and texts[2] == texts[3] != TEXT, f"two prompts: {texts}")
    check(a["usage"]["prompt_tokens"] == 6 and a["usage"]["completion_tokens"] == 80, f"{a['usage']}")
    a = client.ask(**greedy(unheard_of=1, max_tokens=None))
    check(a["usage"]["completion_tokens"] == 16, "16 tokens are the default")


def stops(client):
    for stop, text, reason in [("2018", " Paris.\n\nThe answer is: ", "2018"),
                               (["never", ".\n\nThe"], " Paris", ".\n\nThe"),
                               ([" Paris", "aris"], "", " Paris")]:
        a = client.ask(**greedy(stop=stop))
        c = a["choices"][0]
        check((c["text"], c["finish_reason"], c["stop_reason"]) == (text, "stop", reason), f"{stop}: {c}")
        _, events = client.stream(**greedy(stop=stop, stream_options={"include_usage": True}))
        check("".join(e["choices"][0]["text"] for e in events[:-1]) == text, f"{stop}, streamed")
        check(events[-2]["choices"][0]["stop_reason"] == reason, f"{stop}: {events[-2]}")
        check(events[-1]["usage"] == a["usage"], f"{stop}: {events[-1]} {a['usage']}")
        check(a["usage"]["completion_tokens"] < 20, "usage counts up to the stop")
    dot = client.ask("/tokenize", prompt=".")["tokens"][0]
    c = client.ask(**greedy(stop_token_ids=[dot]))["choices"][0]
    check((c["text"], c["finish_reason"], c["stop_reason"]) == (" Paris", "stop", dot), f"{c}")
    c = client.ask(**greedy(stop=".", min_tokens=4))["choices"][0]
    check(c["finish_reason"] == "length", f"stop strings wait for min_tokens: {c}")
    # a model that has said what it had to say, and one that must go on
    chat = [{"role": "user", "content": "What is 2+2?"}]
    a = client.ask("/v1/chat/completions", messages=chat, max_tokens=60, temperature=0)
    n = a["usage"]["completion_tokens"]
    check(a["choices"][0]["finish_reason"] == "stop" and n < 60, f"{a}")
    check(a["choices"][0]["stop_reason"] is None and "<|im_end|>" not in json.dumps(a), f"{a}")
    b = client.ask("/v1/chat/completions", messages=chat, max_tokens=n + 3, temperature=0, ignore_eos=True)
    check(b["usage"]["completion_tokens"] == n + 3 and b["choices"][0]["finish_reason"] == "length", f"{b}")
    check(b["choices"][0]["message"]["content"].startswith(a["choices"][0]["message"]["content"]), f"{b}")


def streams(client):
    headers, events = client.stream(**greedy(n=2))
    check(headers["Content-Type"] == "text/event-stream" and headers["Cache-Control"] == "no-cache"
          and headers["X-Accel-Buffering"] == "no", f"{headers}")
    for i in range(2):
        mine = [e["choices"][0] for e in events if e["choices"][0]["index"] == i]
        check("".join(c["text"] for c in mine) == TEXT, f"choice {i}: {mine}")
        check([c["finish_reason"] for c in mine] == [None] * (len(mine) - 1) + ["length"], f"{mine}")
    check(all(len(e["choices"]) == 1 and "usage" not in e for e in events), "no usage unless asked")
    check(len({e["id"] for e in events}) == 1, "one id")
    _, events = client.stream(**greedy(stream_options={"include_usage": True}))
    check(events[-1]["choices"] == [] and events[-1]["usage"]["total_tokens"] == 25, f"{events[-1]}")
    check(all(e["usage"] is None for e in events[:-1]), "null before the end")
    _, events = client.stream(**greedy(stream_options={"include_usage": True,
                                                       "continuous_usage_stats": True}))
    counts = [e["usage"]["completion_tokens"] for e in events]
    check(counts == sorted(counts) and counts[0] >= 1 and counts[-1] == 20, f"growing counts: {counts}")
    _, events = client.stream(**greedy(prompt=IDS, return_token_ids=True))
    check(events[0]["choices"][0]["prompt_token_ids"] == IDS, f"{events[0]}")
    ids = [i for e in events for i in e["choices"][0]["token_ids"]]
    check(len(ids) == 20 and client.ask("/detokenize", tokens=ids)["prompt"] == TEXT, f"{ids}")
    # a face has four bytes, which are several tokens: no part of one may be seen
    _, events = client.stream(prompt="Emoji: 😀 😃 😄 😁 😆", max_tokens=24, temperature=0)
    whole = client.ask(prompt="Emoji: 😀 😃 😄 😁 😆", max_tokens=24, temperature=0)
    joined = "".join(e["choices"][0]["text"] for e in events)
    check(joined == whole["choices"][0]["text"], f"{joined!r}")
    check("\ufffd" not in joined[:-1], f"{joined!r}")


def chats(client):
    path = "/v1/chat/completions"
    chat = [{"role": "system", "content": "You are brief."}, {"role": "user", "content": "Name a colour."}]
    a = client.ask(path, messages=chat, max_tokens=12, temperature=0)
    check(a["object"] == "chat.completion" and a["id"].startswith("chatcmpl-"), f"{a}")
    message = a["choices"][0]["message"]
    check(message["role"] == "assistant" and message["content"], f"{message}")
    check(a == client.ask(path, messages=chat, max_completion_tokens=12, max_tokens=3, temperature=0)
          | {"id": a["id"], "created": a["created"]}, "max_completion_tokens is preferred")
    _, events = client.stream(path, messages=chat, max_tokens=12, temperature=0)
    check(events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}, f"{events[0]}")
    check(all("role" not in e["choices"][0]["delta"] for e in events[1:]), "the role comes once")
    joined = "".join(e["choices"][0]["delta"]["content"] for e in events)
    check(joined == message["content"] and events[0]["object"] == "chat.completion.chunk", f"{joined!r}")
    prompt = client.ask("/tokenize", messages=chat)["tokens"]
    raw = client.ask(prompt=prompt, max_tokens=12, temperature=0)["choices"][0]["text"]
    check(raw == message["content"], f"the same as its rendered prompt: {raw!r}")
    a = client.ask(path, messages=chat, max_tokens=3, temperature=0, logprobs=True, top_logprobs=2)
    rows = a["choices"][0]["logprobs"]["content"]
    check(len(rows) == 3 and all(len(r["top_logprobs"]) == 2 for r in rows), f"{rows}")
    check("".join(r["token"] for r in rows) == a["choices"][0]["message"]["content"], f"{rows}")
    check(all(r["top_logprobs"][0]["token"] == r["token"] for r in rows), "greedy takes the best")
    check(all(bytes(r["bytes"]).decode() == r["token"] for r in rows), f"{rows}")


def logprobs(client):
    a = client.ask(**greedy(max_tokens=4, logprobs=3))
    lp = a["choices"][0]["logprobs"]
    check("".join(lp["tokens"]) == a["choices"][0]["text"], f"{lp}")
    check(lp["text_offset"] == [0, 6, 7, 8], f"{lp}")
    for token, p, top in zip(lp["tokens"], lp["token_logprobs"], lp["top_logprobs"]):
        check(len(top) == 3 and top[token] == p == max(top.values()) <= 0, f"{token!r} {p} {top}")
    zero = client.ask(**greedy(max_tokens=4, logprobs=0))["choices"][0]["logprobs"]
    check(zero["token_logprobs"] == lp["token_logprobs"] and all(len(t) == 1 for t in zero["top_logprobs"]),
          f"{zero}")
    _, events = client.stream(**greedy(max_tokens=4, logprobs=3))
    joined = [p for e in events for p in e["choices"][0]["logprobs"]["token_logprobs"]]
    check(joined == lp["token_logprobs"], f"streamed: {joined}")
    # A prompt's tokens, scored: those generated before must have what they had then.
    both = PROMPT + " Paris."
    echo = client.ask(prompt=both, max_tokens=0, echo=True, logprobs=1)
    c = echo["choices"][0]
    check(c["text"] == both and c["finish_reason"] == "length", f"{c}")
    check(c["logprobs"]["token_logprobs"][0] is None and c["logprobs"]["top_logprobs"][0] is None, f"{c}")
    check(c["logprobs"]["token_logprobs"][5:] == lp["token_logprobs"][:2], f"{c} {lp}")
    check(echo["usage"]["completion_tokens"] == 0 and echo["usage"]["prompt_tokens"] == 7, f"{echo}")
    c = client.ask(**greedy(max_tokens=2, echo=True, logprobs=1))["choices"][0]
    check(c["text"] == PROMPT + TEXT[:7] and len(c["logprobs"]["tokens"]) == 7, f"{c}")
    _, events = client.stream(**greedy(max_tokens=2, echo=True))
    check("".join(e["choices"][0]["text"] for e in events) == PROMPT + TEXT[:7], f"{events}")


def sampling(client):
    def texts(**more):
        a = client.ask(**dict({"prompt": "Once upon a time", "max_tokens": 12, "temperature": 1.0}, **more))
        return [c["text"] for c in a["choices"]]
    one = texts(seed=5)
    check(texts(seed=5) == one, "same seed, same text")
    pair = texts(seed=5, n=2)
    check(pair[0] == one[0] != pair[1], f"the first of two is the one: {pair}")
    check(texts(seed=6) != one, "another seed")
    check(texts(prompt=["Once upon a time", "Hi"], seed=5)[0] == one[0], "whatever stands beside it")
    free = texts(n=4) + texts()
    check(len(set(free)) == 5, f"without a seed all differ: {free}")
    check(len(set(texts(n=3, temperature=0))) == 1, "greedy choices are alike")
    check(client.ask(**greedy(top_k=1, temperature=1.5))["choices"][0]["text"] == TEXT, "top_k 1 is greedy")
    a = client.ask(**greedy(logit_bias={"504": 100}, max_tokens=3))["choices"][0]["text"]
    check(a == "TheTheThe", f"a bias of 100 decides: {a!r}")
    check(client.ask(**greedy(frequency_penalty=2.0))["choices"][0]["text"] != TEXT, "a penalty acts")


def counters(server):
    check(server.wait_idle() is None, "idle at the end")
    well = server.metric("vllm:request_success_total")
    check(well > 30 and server.metric("vllm:e2e_request_latency_seconds_count") == well, f"{well} requests")
    check(server.metric("vllm:generation_tokens_total") == server.metric("vllm:request_generation_tokens_sum"),
          "every token belongs to a request that ended well")


def main():
    if not os.path.exists(MODEL):
        print(f"skipped: no {MODEL} (run `make model`, or set LLMSCHED_TEST_MODEL)")
        sys.exit(77)
    with Server(BINARY, "--model", MODEL, "--served-model-name", "smol", "--served-model-name", "other",
                "--max-model-len", "1024", "--kv-blocks", "512") as server:
        client = Client(server)
        for part in (completions, stops, streams, chats, logprobs, sampling):
            part(client)
        counters(server)
        routes(server, client)
        tokens(client)
        errors(client)
        check("unheard_of" in server.output(), "an unknown field is warned about")
        check("KV cache: 512 blocks of 16 tokens" in server.output(), server.output())
        check("scheduler: continuous " in server.output(), "the scheduler is named")
    finish()


main()
