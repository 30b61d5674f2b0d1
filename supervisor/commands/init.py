"""`nanosup init`: a commented nanosup.toml to start from."""

from __future__ import annotations

from supervisor.board import place
from supervisor.config import config
from supervisor.config.resource import configs, presets
from supervisor.errors import ConfigError


def run(*, agent: str | None, force: bool) -> int:
    """Raises ConfigError where there is a file already, or no such preset."""
    here = place.find()
    path = here.top / config.FILE
    known = presets()
    name = agent or ("claude" if "claude" in known else next(iter(known)))
    config.preset(name)
    if path.exists() and not force:
        raise ConfigError(f"{path} is there already", hint="edit it, or use --force to replace it")
    text = (configs() / "init.toml").read_text(encoding="utf-8")
    text = text.replace("@AGENT@", name).replace("@PRESETS@", ", ".join(known))
    path.write_text(text, encoding="utf-8")
    print(f'wrote {path}; now: nanosup up --goal "…"')
    return 0
