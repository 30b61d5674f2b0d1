"""The on-disk format of layers: the kernel overlayfs's own, as mounted with `userxattr`.

Pure rules, no I/O. Documentation/filesystems/overlayfs.rst of Linux, "whiteouts and opaque
directories" and "User xattr".
"""

from __future__ import annotations

import errno
import stat

OPAQUE_XATTR = "user.overlay.opaque"
OPAQUE = b"y"

# Shown to nobody and settable by nobody inside the mount: a planted `user.overlay.opaque` or
# `user.overlay.redirect` would change what the layer means to whoever mounts it next.
_RESERVED = (b"user.overlay.", b"trusted.overlay.")

# Linux answers ENOTSUP for ACLs of a file system without them, and tools fall back to the mode.
_ACL = (b"system.posix_acl_access", b"system.posix_acl_default")

NAME_MAX = 255


def is_whiteout(mode: int, rdev: int) -> bool:
    """Tells whether an object of this mode and device number hides the name in layers below."""
    return rdev == 0 and stat.S_ISCHR(mode)


def is_opaque(value: bytes | None) -> bool:
    """Tells whether a directory with this value of OPAQUE_XATTR hides the layers below."""
    return value == OPAQUE


def is_reserved(xattr: bytes) -> bool:
    """Tells whether the extended attribute belongs to the format and is hidden from users."""
    return xattr.startswith(_RESERVED)


def xattr_refusal(xattr: bytes) -> int:
    """The errno for setting or removing this attribute, 0 if it may be done (xattr(7))."""
    if xattr.startswith(_RESERVED):
        return errno.EPERM
    if xattr in _ACL:
        return errno.EOPNOTSUPP
    return 0
