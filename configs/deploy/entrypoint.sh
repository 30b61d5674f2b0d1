#!/bin/sh
# A container that runs one sprint: `nanosup up` is process 1, which waits for orphans and ends its
# lanes on `docker stop`.
#
#   docker run --rm -v "$PWD:/work" --device /dev/fuse --cap-add SYS_ADMIN --stop-timeout 120 \
#       --security-opt seccomp=unconfined --security-opt apparmor=unconfined IMAGE "the goal"
#
# `nanosup doctor` in the container says what it can enforce. The board is in the repository's git
# directory, so a container that was killed goes on when it is started again with the same volume.
set -eu
cd "${NANOSUP_REPOSITORY:-/work}"
# Git refuses repositories of another user; this one was mounted for us.
git config --global --get-all safe.directory | grep -qxF "$PWD" || git config --global --add safe.directory "$PWD"
exec nanosup up --plain --goal "${1:-${NANOSUP_GOAL:-}}"
