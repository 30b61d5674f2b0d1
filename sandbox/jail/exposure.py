"""What of a host is hidden from every lane, and what is shown of its HOME. Lists, and why.

docs/jail.md repeats them for people who ask what an agent can see.
"""

from __future__ import annotations

# Emptied in every lane: homes and mail of others, removable and foreign disks, sockets of services
# that a group may use, and the control files of the kernel that have no business in a lane. Each
# costs a lane a third of a millisecond, so what permissions hide from all but root is not listed.
MASKED = (
    "/home",
    "/media",
    "/mnt",
    "/root",
    "/run",
    "/sys/fs",  # cgroups, FUSE connections, bpf
    "/sys/kernel",  # debug, tracing, security
    "/var/home",
    "/var/lib/incus",
    "/var/lib/lxd",
    "/var/mail",
    "/var/roothome",
    "/var/snap/lxd",
    "/var/spool/mail",
)

# Links below something that is masked, kept: all programs of NixOS and Guix are found by the first.
KEPT_LINKS = ("/run/current-system", "/run/opengl-driver")

# Shown read-only where they exist: what people install compilers, interpreters and agents with.
# Relative to HOME. None of them holds credentials.
TOOLCHAINS = (
    ".asdf",
    ".bun/bin",
    ".bun/install",
    ".cargo/bin",
    ".claude/local",
    ".deno/bin",
    ".fnm",
    ".ghcup",
    ".juliaup",
    ".local/bin",
    ".local/lib",
    ".local/pipx",
    ".local/share/claude",
    ".local/share/cursor-agent",
    ".local/share/fnm",
    ".local/share/mise",
    ".local/share/pipx",
    ".local/share/pnpm",
    ".local/share/uv",
    ".n",
    ".nix-profile",
    ".nodenv",
    ".npm-global",
    ".npm-packages",
    ".nvm",
    ".opencode/bin",
    ".poetry/bin",
    ".pyenv",
    ".rbenv",
    ".rustup",
    ".rvm",
    ".sdkman",
    ".volta",
    "go/bin",
    "go/pkg/mod",
)

# The same outside of HOME, below something that is masked.
TOOLCHAINS_ELSEWHERE = ("/home/linuxbrew/.linuxbrew",)

# Never shown, even where a directory above is asked for. Relative to HOME.
SECRETS = (
    ".Xauthority",
    ".aws",
    ".azure",
    ".bash_history",
    ".boto",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config/BraveSoftware",
    ".config/Signal",
    ".config/chromium",
    ".config/containers/auth.json",
    ".config/doctl",
    ".config/gcloud",
    ".config/gh",
    ".config/git/credentials",
    ".config/glab-cli",
    ".config/google-chrome",
    ".config/helm",
    ".config/hub",
    ".config/keybase",
    ".config/microsoft-edge",
    ".config/op",
    ".config/rclone",
    ".config/sops",
    ".config/vivaldi",
    ".docker",
    ".electrum",
    ".fly",
    ".gem/credentials",
    ".git-credentials",
    ".gnupg",
    ".kube",
    ".local/share/gnupg",
    ".local/share/keyrings",
    ".local/share/password-store",
    ".m2/settings-security.xml",
    ".mozilla",
    ".my.cnf",
    ".netrc",
    ".node_repl_history",
    ".oci",
    ".password-store",
    ".pgpass",
    ".pki",
    ".psql_history",
    ".pypirc",
    ".python_history",
    ".ssh",
    ".terraform.d/credentials.tfrc.json",
    ".thunderbird",
    ".vault-token",
    ".zsh_history",
    "snap/chromium",
    "snap/firefox",
)

# Of the host's environment a lane gets these and nothing else.
ENVIRONMENT = (
    "COLORTERM",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "LANG",
    "LANGUAGE",
    "NODE_EXTRA_CA_CERTS",
    "NVM_DIR",
    "PYENV_ROOT",
    "REQUESTS_CA_BUNDLE",
    "RUSTUP_HOME",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TZ",
    "VOLTA_HOME",
)
# And these, where it has the host's network.
PROXIES = (
    "ALL_PROXY",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "all_proxy",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
