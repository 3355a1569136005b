#!/usr/bin/env python3
"""Thread-local memory of a program: check_tls.py FILE. Each thread gets, and touches, all of it when it
starts, so a buffer of 128 KiB that one function wants costs every thread as much."""
import struct
import sys

MAX = 16 << 10
PT_TLS = 7


def tls_size(path):
    with open(path, "rb") as f:
        elf = f.read(64)
        offset, = struct.unpack_from("<Q", elf, 32)
        size, count = struct.unpack_from("<HH", elf, 54)
        f.seek(offset)
        table = f.read(size * count)
    for i in range(count):
        kind, = struct.unpack_from("<I", table, i * size)
        if kind == PT_TLS:
            return struct.unpack_from("<Q", table, i * size + 40)[0]
    return 0


def main():
    bad = 0
    for path in sys.argv[1:]:
        n = tls_size(path)
        print("%s: %d bytes of thread-local memory" % (path, n))
        if n > MAX:
            print("  more than %d: allocate the buffer where it is used" % MAX)
            bad = 1
    sys.exit(bad)


if __name__ == "__main__":
    main()
