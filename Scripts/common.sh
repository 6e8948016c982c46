# shellcheck shell=bash
# Shared by the scripts of this folder: `source` it, never run it.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
# Where Scripts/install-packages puts the Python environment that the tests use.
# shellcheck disable=SC2034
test_venv=$root/.build/test-venv

say() { printf '%s\n' "$*"; }

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# Makes `swift` callable and checks that it is new enough, or ends with one sentence.
require_swift() {
    if ! command -v swift >/dev/null 2>&1; then
        local candidate
        for candidate in /opt/swift/usr/bin /usr/local/swift/usr/bin "$HOME/.local/share/swiftly/bin"; do
            if [[ -x $candidate/swift ]]; then
                export PATH=$candidate:$PATH
                break
            fi
        done
    fi
    command -v swift >/dev/null 2>&1 || die "Swift is not installed: get 6.2 or later from https://www.swift.org/install/ and put it on PATH"
    local version
    version=$(swift --version 2>/dev/null | sed -nE 's/.*Swift version ([0-9]+\.[0-9]+).*/\1/p' | head -n 1)
    [[ -n $version ]] || die "cannot tell the version of $(command -v swift)"
    if ((${version%%.*} < 6 || (${version%%.*} == 6 && ${version#*.} < 2))); then
        die "Swift $version is too old: Strata needs 6.2 or later"
    fi
}
