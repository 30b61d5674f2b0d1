"""A model that follows a script: enough of the Responses API for the real Codex CLI.

Serves `POST /v1/responses` on loopback as server-sent events. The first request of a conversation
is answered with one call of the agent's shell tool; the request that carries the tool's result
is answered with a message that quotes it. Every request is kept, so that a test can see
what the agent's own tools reported.

By hand: `python3 scripted_model.py 'echo hello'` prints its port, then one line a request.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Json = dict[str, Any]


@dataclass
class ScriptedModel:
    """Serves until closed. `script` turns a conversation's prompt text into a shell command."""

    script: Callable[[str], str]
    requests: list[Json] = field(default_factory=list)

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
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def tool_results(self) -> list[str]:
        """What the agent's tool calls returned, in order of arrival."""
        return [text for request in self.requests if (text := _tool_result(request)) is not None]

    def answer(self, request: Json) -> list[Json]:
        """The output items that follow `request`."""
        self.requests.append(request)
        result = _tool_result(request)
        if result is not None:
            return [_message(f"The command said: {result}")]
        return [_shell_call(request, self.script(_prompt(request)))]


def _prompt(request: Json) -> str:
    """The text of all that the person (or the harness) said."""
    if isinstance(request["input"], str):
        return request["input"]
    texts = [
        part.get("text", "")
        for item in request["input"]
        if item.get("role") == "user"
        for part in item.get("content", ())
    ]
    return "\n".join(texts)


def _tool_result(request: Json) -> str | None:
    if isinstance(request["input"], str):
        return None
    for item in reversed(request["input"]):
        if item.get("type") == "function_call_output":
            output = item["output"]
            return output if isinstance(output, str) else json.dumps(output)
    return None


def _shell_call(request: Json, command: str) -> Json:
    """A call of whichever shell tool this version of the agent offers."""
    offered = {tool.get("name") for tool in request.get("tools", ())}
    if "exec_command" in offered:
        name, arguments = "exec_command", {"cmd": command}
    elif "shell_command" in offered:
        name, arguments = "shell_command", {"command": command}
    else:
        name, arguments = "shell", {"command": ["sh", "-c", command]}
    return {
        "type": "function_call",
        "id": "fc_1",
        "call_id": "call_1",
        "name": name,
        "arguments": json.dumps(arguments),
        "status": "completed",
    }


def _message(text: str) -> Json:
    return {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": []}],
    }


def _events(number: int, items: list[Json]) -> Iterator[Json]:
    response = {"id": f"resp_{number}", "object": "response", "status": "in_progress", "output": []}
    yield {"type": "response.created", "response": response}
    for index, item in enumerate(items):
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }
    done = {**response, "status": "completed", "output": items, "usage": usage}
    yield {"type": "response.completed", "response": done}


def _handler(model: ScriptedModel) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self.path.endswith("/responses"):
                self._say(404, "application/json", b"{}")
                return
            items = model.answer(json.loads(body))
            stream = "".join(
                f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"
                for event in _events(len(model.requests), items)
            )
            self._say(200, "text/event-stream", stream.encode())

        def do_GET(self) -> None:
            self._say(404, "application/json", b"{}")

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
        print(served.base_url, flush=True)
        sys.stdin.read()
        print(json.dumps(served.requests, indent=1))
