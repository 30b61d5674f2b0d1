"""A model that follows a script: enough of three vendors' APIs for the real agent CLIs.

Serves them on loopback. The first request of a conversation is answered with one call of the
agent's shell tool; the request that carries the tool's result is answered with a message that
quotes it. Every request is kept, so that a test can see what the agent's own tools reported.

By hand: `python3 -m tests.agents.scripted_model 'echo hello'` prints where it serves, then its
requests.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.agents.dialect import DIALECTS, Dialect, Json


@dataclass
class ScriptedModel:
    """Serves until closed. `script` turns a conversation's prompt text into a shell command.

    Attributes:
        refusal: the HTTP status that everything is answered with instead; 0 = none.
        prompts: of each request that belongs to the work: what the person had said.
        tool_results: what the agent's tool calls returned, in order of arrival.
    """

    script: Callable[[str], str]
    refusal: int = 0
    requests: list[Json] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    tool_results: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, name="model")

    def __enter__(self) -> ScriptedModel:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def answer(self, dialect: Dialect, request: Json) -> bytes:
        """The stream that follows `request`."""
        self.requests.append(request)
        result = dialect.tool_result(request)
        if result is None:
            prompt = dialect.prompt(request)
            stream = dialect.call(request, self.script(prompt))
            if stream is None:
                # What some agents ask beside the work: a title for the conversation.
                return dialect.message(request, "a scripted conversation")
            self.prompts.append(prompt)
            return stream
        self.tool_results.append(result)
        return dialect.message(request, f"The command said: {result}")


def refusal(path: str, status: int) -> bytes:
    """How each vendor's API words a refusal, by its reference."""
    limited = status == 429
    if "/messages" in path:
        kind = "rate_limit_error" if limited else "authentication_error"
        document = {"type": "error", "error": {"type": kind, "message": "refused"}}
    elif "/responses" in path:
        document = {"error": {"message": "refused", "type": "invalid_request_error"}}
    else:
        kind = "RESOURCE_EXHAUSTED" if limited else "UNAUTHENTICATED"
        document = {"error": {"code": status, "message": "refused", "status": kind}}
    return json.dumps(document).encode()


def _handler(model: ScriptedModel) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if model.refusal:
                self._say(model.refusal, "application/json", refusal(self.path, model.refusal))
                return
            for dialect in DIALECTS:
                if dialect.speaks(self.path):
                    stream = model.answer(dialect, json.loads(body))
                    self._say(200, "text/event-stream", stream)
                    return
            self._say(404, "application/json", b"{}")

        def do_GET(self) -> None:
            self._say(404, "application/json", b"{}")

        def do_HEAD(self) -> None:
            self._say(404, "application/json", b"")

        def _say(self, status: int, media_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            if __name__ == "__main__":
                print(format % args, file=sys.stderr, flush=True)

    return Handler


if __name__ == "__main__":
    with ScriptedModel(lambda _prompt: sys.argv[1]) as served:
        print(served.url, flush=True)
        sys.stdin.read()
        print(json.dumps(served.requests, indent=1))
