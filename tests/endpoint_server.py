"""A chat-completions endpoint on this machine, for the tests of what asks one."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-secret-0123456789"


def said(*texts, scored=False, **choice):
    """The reply of a model that gives these answers.

    Args:
      scored: whether each word, and the end, comes with the log-probability -0.5.
    """
    choices = []
    for text in texts:
        message = {"role": "assistant", "content": text}
        about = {"message": message, "finish_reason": "stop"} | choice
        if scored:
            words = [*re.split(r"(?= )", text), ""]
            about["logprobs"] = {"content": [{"token": w, "logprob": -0.5} for w in words]}
        choices.append(about)
    return 200, {"choices": choices}, {}


def asked(body):
    """What a request asks: its text, and the bytes of its image (None without one)."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content, None
    image, text = content
    return text["text"], base64.b64decode(image["image_url"]["url"].partition("base64,")[2])


class Server(ThreadingHTTPServer):
    """Answers with what `reply(body, number)` returns, and keeps what it was asked.

    A reply is (status, JSON or bytes, headers), or None for a server that hangs up.
    """

    daemon_threads = True

    def __init__(self, reply):
        self.reply, self.asked, self.lock = reply, [], threading.Lock()
        self.now = self.most = 0
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_):
        """A client that has gone away: what the test of timeouts means to happen."""


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.asked)
            server.asked.append((self.path, self.headers, body))
            server.now += 1
            server.most = max(server.most, server.now)
        reply = server.reply(body, number)
        with server.lock:
            server.now -= 1
        if reply is None:
            self.close_connection = True
            return
        status, value, headers = reply
        value = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, header in (headers | {"Content-Length": str(len(value))}).items():
            self.send_header(name, header)
        self.end_headers()
        self.wfile.write(value)

    do_GET = do_POST

    def log_message(self, *_):
        pass
