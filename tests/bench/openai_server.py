"""A scripted server of /v1/completions for tests: what a prompt says is what happens to it.

Usage: openai_server.py JSON   prints its port, serves until it is killed. Standard library only.

JSON, all optional: model, models, key, refuse (fields answered by 400), max_refusals, usage (false:
never), tokens_per_event, delay (seconds before each event), cached (prompt tokens said to be cached),
metrics (text of /metrics), log (file: a line per body), bare_400 (a refusal that names no field),
special (every second event has no text, as vLLM's for special tokens; ids where asked for), closes
(the connection, behind each stream, unannounced).

Prompts: "status 503", "cut", "error", "short", "garbage", "reset", "slow" (3 s before the first
event); all others get max_tokens words.
"""

import http.server
import json
import os
import socket
import struct
import sys
import threading
import time

CONFIG = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
LOG = threading.Lock()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass

    def answer(self, status, body, kind="application/json"):
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message):
        self.answer(status, json.dumps({"error": {"message": message, "type": "BadRequestError",
                                                  "param": None, "code": status}}))

    def is_allowed(self):
        key = CONFIG.get("key")
        if key is not None and self.headers.get("Authorization") != "Bearer " + key:
            self.refuse(401, "Unauthorized")
            return False
        return True

    def do_GET(self):
        if not self.is_allowed():
            return
        if self.path == "/v1/models":
            names = CONFIG.get("models", [CONFIG.get("model", "words")])
            self.answer(200, json.dumps({"object": "list", "data": [
                {"id": n, "object": "model", "max_model_len": 4096} for n in names]}))
        elif self.path == "/version":
            self.answer(200, json.dumps({"version": "7.8.9"}))
        elif self.path == "/metrics" and "metrics" in CONFIG:
            self.answer(200, CONFIG["metrics"], "text/plain")
        else:
            self.refuse(404, "no such page")

    def chunk(self, text):
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def event(self, choices, usage=None):
        body = {"id": "cmpl-1", "object": "text_completion", "model": "words", "choices": choices}
        if usage is not None:
            body["usage"] = usage
        self.chunk("data: " + json.dumps(body) + "\n\n")

    def drop(self):
        """RST instead of FIN."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.is_allowed():
            return
        body = json.loads(raw)
        if "log" in CONFIG:
            with LOG, open(CONFIG["log"], "a", encoding="utf-8") as f:
                f.write(json.dumps(body) + "\n")
        for field in CONFIG.get("refuse", []):
            if field in body:
                self.refuse(400, "1 validation error: " + (
                    "no" if CONFIG.get("bare_400") else f"extra field '{field}' not permitted"))
                return
        prompt = body["prompt"]
        if prompt.startswith("status "):
            self.refuse(int(prompt[7:]), "as the prompt says")
        elif prompt == "reset":
            self.drop()
        else:
            self.stream(body, prompt)

    def stream(self, body, prompt):
        self.close_connection = CONFIG.get("closes", self.close_connection)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        delay = CONFIG.get("delay", 0.0)
        n = body["max_tokens"] - (1 if prompt == "short" else 0)
        step = CONFIG.get("tokens_per_event", 1)
        time.sleep(3.0 if prompt == "slow" else delay)
        for at in range(0, n, step):
            words = [f" w{i}" for i in range(at, min(at + step, n))]
            last = at + step >= n
            if at > 0:
                time.sleep(delay)
            choice = {"index": 0, "text": "".join(words),
                      "finish_reason": "length" if last else None}
            if CONFIG.get("special"):
                choice["text"] = "" if at % 2 else choice["text"]
                if body.get("return_token_ids"):
                    choice["token_ids"] = list(range(at, min(at + step, n)))
            self.event([choice])
            if prompt == "cut":
                self.connection.close()
                self.close_connection = True
                return
            if prompt == "error":
                self.chunk('data: {"error": {"message": "engine fell over", "code": 500}}\n\n')
                break
            if prompt == "garbage":
                self.chunk("data: {not json\n\n")
                break
        if body.get("stream_options", {}).get("include_usage") and CONFIG.get("usage", True):
            words = len(prompt.split()) or 1
            self.event([], {"prompt_tokens": words, "completion_tokens": n,
                            "total_tokens": words + n,
                            "prompt_tokens_details": {"cached_tokens":
                                                      min(words, CONFIG.get("cached", 0))}})
        self.chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request, address):
        pass  # clients that go away are part of the tests


if __name__ == "__main__":
    server = Server(("127.0.0.1", int(os.environ.get("PORT", "0"))), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
