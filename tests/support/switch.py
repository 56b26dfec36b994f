"""A switch between network namespaces that delays and loses frames: for kernels without netem.

``python switch.py DELAY LOSS SEED NAMESPACE ...`` gives each namespace (``/proc/PID/ns/net``) an
Ethernet device "eth0" and says so with an empty line. It ends with its standard input, on which
``cut 0`` and ``mend 0`` unplug a namespace and plug it in again. It runs as a file, as a network
namespace belongs to a thread, and imports nothing of the project.

A frame may be up to 64 KiB long, as between a kernel and a network card that segments TCP itself.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

CLONE_NEWNET = 0x40000000
PR_SET_TIMERSLACK = 29
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02
HEADER = 10  # bytes before the frame, of segmentation and checksums: one kernel's word to another
LONGEST_FRAME = 1 << 17


def mac(place: int) -> str:
    """The Ethernet address of a namespace, which the switch forwards by."""
    return f"02:00:00:00:00:{place:02x}"


def _enter(namespace: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(namespace) as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def _plug(namespace: str) -> int:
    """A new device "eth0" in the namespace; what is read and written is its frames."""
    _enter(namespace)
    port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR
    fcntl.ioctl(port, TUNSETIFF, struct.pack("16sH22x", b"eth0", flags))
    fcntl.ioctl(port, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
    return port


class _Switch:
    def __init__(self, delay: float, loss: float, seed: int, ports: list[int]) -> None:
        self._delay = delay
        self._loss = loss
        self._random = random.Random(seed)
        self._ports = ports
        self._plugged = [True] * len(ports)
        self._late: deque[tuple[float, int, bytes]] = deque()  # due, to, frame

    def run(self) -> None:
        """Forward frames until standard input ends."""
        while True:
            pause = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            ready, _, _ = select.select([0, *self._ports], [], [], pause)
            for each in ready:
                if each:
                    self._take(self._ports.index(each))
                elif not self._obey(os.read(0, 1 << 12).decode()):
                    return
            now = time.monotonic()
            while self._late and self._late[0][0] <= now:
                self._send(*self._late.popleft()[1:])

    def _obey(self, lines: str) -> bool:
        for line in lines.splitlines():
            word, place = line.split()
            self._plugged[int(place)] = word == "mend"
            print(flush=True)
        return bool(lines)

    def _take(self, place: int) -> None:
        while True:
            try:
                frame = os.read(self._ports[place], LONGEST_FRAME)
            except BlockingIOError:
                return
            if not self._plugged[place] or self._random.random() < self._loss:
                continue
            group = frame[HEADER] & 1
            for to in range(len(self._ports)) if group else [frame[HEADER + 5]]:
                if to == place or to >= len(self._ports):
                    continue
                if self._delay:
                    self._late.append((time.monotonic() + self._delay, to, frame))
                else:
                    self._send(to, frame)

    def _send(self, to: int, frame: bytes) -> None:
        if self._plugged[to]:
            try:
                os.write(self._ports[to], frame)
            except OSError:  # the device is down, or its queue is full
                return


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0)
    switch = _Switch(
        float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), [*map(_plug, sys.argv[4:])]
    )
    _enter(f"/proc/{os.getppid()}/ns/net")  # it is no process of the last machine
    print(flush=True)
    switch.run()
