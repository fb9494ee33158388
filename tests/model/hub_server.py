"""A small model hub on the loopback, with faults on demand, for test_hub_pull.py.

It speaks what huggingface_hub uses: /api/models/ID/revision/REV, /api/models/ID/tree/REV (paged),
HEAD and GET of /ID/resolve/COMMIT/FILE, and a storage under /storage/HASH on another host name.
Every request is recorded with its headers.
"""
import hashlib
import http.server
import json
import threading
import time
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def git_id(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Request:
    def __init__(self, method, path, headers):
        self.method, self.path, self.headers = method, path, dict(headers)
        self.host = headers.get("Host", "")
        self.authorization = headers.get("Authorization")
        self.range = headers.get("Range")
        self.if_range = headers.get("If-Range")


class Hub(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]
        self.storage_host = f"localhost:{self.port}"
        self.files = {}       # name -> bytes, of every repository
        self.linked = set()   # names kept in the storage (LFS)
        self.requests = []
        self.lock = threading.Lock()
        self.faults = []      # (predicate(request), action(handler, request) -> handled, times)
        self.tree = None      # replaces the list of files
        self.page = 1000
        self.etag_suffix = ""
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def endpoint(self):
        return f"http://127.0.0.1:{self.port}"

    def handle_error(self, request, client_address):
        pass  # clients that hang up are part of the tests

    def fault(self, method, part, action, times=1):
        """The next `times` requests of that method whose path contains `part` get action."""
        with self.lock:
            self.faults.append([method, part, action, times])

    def take_fault(self, request):
        with self.lock:
            for fault in self.faults:
                if fault[0] == request.method and fault[1] in request.path and fault[3] > 0:
                    fault[3] -= 1
                    return fault[2]
        return None

    def entries(self):
        if self.tree is not None:
            return self.tree
        result = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": "onnx"}]
        for name, data in self.files.items():
            entry = {"type": "file", "oid": git_id(data), "size": len(data), "path": name}
            if name in self.linked:
                entry["oid"] = "1" * 40
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
            result.append(entry)
        return result


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def begin(self, code, headers, length):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def answer(self, code, headers=None, body=b""):
        self.begin(code, headers or {}, len(body))
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self):
        self.route()

    def do_GET(self):
        self.route()

    def route(self):
        request = Request(self.command, self.path, self.headers)
        with self.server.lock:
            self.server.requests.append(request)
        action = self.server.take_fault(request)
        if action is not None and action(self, request):
            return
        parts = urllib.parse.urlsplit(self.path)
        if parts.path.startswith("/api/models/"):
            self.api(parts)
        elif parts.path.startswith("/storage/"):
            data = next(d for d in self.server.files.values()
                        if sha256(d) == parts.path.split("/")[2])
            self.send_data(request, data, f'"s-{sha256(data)[:8]}{self.server.etag_suffix}"')
        elif "/resolve/" in parts.path:
            self.resolve(request, urllib.parse.unquote(parts.path.rsplit("/", 1)[1]))
        else:
            self.answer(404)

    def api(self, parts):
        if "/revision/" in parts.path:
            self.answer(200, {"Content-Type": "application/json"},
                        json.dumps({"sha": COMMIT, "siblings": []}).encode())
            return
        entries = self.server.entries()
        start = int(urllib.parse.parse_qs(parts.query).get("cursor", ["0"])[0])
        stop = start + self.server.page
        headers = {"Content-Type": "application/json"}
        if stop < len(entries):
            url = f"{self.server.endpoint}{parts.path}?recursive=1&cursor={stop}"
            headers["Link"] = f'<{url}>; rel="next"'
        self.answer(200, headers, json.dumps(entries[start:stop]).encode())

    def resolve(self, request, name):
        data = self.server.files.get(name)
        if data is None:
            self.answer(404, {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": COMMIT}
        if name in self.server.linked:
            headers["X-Linked-Etag"] = f'"{sha256(data)}"'
            headers["X-Linked-Size"] = str(len(data))
            headers["Location"] = f"http://{self.server.storage_host}/storage/{sha256(data)}"
            self.answer(302, headers)
        else:
            self.send_data(request, data, f'"{git_id(data)}"', headers)

    def send_data(self, request, data, etag, headers=None):
        headers = dict(headers or {}, ETag=etag)
        same = request.if_range in (None, etag)
        if request.range and same:
            start = int(request.range.removeprefix("bytes=").rstrip("-"))
            if start >= len(data):
                self.answer(416, {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.answer(206, headers, data[start:])
        else:
            self.answer(200, headers, data)


# --- faults ---

def status(code, headers=None):
    def action(handler, request):
        handler.answer(code, headers or {}, b"an error page")
        return True
    return action


def cut_after(n):
    """Announces the whole file, sends n bytes of what was asked for, closes."""
    def action(handler, request):
        server = handler.server
        data = next(d for d in server.files.values() if sha256(d) in request.path)
        etag = f'"s-{sha256(data)[:8]}{server.etag_suffix}"'
        start = 0
        code, headers = 200, {"ETag": etag}
        if request.range and request.if_range in (None, etag):
            start = int(request.range.removeprefix("bytes=").rstrip("-"))
            code, headers["Content-Range"] = 206, f"bytes {start}-{len(data) - 1}/{len(data)}"
        handler.begin(code, headers, len(data) - start)
        handler.wfile.write(data[start:start + n])
        handler.wfile.flush()
        handler.close_connection = True
        return True
    return action


def ignore_range(handler, request):
    data = next(d for d in handler.server.files.values() if sha256(d) in request.path)
    handler.answer(200, {}, data)
    return True


def send_instead(data, code=200, headers=None, chunked=False):
    def action(handler, request):
        if chunked:
            handler.begin(code, dict(headers or {}, **{"Transfer-Encoding": "chunked"}), None)
            handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))
        else:
            handler.answer(code, headers or {}, data)
        return True
    return action


def stall_after(n, seconds, reached):
    """Sends n bytes, then nothing for a while; sets the event `reached` in between."""
    def action(handler, request):
        data = next(d for d in handler.server.files.values() if sha256(d) in request.path)
        handler.begin(200, {"ETag": f'"s-{sha256(data)[:8]}{handler.server.etag_suffix}"'},
                      len(data))
        handler.wfile.write(data[:n])
        handler.wfile.flush()
        reached.set()
        time.sleep(seconds)
        handler.close_connection = True
        return True
    return action
