"""An HTTP server on 127.0.0.1 that does to a download what servers and networks do."""

import hashlib
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = bytes(range(256)) * 2048  # 512 KiB, and no web page


class Faults:
    """``plan[path]``: what to do at the 1st, 2nd, ... request of a path; the last entry goes on. ``seen``: (path, Range)."""

    def __init__(self):
        self.plan, self.seen, self.bodies, self.tags = {}, [], {}, {}

    def body(self, path):
        return self.bodies.get(path, BODY)

    def tag(self, path):
        return self.tags.get(path, f'"{hashlib.md5(self.body(path)).hexdigest()}"')


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        return

    def do_GET(self):
        faults = self.server.faults
        count = sum(path == self.path for path, _ in faults.seen)
        faults.seen.append((self.path, self.headers.get('Range')))
        plan = faults.plan.get(self.path, ['fine'])
        what = plan[min(count, len(plan) - 1)]
        name, _, value = what.partition(':')
        getattr(self, name)(faults.body(self.path), value)

    def head(self, code, **headers):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace('_', '-'), str(value))
        self.end_headers()

    def fine(self, body, _=''):
        """With ranges, unless If-Range names another file."""
        tag, start = self.server.faults.tag(self.path), 0
        wanted = self.headers.get('Range')
        if wanted and self.headers.get('If-Range') == tag:
            start = int(wanted.removeprefix('bytes=').rstrip('-'))
            if start >= len(body):
                self.head(416, Content_Length=0)
                return
            self.head(206, Content_Length=len(body) - start, ETag=tag,
                      Content_Range=f'bytes {start}-{len(body) - 1}/{len(body)}')  # fmt: skip
        else:
            self.head(200, Content_Length=len(body), ETag=tag)
        self.wfile.write(body[start:])

    def drop(self, body, value):
        """The connection ends after some bytes of those asked for."""
        wanted = self.headers.get('Range')
        start = int(wanted.removeprefix('bytes=').rstrip('-')) if wanted else 0
        tag = self.server.faults.tag(self.path)
        if start:
            self.head(206, Content_Length=len(body) - start, ETag=tag,
                      Content_Range=f'bytes {start}-{len(body) - 1}/{len(body)}')  # fmt: skip
        else:
            self.head(200, Content_Length=len(body), ETag=tag)
        self.wfile.write(body[start : start + int(value)])
        self.wfile.flush()
        self.close_connection = True

    def no_ranges(self, body, _):
        self.head(200, Content_Length=len(body))
        self.wfile.write(body)

    def no_length(self, body, value):
        self.send_response(200)
        self.send_header('Connection', 'close')
        self.end_headers()
        self.wfile.write(body[: int(value) if value else None])
        self.close_connection = True

    def corrupt(self, body, _):
        self.head(200, Content_Length=len(body))
        self.wfile.write(body[:-1] + bytes([body[-1] ^ 1]))

    def stall(self, body, value):
        self.head(200, Content_Length=len(body), ETag=self.server.faults.tag(self.path))
        self.wfile.write(body[:1000])
        self.wfile.flush()
        time.sleep(float(value))
        self.close_connection = True

    def drip(self, body, value):
        self.head(200, Content_Length=len(body), ETag=self.server.faults.tag(self.path))
        for i in range(int(value)):
            self.wfile.write(body[i : i + 1])
            self.wfile.flush()
            time.sleep(0.05)
        self.close_connection = True

    def status(self, _, value):
        code, _, after = value.partition('/')
        self.head(int(code), Content_Length=0, **({'Retry_After': after} if after else {}))

    def page(self, *_):
        text = b'  <!DOCTYPE html><html><title>Sign in</title></html>'
        self.head(200, Content_Type='text/html', Content_Length=len(text))
        self.wfile.write(text)

    def to(self, _, value):
        self.head(302, Location=value, Content_Length=0)


@contextmanager
def fault_server():
    """(base URL, Faults)."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            """A client that gives up is what the tests are about."""

    server = Server(('127.0.0.1', 0), Handler)
    server.faults = Faults()
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True)
    thread.start()
    try:
        yield f'http://127.0.0.1:{server.server_port}', server.faults
    finally:
        server.shutdown()
        server.server_close()
