"""An HTTP server on 127.0.0.1 that does to a download what servers and networks do."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY = bytes(range(256)) * 2048  # 512 KiB, and no web page


class Faults:
    """``plan[path]``: what to do at the 1st, 2nd, ... request of a path; the last entry goes on. ``seen``: the paths asked for."""

    def __init__(self):
        self.plan, self.seen, self.bodies = {}, [], {}

    def body(self, path):
        return self.bodies.get(path, BODY)


class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *args):
        return

    def do_GET(self):
        faults = self.server.faults
        count = faults.seen.count(self.path)
        faults.seen.append(self.path)
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
        self.head(200, Content_Length=len(body))
        self.wfile.write(body)

    def drop(self, body, value):
        """The connection ends after some bytes."""
        self.head(200, Content_Length=len(body))
        self.wfile.write(body[: int(value)])
        self.wfile.flush()
        self.close_connection = True

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
        self.head(200, Content_Length=len(body))
        self.wfile.write(body[:1000])
        self.wfile.flush()
        time.sleep(float(value))
        self.close_connection = True

    def status(self, _, value):
        self.head(int(value), Content_Length=0)

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
