# common.sh - sourced by the scripts of tests/: finding the Rust toolchain and getting root.
# shellcheck shell=bash

# Runs a command as root: directly, or through sudo with what the lab needs of the environment.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo env ${AURORABOOT:+"AURORABOOT=$AURORABOOT"} "$@"
	else
		echo "$0: not root and no sudo: cannot run: $*" >&2
		return 1
	fi
}

# Puts cargo on the PATH: rustup's usual place, or that of the user who called sudo.
find_cargo() {
	local home
	command -v cargo >/dev/null && return
	for home in "$HOME" "$(getent passwd "${SUDO_USER:-}" | cut -d: -f6)"; do
		[ -n "$home" ] && [ -x "$home/.cargo/bin/cargo" ] || continue
		export PATH=$home/.cargo/bin:$PATH RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup}
		return
	done
	echo "$0: no Rust toolchain: install rustup (https://rustup.rs), then run this again" >&2
	return 1
}
