"""What agents' models speak: the request an agent sends, and the stream of events it expects.

Each dialect knows enough of one API to call the shell tool once and to close with a message.
The shapes are those of the vendors' API references, and were seen in what the real CLIs send.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

Json = dict[str, Any]


class Dialect(Protocol):
    """One API."""

    def speaks(self, path: str) -> bool:
        """Whether a request to `path` is of this API."""

    def prompt(self, request: Json) -> str:
        """The text of all that the person (or the harness) said."""

    def tool_result(self, request: Json) -> str | None:
        """What the agent's tool returned, if the request carries that."""

    def call(self, request: Json, command: str) -> bytes | None:
        """The stream that calls the agent's shell tool; None where it was offered none."""

    def message(self, request: Json, text: str) -> bytes:
        """The stream of a closing message."""


class Responses:
    """OpenAI's Responses API: Codex."""

    def speaks(self, path: str) -> bool:
        return path.endswith("/responses")

    def prompt(self, request: Json) -> str:
        if isinstance(request["input"], str):
            return request["input"]
        return "\n".join(
            part.get("text", "")
            for item in request["input"]
            if item.get("role") == "user"
            for part in item.get("content", ())
        )

    def tool_result(self, request: Json) -> str | None:
        if isinstance(request["input"], str):
            return None
        for item in reversed(request["input"]):
            if item.get("type") == "function_call_output":
                return _text(item["output"])
        return None

    def call(self, request: Json, command: str) -> bytes | None:
        offered = {tool.get("name") for tool in request.get("tools", ())}
        if "exec_command" in offered:
            name, arguments = "exec_command", {"cmd": command}
        elif "shell_command" in offered:
            name, arguments = "shell_command", {"command": command}
        else:
            name, arguments = "shell", {"command": ["sh", "-c", command]}
        return self._stream(
            {
                "type": "function_call",
                "id": "fc_1",
                "call_id": "call_1",
                "name": name,
                "arguments": json.dumps(arguments),
                "status": "completed",
            }
        )

    def message(self, request: Json, text: str) -> bytes:
        return self._stream(
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": text, "annotations": []}],
            }
        )

    def _stream(self, item: Json) -> bytes:
        return _named(self._events(item))

    def _events(self, item: Json) -> Iterator[Json]:
        response = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
        yield {"type": "response.created", "response": response}
        yield {"type": "response.output_item.added", "output_index": 0, "item": item}
        yield {"type": "response.output_item.done", "output_index": 0, "item": item}
        usage = {
            "input_tokens": 10,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 5,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 15,
        }
        done = {**response, "status": "completed", "output": [item], "usage": usage}
        yield {"type": "response.completed", "response": done}


class Messages:
    """Anthropic's Messages API: Claude Code, and OpenCode with that provider."""

    def speaks(self, path: str) -> bool:
        return path.partition("?")[0].endswith("/messages")

    def prompt(self, request: Json) -> str:
        return "\n".join(
            part.get("text", "")
            for message in request["messages"]
            if message["role"] == "user"
            for part in _parts(message["content"])
        )

    def tool_result(self, request: Json) -> str | None:
        for part in _parts(request["messages"][-1]["content"]):
            if part.get("type") == "tool_result":
                return _text(part.get("content"))
        return None

    def call(self, request: Json, command: str) -> bytes | None:
        for tool in request.get("tools", ()):
            if tool.get("name", "").lower() == "bash":
                block = {"type": "tool_use", "id": "toolu_1", "name": tool["name"], "input": {}}
                given = json.dumps({"command": command, "description": "as the script says"})
                delta = {"type": "input_json_delta", "partial_json": given}
                return self._stream(request, block, delta, "tool_use")
        return None

    def message(self, request: Json, text: str) -> bytes:
        delta = {"type": "text_delta", "text": text}
        return self._stream(request, {"type": "text", "text": ""}, delta, "end_turn")

    def _stream(self, request: Json, block: Json, delta: Json, reason: str) -> bytes:
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": request.get("model", "scripted"),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 10, "output_tokens": 1},
        }
        end = {"stop_reason": reason, "stop_sequence": None}
        return _named(
            [
                {"type": "message_start", "message": message},
                {"type": "content_block_start", "index": 0, "content_block": block},
                {"type": "content_block_delta", "index": 0, "delta": delta},
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": end, "usage": {"output_tokens": 5}},
                {"type": "message_stop"},
            ]
        )


class GenerateContent:
    """Google's Gemini API: Gemini CLI."""

    def speaks(self, path: str) -> bool:
        return ":streamGenerateContent" in path

    def prompt(self, request: Json) -> str:
        return "\n".join(part.get("text", "") for part in self._said(request))

    def tool_result(self, request: Json) -> str | None:
        for part in self._said(request):
            if "functionResponse" in part:
                return _text(part["functionResponse"]["response"])
        return None

    def call(self, request: Json, command: str) -> bytes | None:
        for tool in request.get("tools", ()):
            for function in tool.get("functionDeclarations", ()):
                if function["name"] == "run_shell_command":
                    arguments = {"command": command, "description": "as the script says"}
                    call = {"name": "run_shell_command", "args": arguments}
                    return self._stream({"functionCall": call})
        return None

    def message(self, request: Json, text: str) -> bytes:
        return self._stream({"text": text})

    def _said(self, request: Json) -> list[Json]:
        return [part for content in request["contents"] for part in content.get("parts", ())]

    def _stream(self, part: Json) -> bytes:
        content = {"role": "model", "parts": [part]}
        usage = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
        event = {
            "candidates": [{"content": content, "finishReason": "STOP", "index": 0}],
            "usageMetadata": usage,
            "modelVersion": "scripted",
        }
        return f"data: {json.dumps(event)}\n\n".encode()


DIALECTS: tuple[Dialect, ...] = (Responses(), Messages(), GenerateContent())


def _parts(content: Any) -> list[Json]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _named(events: Iterable[Json]) -> bytes:
    """Server-sent events that carry their type as their name (HTML standard, 9.2)."""
    return "".join(
        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events
    ).encode()
