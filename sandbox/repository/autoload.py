"""Files that tools of the host load or run by themselves once they are there. Pure.

A change to one of these is the way from a lane onto the host that no jail can close: a person
merges it, opens an editor or types `cd`, and what the agent wrote is executed.
"""

from __future__ import annotations

import re

_REASONS: tuple[tuple[str, str], ...] = (
    (r"(.*/)?\.claude/.*|(.*/)?CLAUDE(\.local)?\.md", "Claude Code loads it"),
    (r"(.*/)?\.mcp\.json|(.*/)?mcp\.json", "agents start the servers that it names"),
    (r"(.*/)?\.cursor/.*|(.*/)?\.cursorrules", "Cursor loads it"),
    (r"(.*/)?\.codex/.*|(.*/)?AGENTS(\.override)?\.md", "Codex and other agents load it"),
    (r"(.*/)?\.gemini/.*|(.*/)?GEMINI\.md", "Gemini CLI loads it"),
    (r"(.*/)?\.opencode/.*|(.*/)?opencode\.jsonc?", "OpenCode loads it"),
    (r"(.*/)?\.aider\.conf\.yml", "aider loads it"),
    (r"(.*/)?\.github/copilot-instructions\.md", "Copilot loads it"),
    (
        r"(.*/)?\.vscode/.*|(.*/)?[^/]+\.code-workspace",
        "VS Code loads it, tasks may run on opening",
    ),
    (r"(.*/)?\.idea/.*|(.*/)?\.fleet/.*|(.*/)?\.zed/.*", "an editor loads it"),
    (r"(.*/)?\.vimrc|(.*/)?\.exrc|(.*/)?\.nvim\.lua|(.*/)?\.nvimrc", "vim may run it"),
    (r"(.*/)?\.dir-locals(-2)?\.el|(.*/)?\.editorconfig", "an editor loads it"),
    (r"(.*/)?\.devcontainer(/.*|\.json)", "editors build and run the container that it describes"),
    (r"(.*/)?\.envrc|(.*/)?\.env(\..*)?", "direnv and other tools load it"),
    (r"(.*/)?\.?mise(\..*)?\.toml|(.*/)?\.tool-versions", "mise or asdf loads it"),
    (r"(.*/)?\.husky/.*|(.*/)?\.githooks/.*|(.*/)?\.hooks/.*", "git may run it as a hook"),
    (
        r"\.pre-commit-config\.ya?ml|\.?lefthook(-local)?\.ya?ml|\.lintstagedrc.*",
        "hooks run what it names",
    ),
    (r"\.gitmodules", "git fetches what it names"),
    (r"(.*/)?\.gitattributes", "it chooses which of the host's filters git runs"),
    (r"\.github/workflows/.*|\.gitlab-ci\.yml|\.circleci/.*|\.ci/.*|Jenkinsfile", "CI runs it"),
    (r"nanosup\.toml", "nanosup runs the commands that it names"),
    (
        r"(.*/)?(conftest|sitecustomize|usercustomize)\.py|(.*/)?[^/]+\.pth",
        "Python runs it unasked",
    ),
    (r"(.*/)?\.npmrc|(.*/)?\.yarnrc(\.yml)?|(.*/)?\.pnpmfile\.cjs", "package managers load it"),
    (r"(.*/)?\.cargo/config(\.toml)?|(.*/)?build\.rs", "cargo runs it"),
    (r"(.*/)?\.bazelrc|(.*/)?\.gdbinit|(.*/)?\.lldbinit", "a tool runs it on starting"),
)

# Case does not count: file systems of other machines may not tell it apart.
_PATTERNS = tuple((re.compile(text, re.IGNORECASE | re.DOTALL), why) for text, why in _REASONS)


def autoload_reason(path: str) -> str | None:
    """Why a change to `path` (from the top of the repository) deserves a second look, or None."""
    for pattern, why in _PATTERNS:
        if pattern.fullmatch(path):
            return why
    return None
