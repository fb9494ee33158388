#!/usr/bin/env python3
"""record.py: records answers of a real vLLM, as they come over the wire, into tests/data/vllm/.

    python3 tests/vllm/record.py

One file with the bytes of the answer per case, and expected.json with what an independent reader
(http.client and json) finds in them; tests/net/test_vllm_streams.c compares our readers with it.
Dates, ids and stamps are overwritten by fixed ones of the same length, and nothing else is touched.
"""
import io
import re
import tempfile

from real import *

OUT = HERE.parent / "data" / "vllm"
CAPITAL = "The capital of France is"
GREEDY = {"temperature": 0, "max_tokens": 6}
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SAMPLED = {"temperature": 0.8, "seed": 7, "max_tokens": 4}


def completion(**more):
    return "/v1/completions", {"model": MODEL, "prompt": CAPITAL, **GREEDY, **more}


def chat(text, **more):
    return "/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": text}],
                                    **GREEDY, **more}


CASES = {
    "completion": completion(),
    "completion_n2_logprobs": completion(n=2, logprobs=1, **SAMPLED),
    "completion_stream": completion(**USAGE),
    "completion_stream_no_usage": completion(stream=True),
    "completion_stream_ids": completion(stream=True, return_token_ids=True, stream_options={
        "include_usage": True, "continuous_usage_stats": True}),
    "completion_stream_n2": completion(n=2, **SAMPLED, **USAGE),
    "completion_stream_two_prompts": completion(**{**USAGE, "max_tokens": 3,
                                                   "prompt": [CAPITAL, "Once upon a"]}),
    "completion_stream_logprobs": completion(logprobs=2, **{**USAGE, "max_tokens": 3}),
    "completion_stream_echo": completion(echo=True, **{**USAGE, "max_tokens": 3}),
    "completion_stream_stop": completion(**{**USAGE, "max_tokens": 20, "stop": ["swer is"]}),
    "completion_stream_stop_id": completion(stop_token_ids=[30], **USAGE),
    "completion_stream_utf8": completion(**{
        **USAGE, "max_tokens": 10,
        "prompt": "Smileys: \U0001f600 \U0001f603 \U0001f604 \U0001f600 \U0001f603 \U0001f604 "}),
    "completion_stream_ignore_eos": completion(**{**USAGE, "ignore_eos": True, "prompt":
        "<|im_start|>user\nSay yes.<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>"}),
    "chat": chat("Say hello."),
    "chat_logprobs": chat("Say hello.", **{"max_tokens": 2, "logprobs": True, "top_logprobs": 2}),
    "chat_stream": chat("Say hello.", **USAGE),
    "chat_stream_stop": chat("What is the capital of France?", **{**USAGE, "max_tokens": 20}),
    "error_400_empty": completion(prompt=""),
    "error_400_long": completion(max_tokens=2000, stream=True),
    "error_400_type": completion(max_tokens="many"),
    "error_404_model": completion(model="another"),
    "models": ("/v1/models", None),
    "version": ("/version", None),
}


def exchange(port, path, body):
    """All bytes of the answer. Connection: close would change it, so the end is read from it."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as s:
        data = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        s.sendall((f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json"
                   f"\r\nContent-Length: {len(data)}\r\n\r\n").encode() + data)
        answer = b""
        while not is_whole(answer):
            piece = s.recv(65536)
            if not piece:
                sys.exit(f"{path}: the server closed in mid-answer: {answer!r}")
            answer += piece
        return answer


def is_whole(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if length:
        return len(body) >= int(length[1])
    return body.endswith(b"0\r\n\r\n")


def anonymous(answer):
    """The same bytes without day and ids. Lengths stay, or chunk sizes would be wrong."""
    def zeros(m):
        return m[1] + re.sub(rb"[0-9a-f]", b"0", m[2])

    answer = re.sub(rb"(?m)^(date: )[^\r]*", rb"\1Thu, 01 Jan 2026 00:00:00 GMT", answer)
    answer = re.sub(rb'("created":)\d{10}', rb"\g<1>1767225600", answer)
    answer = re.sub(rb'("id":"(?:chat)?cmpl-)([0-9a-f-]+)', zeros, answer)
    answer = re.sub(rb'("id":"modelperm-)([0-9a-f]+)', zeros, answer)
    return re.sub(rb'("system_fingerprint":"vllm-[0-9.]+-)([0-9a-f]+)', zeros, answer)


class Recorded:
    """What http.client needs of a socket."""
    def __init__(self, data):
        self.data = data

    def makefile(self, _):
        return io.BytesIO(self.data)


def summary(answer):
    """What a client is to find in it. Absent things are absent or null."""
    r = http.client.HTTPResponse(Recorded(answer))
    r.begin()
    body = r.read()
    out = {"bytes": len(answer), "status": r.status, "events": 0, "done": False, "choices": []}
    if r.headers["content-type"].startswith("text/event-stream"):
        events = [e.removeprefix("data: ") for e in body.decode().split("\n\n") if e]
        if events[-1] == "[DONE]":
            out["done"] = True
            events.pop()
    else:
        events = [body.decode()]
    choices = {}
    for event in map(json.loads, events):
        out["events"] += 1
        for c in event.get("choices", []):
            mine = choices.setdefault(c["index"], {
                "index": c["index"], "text": "", "content_events": 0, "token_ids": None,
                "finish_reason": None, "finish_reasons": 0})
            part = c.get("text", (c.get("delta") or c.get("message") or {}).get("content"))
            if part:
                mine["text"] += part
                mine["content_events"] += 1
            if c.get("token_ids") is not None:
                mine["token_ids"] = (mine["token_ids"] or []) + c["token_ids"]
            if c["finish_reason"]:
                mine["finish_reason"] = c["finish_reason"]
                mine["finish_reasons"] += 1
        if event.get("usage"):
            out["usage"] = {k: event["usage"][k] for k in
                            ("prompt_tokens", "completion_tokens", "total_tokens")}
        if event.get("error"):
            out["error"] = {k: event["error"][k] for k in ("message", "type", "code")}
    out["choices"] = [choices[i] for i in sorted(choices)]
    return out


def main():
    folder = setup()
    OUT.mkdir(parents=True, exist_ok=True)
    expected = {}
    with tempfile.TemporaryDirectory() as scratch:
        with vllm(folder, pathlib.Path(scratch) / "vllm.log") as port:
            version = json.loads(get(port, "/version")[1])["version"]
            for name, (path, body) in CASES.items():
                answer = anonymous(exchange(port, path, body))
                (OUT / f"{name}.http").write_bytes(answer)
                expected[name] = {"path": path, "request": body, **summary(answer)}
    with open(OUT / "expected.json", "w") as f:
        json.dump({"made_by": "python3 tests/vllm/record.py", "vllm": version,
                   "model": f"{MODEL}, f32 (tests/vllm/make_model.py)", "cases": expected}, f,
                  indent=1, ensure_ascii=True)
        f.write("\n")
    for old in OUT.glob("*.http"):
        if old.stem not in CASES:
            old.unlink()
    print(f"{len(CASES)} answers of vLLM {version} in {OUT}")


main()
