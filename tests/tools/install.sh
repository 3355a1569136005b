#!/usr/bin/env bash
# Installs Debian packages from cli/packages that are missing: install.sh run | install.sh test.
# Says what it installs; does nothing when all are there.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
what=${1:-run}
missing=()
section=run
while read -r name; do
    case "$name" in
    '' | '#'*) continue ;;
    '[test]') section=test; continue ;;
    esac
    [ "$section" = test ] && [ "$what" != test ] && continue
    # A toolchain that is in PATH already is as good as the package.
    case "$name" in
    golang) command -v go >/dev/null && continue ;;
    npm) command -v npm >/dev/null && continue ;;
    esac
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
done <"$root/cli/packages"
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=
if [ "$(id -u)" != 0 ]; then
    sudo=sudo
    command -v sudo >/dev/null || { echo "Run this as root, or install sudo: packages are missing: ${missing[*]}" >&2; exit 1; }
fi
command -v apt-get >/dev/null || { echo "This is not Debian; install what these packages stand for: ${missing[*]}" >&2; exit 1; }
echo "Installing Debian packages: ${missing[*]}"
$sudo apt-get update -qq
# The daemons that come along are not needed and not started.
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
