#!/bin/sh
# Builds the small guest kernel from Debian's package linux-source-6.1 into OUT/vmlinux.
#
#   build.sh OUT_DIR [JOBS]
#
# Needs flex, bison, bc, libelf-dev, libssl-dev and network access to a Debian mirror (or the
# package's tarball in /usr/src). It takes tens of minutes on two cores, so the result is kept
# under a key of everything that went in (source version, fragment, this script, compiler): a
# second run with the same inputs returns at once. Same inputs give the same bytes: user, host
# and time of the build are fixed.
#
# Only the ELF is built, never a bzImage: QEMU starts it through its PVH note, which saves the
# guest from unpacking itself (a third of a second under emulation).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUT_DIR [JOBS]}
jobs=${2:-$(nproc)}
mkdir -p "$out"
out=$(cd "$out" && pwd)

fail() {
    echo "kernel/build.sh: $*" >&2
    exit 1
}
for tool in flex bison bc make gcc xz dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install flex bison bc build-essential xz-utils"
done

work=$out/work
mkdir -p "$work"
if [ -f /usr/src/linux-source-6.1.tar.xz ]; then
    tarball=/usr/src/linux-source-6.1.tar.xz
    version=$(dpkg-query -W -f '${Version}' linux-source-6.1)
else
    version=$(apt-cache policy linux-source-6.1 | awk '/Candidate:/{print $2}')
    [ -n "$version" ] && [ "$version" != "(none)" ] || fail "apt knows no package linux-source-6.1: run apt-get update"
    tarball=$work/linux-source-$version.tar.xz
    if [ ! -f "$tarball" ]; then
        (cd "$work" && apt-get download "linux-source-6.1=$version" >&2)
        deb=$(ls "$work"/linux-source-6.1_*.deb | tail -n 1)
        dpkg-deb --fsys-tarfile "$deb" | tar -xO ./usr/src/linux-source-6.1.tar.xz >"$tarball.part"
        mv "$tarball.part" "$tarball"
        rm -f "$deb"
    fi
fi

key=$( { echo "$version"; cat "$here/config.fragment" "$here/build.sh"; gcc -dumpfullversion; } |
    sha256sum | cut -c1-16)
if [ -f "$out/vmlinux-$key" ]; then
    ln -f "$out/vmlinux-$key" "$out/vmlinux"
    echo "kernel/build.sh: $out/vmlinux is up to date" >&2
    exit 0
fi

src=$work/linux-$key
if [ ! -f "$src/.unpacked" ]; then
    rm -rf "$src"
    mkdir -p "$src"
    tar -C "$src" --strip-components=1 -xJf "$tarball"
    touch "$src/.unpacked"
fi
export KBUILD_BUILD_TIMESTAMP='Thu Jan  1 00:00:00 UTC 2026'
export KBUILD_BUILD_USER=thimble KBUILD_BUILD_HOST=thimble KBUILD_BUILD_VERSION=1
export SOURCE_DATE_EPOCH=1767225600
cd "$src"
make -s KCONFIG_ALLCONFIG="$here/config.fragment" allnoconfig
grep -o '^CONFIG_[A-Z0-9_]*=[^#]*' "$here/config.fragment" | while IFS='=' read -r name want; do
    if [ "$want" = n ]; then
        ! grep -q "^$name=" .config || echo "$name"
    else
        grep -qx "$name=$want" .config || echo "$name"
    fi
done >"$work/not-applied"
if [ -s "$work/not-applied" ]; then
    echo "kernel/build.sh: these options did not take effect:" >&2
    cat "$work/not-applied" >&2
    exit 1
fi
make -s -j"$jobs" vmlinux
strip -s -o "$out/vmlinux-$key.part" vmlinux
mv "$out/vmlinux-$key.part" "$out/vmlinux-$key"
ln -f "$out/vmlinux-$key" "$out/vmlinux"
cd "$out"
rm -rf "$src"
ls -l "$out/vmlinux" >&2
