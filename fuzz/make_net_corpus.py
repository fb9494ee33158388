#!/usr/bin/env python3
"""Writes the seeds of the HTTP, chunked, SSE and event targets to fuzz/corpus/<name>/.

    python3 fuzz/make_net_corpus.py

The files are committed, so this runs only when the seeds change.
"""
import json
import pathlib

CORPUS = pathlib.Path(__file__).resolve().parent / "corpus"


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


CHUNKS = b"5;a=b\r\n12345\r\nA\r\n1234567890\r\n0\r\nT: x\r\n\r\n"


def make_requests():
    t = "fuzz_http_request"
    line = b"POST /v1/completions?a=b HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"
    write(t, "get", b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    write(t, "length", line + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
    write(t, "chunked", line + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS)
    write(t, "both", line + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS)
    write(t, "expect", line + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx")
    write(t, "old", b"GET / HTTP/1.0\r\nConnection: keep-alive, x\r\n\r\n")
    write(t, "absolute", b"\r\nGET http://h:1?q HTTP/1.1\r\nHost: h:1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    write(t, "options", b"OPTIONS * HTTP/1.1\r\nHost: [::1]\r\n\r\n")
    write(t, "fold", line + b"X: a\r\n b\r\n\r\n")
    write(t, "many", b"GET / HTTP/1.0\r\n" + b"a:b\r\n" * 65 + b"\r\n")
    write(t, "http2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")


def make_responses():
    t = "fuzz_http_response"
    line = b"HTTP/1.1 200 OK\r\n"
    write(t, "length", b"-" + line + b"Content-Length: 2\r\n\r\nab")
    write(t, "chunked", b"-" + line + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS)
    write(t, "close", b"-" + line + b"\r\nabc")
    write(t, "head", b"H" + line + b"Content-Length: 2\r\n\r\n")
    write(t, "old", b"-HTTP/1.0 404\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
    write(t, "interim", b"-HTTP/1.1 100 Continue\r\n\r\n" + line + b"\r\n")
    write(t, "none", b"-HTTP/1.1 204 No Content\r\n\r\n")
    write(t, "both", b"-" + line + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab")


def make_chunked():
    t = "fuzz_chunked"
    write(t, "chunks", CHUNKS)
    write(t, "empty", b"0\r\n\r\n")
    write(t, "space", b"1 \t; q = \"x y\"\r\na\r\n00\r\nA:\r\nB: c\r\n\r\nrest")
    write(t, "huge", b"ffffffffffffffff\r\na")
    write(t, "digits", b"00000000000000001\r\na\r\n0\r\n\r\n")
    write(t, "bare", b"1\na\n0\n\n")


def make_sse():
    t = "fuzz_sse"
    write(t, "events", b"\x03\x40data: {\"a\": 1}\n\ndata: [DONE]\n\n")
    write(t, "ends", b"\x00\x40data: a\r\ndata:b\rdata\n\r\n: comment\r\revent: x\ndata: c\n\n")
    write(t, "mark", b"\x01\x40\xef\xbb\xbfid: 1\nretry: 5\ndata: \xc3\xa9\n\n")
    write(t, "half_mark", b"\x01\x40\xef\xbbdata: a\n\ndata: b\n\n")
    write(t, "limit", b"\x02\x02data: abc\n\n")
    write(t, "type", b"\x05\x10event: " + b"t" * 65 + b"\ndata: a\n\n")


def make_events():
    t = "fuzz_event_scan"
    completion = {"id": "cmpl-1", "object": "text_completion", "choices": [
        {"index": 0, "text": " a\n", "logprobs": None, "finish_reason": None, "token_ids": [1, 2]}],
        "usage": None}
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3,
                                      "prompt_tokens_details": {"cached_tokens": 0}}}
    chat = {"object": "chat.completion.chunk", "choices": [
        {"index": 1, "delta": {"role": "assistant", "content": "\U0001f642", "reasoning": "r"},
         "finish_reason": "stop"}]}
    message = {"choices": [{"message": {"content": "a", "reasoning_content": None}}]}
    write(t, "completion", json.dumps(completion).encode())
    write(t, "usage", json.dumps(usage, indent=1).encode())
    write(t, "chat", json.dumps(chat).encode())
    write(t, "chat_utf8", json.dumps(chat, ensure_ascii=False).encode())
    write(t, "message", json.dumps(message).encode())
    write(t, "error", json.dumps({"error": {"message": "m", "type": "t", "code": 500}}).encode())
    write(t, "former_error", b'{"object":"error","message":"m","type":"t","code":-1}')
    write(t, "values", b'{"x":[1e5,-0.5E-7,0,true,false,null,{"\\u0063":[[]]}],"error":0.0}')
    write(t, "deep", b'{"a":' + b"[" * 70 + b"]" * 70 + b"}")
    write(t, "escaped_key", b'{"choi\\u0063es":[{"text":"\\ud83d\\ude42\\u0000"}]}')


def make_answers():
    t = "fuzz_remote_answer"
    sse = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    whole = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    stop = b'data: {"choices":[{"text":"","finish_reason":"stop"}]}\n\n'
    text = b'data: {"choices":[{"text":"\\u00e9","token_ids":[1,2]}],"usage":{"completion_tokens":2}}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":3}}\n\n'
    done = b"data: [DONE]\n\n"
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in (text, stop, usage, done))
    write(t, "chunked", b"\x05" + sse + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    write(t, "close", b"\x00" + sse + b"\r\n" + text + stop + done)
    write(t, "error", b"\x07" + sse + b"\r\n" + text + b'data: {"error":{"message":"m"}}\n\n' + done)
    write(t, "abort", b"\x01" + sse + b"\r\n" + stop.replace(b"stop", b"abort") + done)
    write(t, "short", b"\x10" + sse + b"\r\n" + text + usage.replace(b"3", b"2") + stop + done)
    answer = b'{"choices":[{"text":"abc","finish_reason":"length"}],"usage":{"completion_tokens":3}}'
    write(t, "whole", b"\x02" + whole + b"Content-Length: %d\r\n\r\n" % len(answer) + answer)
    refusal = b'{"error":{"message":"queue full"}}'
    write(t, "status", b"\x03HTTP/1.1 429 X\r\nContent-Length: %d\r\n\r\n" % len(refusal) + refusal)
    write(t, "interim", b"\x04HTTP/1.1 100 Continue\r\n\r\n" + sse + b"\r\n: ping\n\n" + stop + done)
    write(t, "type", b"\x04HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>")


make_requests()
make_responses()
make_answers()
make_chunked()
make_sse()
make_events()
