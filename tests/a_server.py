"""A server on this machine that gives ranges of files, counts what it gives, and fails when it is asked to."""
import hashlib
import json
import re
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Server:
    def __init__(self, root: Path):
        self.root, self.port = root, 0
        self.fail = lambda number, path: None  # a status, or 'cut' for half of the bytes
        self.connections = []
        self.redirects, self.pages = {}, {}  # path -> address; path -> function of query and body
        self.forget()
        self.start()

    def forget(self):
        self.requests, self.bytes, self.paths, self.queries = 0, 0, [], []

    @property
    def address(self) -> str:
        return f'http://127.0.0.1:{self.port}'

    def start(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def setup(self):
                super().setup()
                outer.connections.append(self.connection)

            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.do_GET(False)

            def do_POST(self):
                body = self.rfile.read(int(self.headers.get('content-length', 0)))
                self.do_GET(True, json.loads(body))

            def do_GET(self, body=True, sent=None):
                path, _, query = self.path.partition('?')
                outer.requests += 1
                outer.paths.append(path)
                outer.queries.append(query)
                status = outer.fail(outer.requests, path)
                if isinstance(status, int):
                    return self.give(status, b'', body)
                if path in outer.redirects:
                    return self.give(302, b'', body, location=outer.redirects[path])
                if path in outer.pages:
                    content = json.dumps(outer.pages[path](query, sent)).encode()
                    return self.give(200, content, body)
                file = outer.root / re.sub('^/gdal/', '', path).lstrip('/')
                if not file.is_file():
                    return self.give(404, b'', body)
                content, found = file.read_bytes(), re.fullmatch(r'bytes=(\d+)-(\d+)', self.headers.get('range', ''))
                tag = f'"{hashlib.sha1(content).hexdigest()}"'
                if not found:
                    return self.give(200, content, body, etag=tag, **{'accept-ranges': 'bytes'})
                first, last = int(found[1]), min(int(found[2]), len(content) - 1)
                part = content[first:last + 1]
                more = {'etag': tag, 'content-range': f'bytes {first}-{last}/{len(content)}'}
                self.give(206, part, body, cut=status == 'cut', **more)

            def give(self, status, content, body=True, cut=False, **headers):
                self.send_response(status)
                for name, value in (headers | {'content-length': str(len(content))}).items():
                    self.send_header(name, value)
                outer.bytes += sum(len(line) for line in self._headers_buffer) + 2
                self.end_headers()
                if body:
                    content = content[:len(content) // 2] if cut else content
                    outer.bytes += len(content)
                    self.wfile.write(content)
                    self.close_connection = self.close_connection or cut

        self.server = ThreadingHTTPServer(('127.0.0.1', self.port), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:  # which are kept alive
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections.clear()
