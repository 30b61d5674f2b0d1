from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.errors import JailError
from sandbox.jail.exposure import SECRETS, TOOLCHAINS
from sandbox.jail.jail import Bind, JailSpec, Mask, operations, places_of, shown_at
from sandbox.jail.view import Ground, Lane, Secret, home_conflict, jail_of

HOME = "/home/u"
REPOSITORY = "/home/u/proj"
STATE = "/home/u/proj/.git/nanosup"
LANE_DIR = f"{STATE}/sprints/s/lane"
LANE = Lane(
    argv=("agent",),
    uid=1000,
    gid=1000,
    repository=REPOSITORY,
    mount=f"{LANE_DIR}/mnt",
    home=f"{LANE_DIR}/home",
    git_dir=f"{LANE_DIR}/git",
    inputs=f"{LANE_DIR}/inputs",
    outputs=f"{LANE_DIR}/outputs",
    prompt=f"{LANE_DIR}/prompt.md",
    hidden=(STATE, "/home/u/proj/.git"),
)
GROUND = Ground(
    user_home=HOME,
    masks=("/home", "/root", "/mnt", "/run"),
    passwd="root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/zsh\n",
    group="u:x:1000:\n",
    user="u",
    environment={"PATH": "/home/u/.cargo/bin:/home/u/bin:/usr/bin:bin", "LANG": "C.UTF-8"},
)


def bound(spec: JailSpec, target: str) -> Bind:
    return next(bind for bind in spec.binds if bind.target == target)


def test_the_mount_is_at_the_repositorys_own_path_and_work_starts_there() -> None:
    spec = jail_of(LANE, GROUND)

    assert bound(spec, REPOSITORY) == Bind(LANE.mount, REPOSITORY)
    assert spec.cwd == REPOSITORY


@pytest.mark.parametrize("writes", [False, True])
def test_only_a_writing_lane_has_its_mount_and_git_directory_writable(writes: bool) -> None:
    spec = jail_of(replace(LANE, writable=writes, git_writable=writes), GROUND)

    assert bound(spec, REPOSITORY).writable is writes
    assert bound(spec, f"{REPOSITORY}/.git").writable is writes


def test_a_reading_lane_has_nothing_writable_but_its_own_directories() -> None:
    lane = replace(LANE, scratch=((f"{LANE_DIR}/scratch/0", "target"),))
    spec = jail_of(lane, GROUND)

    writable = {bind.target for bind in spec.binds if bind.writable}
    assert writable == {HOME, f"{REPOSITORY}/target", "/run/nanosup/outputs"}
    assert {mask.target for mask in spec.masks if mask.writable} == {"/tmp", "/var/tmp"}


def test_home_is_the_lanes_own_with_the_toolchains_in_it() -> None:
    ground = replace(GROUND, toolchains=(("/data/nvm", f"{HOME}/.nvm"),))
    spec = jail_of(LANE, ground)

    assert bound(spec, HOME) == Bind(LANE.home, HOME, writable=True)
    assert bound(spec, f"{HOME}/.nvm") == Bind("/data/nvm", f"{HOME}/.nvm")
    assert shown_at(spec, f"{HOME}/.ssh") == f"{LANE.home}/.ssh"


def test_what_home_read_asks_for_is_shown_once_and_without_the_secrets_in_it() -> None:
    ground = replace(
        GROUND,
        toolchains=((f"{HOME}/.local/bin", f"{HOME}/.local/bin"),),
        home_paths=(
            (f"{HOME}/.local", f"{HOME}/.local"),
            (f"{HOME}/.config", f"{HOME}/.config"),
        ),
        secrets=(
            Secret(f"{HOME}/.config/gcloud", True),
            Secret(f"{HOME}/.config/git/credentials", False),
        ),
    )
    spec = jail_of(LANE, ground)

    assert bound(spec, f"{HOME}/.config") == Bind(f"{HOME}/.config", f"{HOME}/.config")
    assert not any(bind.target == f"{HOME}/.local/bin" for bind in spec.binds)
    assert shown_at(spec, f"{HOME}/.local/bin/x") == f"{HOME}/.local/bin/x"
    assert shown_at(spec, f"{HOME}/.config/gcloud/key") is None
    assert shown_at(spec, f"{HOME}/.config/git/credentials") is None
    assert shown_at(spec, f"{HOME}/.config/git/ignore") == f"{HOME}/.config/git/ignore"


@pytest.mark.parametrize("asked", [".ssh", ".ssh/id_ed25519", ".config/gcloud/x", ".aws"])
def test_a_secret_that_home_read_names_is_refused(asked: str) -> None:
    ground = replace(GROUND, home_paths=((f"{HOME}/{asked}", f"{HOME}/{asked}"),))

    with pytest.raises(JailError, match="which no lane is given"):
        jail_of(LANE, ground)


def test_a_link_to_a_secret_is_refused_as_well() -> None:
    ground = replace(
        GROUND,
        home_paths=((f"{HOME}/.ssh", f"{HOME}/innocent"),),
        secrets=(Secret(f"{HOME}/.ssh", True),),
    )

    with pytest.raises(JailError, match="leads to"):
        jail_of(LANE, ground)


@pytest.mark.parametrize("asked", [HOME, "/home", "/home/other"])
def test_home_as_a_whole_cannot_be_asked_for(asked: str) -> None:
    with pytest.raises(JailError, match="not a path below HOME"):
        jail_of(LANE, replace(GROUND, home_paths=((asked, asked),)))


def test_a_secret_that_really_is_elsewhere_is_masked_there() -> None:
    spec = jail_of(LANE, replace(GROUND, secrets=(Secret("/data/keys", True),)))

    assert Mask("/data/keys") in spec.masks


def test_a_board_outside_of_all_that_is_masked_is_hidden() -> None:
    spec = jail_of(replace(LANE, hidden=("/srv/state",)), GROUND)

    assert shown_at(spec, "/srv/state/sprints") is None


def test_the_git_directory_of_the_host_is_behind_the_lanes_own() -> None:
    spec = jail_of(LANE, GROUND)

    assert places_of(spec, [f"{REPOSITORY}/.git", STATE]) == {f"{REPOSITORY}/.git": (), STATE: ()}


def test_object_stores_are_shown_inside_a_hidden_git_directory() -> None:
    store = "/srv/main/.git/objects"
    lane = replace(LANE, hidden=("/srv/main/.git",), objects=(Bind(store, store),))
    spec = jail_of(lane, GROUND)

    assert shown_at(spec, f"{store}/pack") == f"{store}/pack"
    assert shown_at(spec, "/srv/main/.git/config") is None


@pytest.mark.parametrize(
    ("repository", "home"),
    [
        ("/root/proj", "/root"),
        ("/home/u/proj", "/home/u"),
        ("/tmp/proj", "/home/u"),
        ("/var/tmp/a/proj", "/home/u"),
        ("/run/user/1000/proj", "/home/u"),
        ("/srv/private/proj", "/var/lib/ci"),
        ("/mnt/disk/proj", "/mnt/disk/home"),
    ],
)
def test_the_repository_can_be_anywhere(repository: str, home: str) -> None:
    ground = replace(GROUND, user_home=home, barred=("/srv/private",))
    spec = jail_of(replace(LANE, repository=repository), ground)

    assert shown_at(spec, f"{repository}/src") == f"{LANE.mount}/src"
    targets = [operation.target for operation in operations(spec)]
    for parent in ("/tmp", "/var/tmp", "/run", "/home", "/root", "/mnt", home):
        if parent in targets and repository.startswith(parent + "/"):
            assert targets.index(parent) < targets.index(repository)


def test_a_repository_that_contains_home_is_refused() -> None:
    with pytest.raises(JailError, match="contains HOME"):
        jail_of(replace(LANE, repository=HOME), GROUND)


@pytest.mark.parametrize("path", ["..", "../x", "/etc", ".", "", ".git", ".git/hooks", "a/../.git"])
def test_scratch_and_share_stay_in_the_repository_and_out_of_git(path: str) -> None:
    with pytest.raises(JailError):
        jail_of(replace(LANE, scratch=(("/x", path),)), GROUND)
    with pytest.raises(JailError):
        jail_of(replace(LANE, share=(("/x", path),)), GROUND)


def test_shared_directories_are_read_only() -> None:
    host = f"{REPOSITORY}/node_modules"
    spec = jail_of(replace(LANE, share=((host, "node_modules"),)), GROUND)

    assert bound(spec, host) == Bind(host, host)


def test_of_the_hosts_environment_only_the_list_is_handed_on() -> None:
    ground = replace(
        GROUND,
        environment={
            "PATH": "/usr/bin",
            "LC_TIME": "de_DE.UTF-8",
            "TERM": "xterm",
            "AWS_SECRET_ACCESS_KEY": "x",
            "SSH_AUTH_SOCK": "/x",
            "LD_PRELOAD": "/x",
            "https_proxy": "http://proxy",
        },
    )
    env = jail_of(LANE, ground).env

    assert set(env) == {
        *("HOME", "USER", "LOGNAME", "SHELL", "PATH", "TERM", "TMPDIR", "LC_TIME"),
        *("NANOSUP_INPUTS", "NANOSUP_OUTPUTS", "NANOSUP_PROMPT_FILE"),
    }
    assert "https_proxy" in jail_of(replace(LANE, host_network=True), ground).env


def test_the_lanes_own_variables_win() -> None:
    assert jail_of(replace(LANE, env={"TERM": "dumber"}), GROUND).env["TERM"] == "dumber"


def test_path_keeps_what_can_be_seen() -> None:
    ground = replace(GROUND, toolchains=((f"{HOME}/.cargo/bin", f"{HOME}/.cargo/bin"),))
    entries = jail_of(LANE, ground).env["PATH"].split(":")

    assert entries[:2] == [f"{HOME}/.cargo/bin", "/usr/bin"]
    assert f"{HOME}/bin" not in entries
    assert "bin" not in entries
    assert "/usr/local/bin" in entries


def test_links_to_the_system_are_kept_and_followed_for_path() -> None:
    ground = replace(
        GROUND,
        links=(("/nix/store/abc-system", "/run/current-system"),),
        environment={"PATH": "/run/current-system/sw/bin:/run/wrappers/bin"},
    )
    spec = jail_of(LANE, ground)

    assert shown_at(spec, "/run/current-system/sw/bin") == "/nix/store/abc-system/sw/bin"
    assert spec.env["PATH"].startswith("/run/current-system/sw/bin:/usr/local/sbin")


def test_a_uid_that_the_host_knows_needs_no_entry() -> None:
    assert jail_of(LANE, GROUND).files == ()


def test_a_uid_that_the_host_does_not_know_gets_one() -> None:
    spec = jail_of(replace(LANE, uid=65520, gid=65520), replace(GROUND, user=""))
    passwd, group = spec.files

    assert passwd.content.endswith(b"\nlane:x:65520:65520::/home/u:/bin/sh\n")
    assert passwd.content.startswith(GROUND.passwd.encode())
    assert group.content.endswith(b"\nlane:x:65520:\n")
    assert spec.env["USER"] == "lane"


def test_the_resolvers_file_is_kept_where_the_network_is_the_hosts() -> None:
    resolver = "/run/systemd/resolve/stub-resolv.conf"
    ground = replace(GROUND, resolv_conf=resolver)

    with_network = jail_of(replace(LANE, host_network=True), ground)

    assert shown_at(with_network, resolver) == resolver
    assert shown_at(with_network, "/run/systemd/resolve/io.systemd.Resolve") is None
    assert shown_at(jail_of(LANE, ground), resolver) is None


def test_no_toolchain_is_a_secret_or_holds_one() -> None:
    for toolchain in TOOLCHAINS:
        assert home_conflict(toolchain) is None
        assert not any(secret.startswith(toolchain + "/") for secret in SECRETS)


names = st.sampled_from(["a", "b", ".config", ".local", ".ssh", "deep", "node_modules"])
below_home = st.lists(names, min_size=1, max_size=3).map("/".join)
anywhere = st.sampled_from(["/srv", "/data", "/home/u", "/tmp", "/opt", "/home/other", "/run"])
hosts = st.tuples(anywhere, below_home).map("/".join)


@given(
    repository=hosts,
    wanted=st.lists(below_home, max_size=4),
    secrets=st.lists(st.tuples(st.one_of(below_home.map(lambda p: f"{HOME}/{p}"), hosts),
                               st.booleans()), max_size=5),
    hidden=st.lists(hosts, max_size=3),
    share=st.lists(st.tuples(hosts, below_home), max_size=2),
)  # fmt: skip
def test_nothing_secret_or_hidden_can_be_seen_anywhere(
    repository: str,
    wanted: list[str],
    secrets: list[tuple[str, bool]],
    hidden: list[str],
    share: list[tuple[str, str]],
) -> None:
    lane = replace(
        LANE, repository=repository, mount="/lane/mnt", home="/lane/home", git_dir="/lane/git",
        hidden=tuple(hidden), share=tuple(share),
    )  # fmt: skip
    ground = replace(
        GROUND,
        home_paths=tuple((f"{HOME}/{path}", f"{HOME}/{path}") for path in wanted),
        secrets=tuple(Secret(path, is_directory) for path, is_directory in secrets),
    )
    try:
        spec = jail_of(lane, ground)
        targets = [operation.target for operation in operations(spec)]
    except JailError:
        return

    given_from = {directory for directory, _ in share} | {f"{HOME}/{path}" for path in wanted}
    for path in [*hidden, *(path for path, _ in secrets)]:
        # What is asked for by its own name from inside of a hidden directory is given.
        inside = {source for source in given_from if (source + "/").startswith(path + "/")}
        if not inside:
            assert places_of(spec, [path, f"{path}/x"]) == {path: (), f"{path}/x": ()}
    for index, target in enumerate(targets):
        assert not any(target.startswith(later + "/") for later in targets[index + 1 :])
