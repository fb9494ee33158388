#!/usr/bin/env bash
# deps.sh SET... - makes sure that the Debian packages of the named sets are installed.
#
# Installs missing ones as root or through `sudo -n`; otherwise prints the one command to run and
# fails. On a system without dpkg it can only say what is needed. "a|b": either will do.
set -euo pipefail

packages_of() {
    case $1 in
    build) echo "gcc libc6-dev make cmake pkg-config|pkgconf git python3 libjansson-dev" \
        "libutf8proc-dev libpcre2-dev libcurl4-openssl-dev libssl-dev libevent-dev" \
        "gnuplot-nox|gnuplot-qt|gnuplot-x11" ;;
    pip) echo "python3-pip" ;;
    test) echo "libcmocka-dev python3-jinja2 python3-venv python3-pandas python3-openpyxl locales" ;;
    lint) echo "clang libclang-rt-dev clang-format clang-tidy cppcheck" ;;
    *) echo "deps.sh: unknown set '$1' (build, pip, test, lint)" >&2; exit 2 ;;
    esac
}

is_installed() {
    [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

wanted=
for set in "$@"; do
    wanted+=" $(packages_of "$set")"
done

if ! command -v dpkg-query >/dev/null; then
    echo "deps: not a Debian system; this needs the counterparts of:$wanted" >&2
    exit 0
fi

missing=()
for choice in $wanted; do
    found=
    for package in ${choice//|/ }; do
        if is_installed "$package"; then found=1; fi
    done
    if [ -z "$found" ]; then missing+=("${choice%%|*}"); fi
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        as_root=(sudo -n)
    else
        echo "deps: packages are missing; run this, then try again:" >&2
        echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends" \
            "${missing[*]}" >&2
        exit 1
    fi
fi

apt() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 \
        -o Acquire::Retries=3 "$@" </dev/null
}

echo "deps: installing ${missing[*]}"
# Package lists may be absent (a fresh image) or stale: refresh when absent, and after a failure.
if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
    apt update -q
fi
apt install -q -y --no-install-recommends "${missing[@]}" ||
    { apt update -q && apt install -q -y --no-install-recommends "${missing[@]}"; }
