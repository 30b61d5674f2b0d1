"""A process of the host for lanes to reach for. Ends when its standard input does.

`canary.py DIRECTORY NAME`: sockets in DIRECTORY, an abstract one called NAME. Prints a line of
JSON that says where everything is; gives whoever connects a descriptor that can write to a file.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import sys

PR_SET_PTRACER, ANYBODY = 0x59616D61, ctypes.c_ulong(-1)
IPC_PRIVATE, IPC_RMID = 0, 0


def main() -> None:
    directory, name = sys.argv[1:]
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_PTRACER, ANYBODY, 0, 0, 0)  # or Yama would protect it, and not the lane
    memory = ctypes.create_string_buffer(b"canary:)")
    prize = os.open(f"{directory}/prize", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(prize, b"the prize")
    shm_id = libc.shmget(IPC_PRIVATE, 4096, 0o600)
    libc.shmat.restype = ctypes.c_void_p
    address = libc.shmat(shm_id, None, 0)
    if address not in (None, ctypes.c_void_p(-1).value):
        ctypes.memmove(address, b"shared", 6)
    listeners = []
    for place in (f"{directory}/socket", b"\0" + name.encode()):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(place)
        listener.listen()
        listeners.append(listener)
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(f"{directory}/datagrams")
    os.chmod(f"{directory}/socket", 0o777)
    os.chmod(f"{directory}/datagrams", 0o777)
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    facts = {
        "canary_pid": os.getpid(),
        "canary_address": ctypes.addressof(memory),
        "canary_fd": prize,
        "shm_id": shm_id,
        "socket_path": f"{directory}/socket",
        "socket_name": name,
        "datagram_path": f"{directory}/datagrams",
        "tcp_port": tcp.getsockname()[1],
        "udp_port": udp.getsockname()[1],
    }
    print(json.dumps(facts), flush=True)
    while True:
        ready, _, _ = select.select([sys.stdin, *listeners, datagrams, tcp, udp], [], [])
        for one in ready:
            if one is sys.stdin:
                libc.shmctl(shm_id, IPC_RMID, None)
                return
            if one in listeners:
                peer, _ = one.accept()
                socket.send_fds(peer, [b"take it"], [prize])
                peer.close()
            elif one is tcp:
                peer, _ = tcp.accept()
                peer.send(b"HTTP/1.0 200 it got here\r\n\r\n")
                peer.close()
            else:
                _, address = one.recvfrom(64)
                if one is udp:
                    udp.sendto(b"heard", address)


if __name__ == "__main__":
    main()
