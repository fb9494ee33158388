#!/usr/bin/env python3
"""The openai package, as its users call it, against `llmsched serve` on the real model.

    test_openai_client.py BINARY SOURCE

Runs in the virtual environment that scripts/openai_venv.sh makes; skips, saying why, without it.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time

BINARY, SOURCE = (os.path.abspath(p) for p in sys.argv[1:3])
VENV = os.path.join(SOURCE, "build", "venv-openai")
MODEL = os.path.join(SOURCE, "models", "SmolLM2-135M-Instruct")


def enter_environment():
    python = os.path.join(VENV, "bin", "python")
    if sys.prefix == VENV:
        return
    if os.path.exists(os.path.join(VENV, "stamp")) and os.path.isdir(MODEL):
        os.execv(python, [python] + sys.argv)
    why = f"no model in {MODEL}; run make model"
    if os.path.isdir(MODEL):
        why = "no environment with the openai client; scripts/openai_venv.sh build/venv-openai makes it"
        if os.path.exists(VENV + ".reason"):
            with open(VENV + ".reason", encoding="utf-8") as f:
                why = f.read().strip()
    if os.environ.get("LLMSCHED_REQUIRE_OPENAI"):
        sys.exit(f"FAILED: {why}")
    print("skipped:", why)
    sys.exit(77)


enter_environment()
sys.path.insert(0, os.path.join(SOURCE, "tests"))
import openai  # noqa: E402
from harness import SLOWER, check, finish  # noqa: E402
from server import Server  # noqa: E402

NAME = "smol"
PROMPT = "The capital of France is"
CHAT = [{"role": "user", "content": "Name three colours."}]


def client_of(server, key="any", cls=openai.OpenAI):
    return cls(base_url=server.url + "/v1", api_key=key, max_retries=0, timeout=60)


def raised(kind, status, code, call):
    """The exception of a call that must fail with this class and status."""
    try:
        call()
    except openai.APIStatusError as e:
        check(type(e) is kind and e.status_code == status, f"{kind.__name__} {status} expected, got {e!r}")
        check(e.body is not None and e.body.get("message"), f"{status}: no message in {e.body!r}")
        check(e.type == code, f"{status}: type {code} expected, got {e.body!r}")
        return e
    except openai.OpenAIError as e:
        check(False, f"{kind.__name__} {status} expected, got {e!r}")
    else:
        check(False, f"{kind.__name__} {status} expected, but the call succeeded")
    return None


def tokenized(text):
    out = subprocess.run([BINARY, "tokenize", "--model", MODEL, text], stdout=subprocess.PIPE,
                         check=True).stdout
    return [int(i) for i in out.split()]


def token_count(text):
    return len(tokenized(text))


def generated(prompt, n, *args):
    out = subprocess.run([BINARY, "generate", "--model", MODEL, "--prompt", prompt,
                          "--max-new-tokens", str(n), *args], stdout=subprocess.PIPE, check=True)
    return out.stdout.decode()


def check_models(client):
    models = client.models.list().data
    check([m.id for m in models] == [NAME, "alias"], f"models: {models}")
    check(all(m.object == "model" and m.created > 0 and m.owned_by for m in models), f"{models}")


def check_completion(client):
    """Whole and streamed, and both against `llmsched generate`."""
    r = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0)
    text = r.choices[0].text
    check(r.id.startswith("cmpl-") and r.object == "text_completion" and r.model == NAME, f"{r}")
    check(r.choices[0].index == 0 and r.choices[0].finish_reason == "length", f"{r}")
    prompt_tokens = token_count(PROMPT)
    check(r.usage.prompt_tokens == prompt_tokens and r.usage.completion_tokens == 8 and
          r.usage.total_tokens == prompt_tokens + 8, f"usage: {r.usage}")
    alone = generated(PROMPT, 8, "--temperature", "0")
    check(text in alone and len(text) > 10, f"completion {text!r}, generate {alone!r}")

    chunks = list(client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0,
                                            stream=True, stream_options={"include_usage": True}))
    check(all(c.id == chunks[0].id and c.object == "text_completion" for c in chunks), f"{chunks}")
    check("".join(c.choices[0].text for c in chunks[:-1]) == text, f"stream: {chunks}")
    reasons = [c.choices[0].finish_reason for c in chunks[:-1]]
    check(reasons[-1] == "length" and not any(reasons[:-1]), f"finish reasons: {reasons}")
    check(chunks[-1].choices == [] and chunks[-1].usage == r.usage, f"usage of the stream: {chunks[-1]}")
    check(all(c.usage is None for c in chunks[:-1]), "usage before the last chunk")

    bare = list(client.completions.create(model=NAME, prompt=PROMPT, max_tokens=3, temperature=0,
                                          stream=True))
    check(all(c.choices and c.usage is None for c in bare), f"stream without options: {bare}")
    grows = [c.usage.completion_tokens for c in client.completions.create(
        model=NAME, prompt=PROMPT, max_tokens=5, temperature=0, stream=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True})]
    check(grows == sorted(grows) and grows[-1] == 5 and grows[0] >= 1, f"continuous usage: {grows}")
    return text


def check_prompts(client, text):
    """Prompts as lists and ids, echo, the alias, n."""
    r = client.completions.create(model="alias", prompt=[PROMPT, "Once upon a time"], max_tokens=4,
                                  temperature=0)
    check([c.index for c in r.choices] == [0, 1], f"{r}")
    check(text.startswith(r.choices[0].text) and r.choices[1].text, f"two prompts: {r}")
    r = client.completions.create(model=NAME, prompt=tokenized(PROMPT), max_tokens=8, temperature=0)
    check(r.choices[0].text == text, f"prompt as ids: {r}")
    r = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0, echo=True)
    check(r.choices[0].text == PROMPT + text, f"echo: {r}")


def check_stop(client, text):
    for stop in (text[5:8], [text[9:14], "\0never"][:1], ["zzz", text[-3:]]):
        first = min((text.find(s) for s in ([stop] if isinstance(stop, str) else stop) if s in text))
        r = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0, stop=stop)
        c = r.choices[0]
        check(c.text == text[:first] and c.finish_reason == "stop", f"stop {stop!r} in {text!r}: {c}")
        parts = list(client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0,
                                               stop=stop, stream=True))
        check("".join(p.choices[0].text for p in parts) == text[:first] and
              parts[-1].choices[0].finish_reason == "stop", f"streamed stop {stop!r}: {parts}")


def check_logprobs(client, text):
    r = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0, logprobs=2)
    c = r.choices[0]
    lp = c.logprobs
    check(c.text == text and "".join(lp.tokens) == text, f"logprobs: {c}")
    check(len(lp.token_logprobs) == len(lp.tokens) == len(lp.top_logprobs) == len(lp.text_offset) == 8,
          f"logprobs: {lp}")
    at = 0
    for token, p, top, offset in zip(lp.tokens, lp.token_logprobs, lp.top_logprobs, lp.text_offset):
        check(p <= 0 and token in top and abs(top[token] - p) < 1e-6 and p == max(top.values()) and
              2 <= len(top) <= 3, f"greedy token {token!r} {p}: {top}")
        check(offset == at, f"offset {offset} of {token!r}, expected {at}")
        at += len(token)
    # A stop string that the text begins and does not finish: some of it is held back for a while.
    streamed, offsets = [], []
    for chunk in client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0,
                                           logprobs=2, stream=True, stop=lp.tokens[0][-2:] + "#"):
        if chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.token_logprobs
            offsets += chunk.choices[0].logprobs.text_offset
    check(streamed == lp.token_logprobs, f"streamed {streamed}, whole {lp.token_logprobs}")
    check(offsets == lp.text_offset, f"streamed offsets {offsets}, whole {lp.text_offset}")

    chat = dict(model=NAME, messages=CHAT, max_completion_tokens=6, temperature=0, logprobs=True,
                top_logprobs=3)
    r = client.chat.completions.create(**chat)
    content = r.choices[0].logprobs.content
    check(b"".join(bytes(t.bytes) for t in content).decode() == r.choices[0].message.content, f"{r}")
    for t in content:
        check(len(t.top_logprobs) == 3 and t.top_logprobs[0].token == t.token and
              t.top_logprobs[0].logprob == t.logprob and t.logprob <= 0, f"{t}")
        sorted_down = [a.logprob for a in t.top_logprobs]
        check(sorted_down == sorted(sorted_down, reverse=True), f"{t}")
    streamed = []
    for chunk in client.chat.completions.create(stream=True, **chat):
        if chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.content
    check([t.logprob for t in streamed] == [t.logprob for t in content], f"streamed chat logprobs: {streamed}")


def check_chat(client):
    asked = dict(model=NAME, messages=CHAT, max_completion_tokens=6, temperature=0)
    r = client.chat.completions.create(**asked)
    m = r.choices[0].message
    check(r.id.startswith("chatcmpl-") and r.object == "chat.completion", f"{r}")
    check(m.role == "assistant" and m.content and r.usage.completion_tokens <= 6, f"{r}")
    # SmolLM2's template puts its own system message first.
    prompt = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face" \
             "<|im_end|>\n<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n"
    raw = client.completions.create(model=NAME, prompt=prompt, max_tokens=6, temperature=0)
    check(raw.choices[0].text == m.content and raw.usage.prompt_tokens == r.usage.prompt_tokens,
          f"chat {m.content!r}, its prompt {raw}")
    chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
    check(chunks[0].choices[0].delta.role == "assistant", f"{chunks[0]}")
    check("".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == m.content, f"{chunks}")
    check(chunks[-2].choices[0].finish_reason == r.choices[0].finish_reason, f"{chunks[-2]}")
    check(chunks[-1].choices == [] and chunks[-1].usage.total_tokens == r.usage.total_tokens, f"{chunks[-1]}")
    old = client.chat.completions.create(model=NAME, messages=CHAT, max_tokens=6, temperature=0)
    check(old.choices[0].message.content == m.content, f"max_tokens: {old}")
    parts = [{"role": "user", "content": [{"type": "text", "text": "Name three colours."}]}]
    r = client.chat.completions.create(**dict(asked, messages=parts))
    check(r.choices[0].message.content == m.content, f"content in parts: {r}")
    roles = client.chat.completions.create(model=NAME, max_completion_tokens=3, temperature=0, messages=[
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Bye"}])
    check(roles.choices[0].message.content, f"four messages: {roles}")


def check_n(client):
    asked = dict(model=NAME, prompt=PROMPT, max_tokens=5, temperature=1.0, n=2, seed=5)
    r = client.completions.create(**asked)
    texts = [c.text for c in sorted(r.choices, key=lambda c: c.index)]
    check([c.index for c in r.choices] == [0, 1] and texts[0] != texts[1], f"n=2: {r}")
    check(r.usage.completion_tokens == 10 and r.usage.prompt_tokens == token_count(PROMPT), f"{r.usage}")
    streamed = ["", ""]
    ends = [0, 0]
    for chunk in client.completions.create(stream=True, **asked):
        c = chunk.choices[0]
        streamed[c.index] += c.text
        ends[c.index] += c.finish_reason is not None
    check(streamed == texts and ends == [1, 1], f"streamed n=2: {streamed} {ends}, whole {texts}")
    chat = client.chat.completions.create(model=NAME, messages=CHAT, n=2, seed=5, temperature=1.0,
                                          max_completion_tokens=6)
    check([c.index for c in chat.choices] == [0, 1] and
          chat.choices[0].message.content != chat.choices[1].message.content, f"chat n=2: {chat}")


async def seeds_together(server):
    """One seed, one text: alone, and among others."""
    async with client_of(server, cls=openai.AsyncOpenAI) as client:
        async def one(seed, n=6, prompt=PROMPT):
            r = await client.completions.create(model=NAME, prompt=prompt, max_tokens=n, seed=seed,
                                                temperature=1.0)
            return r.choices[0].text

        alone = [await one(s) for s in range(4)]
        check(len(set(alone)) == 4, f"seeds 0 to 3 give {alone}")
        others = [one(1000 + i, 3 + i % 7, f"Number {i} is") for i in range(12)]
        among = await asyncio.gather(*[one(s) for s in range(4)], *others)
        check(among[:4] == alone, f"alone {alone}, among others {among[:4]}")
        chats = await asyncio.gather(*[client.chat.completions.create(
            model=NAME, messages=CHAT, seed=7, temperature=1.0, max_completion_tokens=6)
            for _ in range(4)])
        check(len({c.choices[0].message.content for c in chats}) == 1, f"chat seeds: {chats}")
    text = generated(PROMPT, 6, "--seed", "3", "--temperature", "1", "--top-k", "0", "--top-p", "1")
    check(alone[3] in text, f"seed 3: serve {alone[3]!r}, generate {text!r}")


def check_errors(server, client):
    say = dict(model=NAME, prompt=PROMPT, max_tokens=1)
    bad = openai.BadRequestError, 400, "BadRequestError"
    e = raised(*bad, lambda: client.completions.create(**dict(say, temperature=-1)))
    check(e is None or "temperature" in str(e), f"{e}")
    e = raised(*bad, lambda: client.completions.create(**dict(say, max_tokens=9000)))
    check(e is None or ("9000" in str(e) and "8192" in str(e)), f"{e}")
    raised(*bad, lambda: client.completions.create(**dict(say, logprobs=21)))
    raised(*bad, lambda: client.completions.create(**dict(say, logprobs=21), stream=True))
    raised(*bad, lambda: client.completions.create(**say, stream_options={"include_usage": True}))
    raised(*bad, lambda: client.completions.create(**dict(say, prompt="")))
    raised(*bad, lambda: client.completions.create(**dict(say, prompt=[49152])))
    e = raised(*bad, lambda: client.chat.completions.create(
        model=NAME, messages=CHAT, tools=[{"type": "function", "function": {"name": "f"}}]))
    check(e is None or "tools" in str(e), f"{e}")
    raised(*bad, lambda: client.chat.completions.create(model=NAME, messages=[]))
    e = raised(openai.NotFoundError, 404, "NotFoundError",
               lambda: client.completions.create(**dict(say, model="gpt-9")))
    check(e is None or "gpt-9" in str(e), f"{e}")
    raised(openai.NotFoundError, 404, "NotFoundError", lambda: client.embeddings.create(model=NAME, input="x"))
    # An unknown field is ignored, and every answer after all that is still right.
    client.completions.create(**say, extra_body={"nobody_knows_this": 1})


def check_close(server, client):
    """A stream that is closed half-way frees its place."""
    stream = client.completions.create(model=NAME, prompt=PROMPT, max_tokens=2000, temperature=0, stream=True,
                                       extra_body={"ignore_eos": True})
    for _, _chunk in zip(range(3), stream):
        pass
    stream.close()
    why = server.wait_idle()
    check(why is None, f"after a stream was closed: {why}")


def check_full_queue(folder):
    """429 from a small queue, 401, and 503 while the server drains."""
    key_file = os.path.join(folder, "key")
    with open(key_file, "w", encoding="ascii") as f:
        f.write("secret-key\n")
    with Server(BINARY, "--model", MODEL, "--served-model-name", NAME, "--max-queue", "1",
                "--api-key-file", key_file, "--max-seqs", "1",
                "--shutdown-timeout", str(20 * SLOWER)) as server:
        raised(openai.AuthenticationError, 401, "AuthenticationError", lambda: client_of(server, "wrong").models.list())
        client = client_of(server, "secret-key")
        check(client.models.list().data[0].id == NAME, "the right key")
        long = dict(model=NAME, prompt=PROMPT, max_tokens=50, temperature=0, stream=True,
                    extra_body={"ignore_eos": True})
        running = client.completions.create(**long)
        next(running)
        asyncio.run(fill_queue(server))
        check([c.choices[0].finish_reason for c in running][-1:] == ["length"], "the stream beside the full queue")
        running = client.completions.create(**dict(long, max_tokens=80))
        next(running)
        server.signal(15)
        deadline = time.monotonic() + 10
        while server.get("/health")[0] == 200 and time.monotonic() < deadline:
            time.sleep(0.01)
        raised(openai.InternalServerError, 503, "ServiceUnavailableError",
               lambda: client_of(server, "secret-key").completions.create(**dict(long, stream=False)))
        reasons = [c.choices[0].finish_reason for c in running]
        check(reasons and reasons[-1] == "length", f"the running stream ended with {reasons[-3:]}")
        check(server.wait() == 0, f"exit status {server.process.returncode}: {server.output()[-800:]}")


def check_loading():
    """503 while the model is being loaded. A load may be over before it is asked: then once more."""
    for _ in range(4):
        with Server(BINARY, "--model", MODEL, "--served-model-name", NAME, ready=False) as server:
            client = client_of(server)
            try:
                client.completions.create(model=NAME, prompt=PROMPT, max_tokens=1)
            except openai.InternalServerError as e:
                check(e.status_code == 503 and "loaded" in e.body["message"] and
                      int(e.response.headers["retry-after"]) >= 1, f"{e!r}")
                server.wait_ready()
                client.completions.create(model=NAME, prompt=PROMPT, max_tokens=1)
                return
    check(False, "no answer while the model was being loaded")


async def fill_queue(server):
    """One runs; of six more, one may wait and at least four are sent away."""
    async with client_of(server, "secret-key", openai.AsyncOpenAI) as client:
        results = await asyncio.gather(*[client.completions.create(
            model=NAME, prompt=PROMPT, max_tokens=2, temperature=0) for _ in range(6)],
            return_exceptions=True)
    refused = [r for r in results if isinstance(r, openai.RateLimitError)]
    others = [r for r in results if isinstance(r, Exception) and not isinstance(r, openai.RateLimitError)]
    check(len(refused) >= 4 and not others, f"{results}")
    for r in refused:
        check(r.status_code == 429 and int(r.response.headers["retry-after"]) >= 1 and r.body["message"],
              f"{r!r} {r.response.headers}")


def main():
    with Server(BINARY, "--model", MODEL, "--served-model-name", NAME, "--served-model-name", "alias") as server:
        client = client_of(server)
        check_models(client)
        text = check_completion(client)
        check_prompts(client, text)
        check_stop(client, text)
        check_logprobs(client, text)
        check_chat(client)
        check_n(client)
        asyncio.run(seeds_together(server))
        check_errors(server, client)
        check_close(server, client)
        check(check_alive(client) == text, "the text at the end")
    with tempfile.TemporaryDirectory() as folder:
        check_full_queue(folder)
    check_loading()
    print(f"openai {openai.__version__}")
    finish()


def check_alive(client):
    return client.completions.create(model=NAME, prompt=PROMPT, max_tokens=8, temperature=0).choices[0].text


main()
