# private-apt.sh - sourced: apt with a package list of its own, so that the machine's stays as it is.
#
#   private_apt_open DIR SUITE...   prepare DIR and download the indexes of these Debian suites
#   private_apt TOOL ARGS...        run apt-get or apt-cache against that list
#                                   (private_apt_options: the same as a list of arguments)
#
# With private_apt_with_system=1 the machine's own sources are part of the list; with private_apt_architectures="A B"
# packages of these architectures can be downloaded, and a name without one means A (dpkg need not know any of them).
# private_apt_components="non-free-firmware" adds components to main, private_apt_sources=1 the source packages.
#
# The mirror is whatever the machine already uses (asked of apt, never written down here) and
# everything is checked against Debian's archive key. Works unprivileged, except for installing.
# shellcheck shell=bash

# The machine's own Debian mirror. A machine whose sources are all something else gets an error.
debian_mirror() {
	local uri
	uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$') || {
		echo "private-apt: no Debian archive (…/debian) in this machine's apt sources; add one, for example in /etc/apt/sources.list" >&2
		return 1
	}
	echo "$uri"
}

private_apt_open() {
	private_apt_dir=$1
	shift
	local mirror suite kind architecture architectures=${private_apt_architectures:-} key=/usr/share/keyrings/debian-archive-keyring.gpg
	mirror=$(debian_mirror)
	[ -r "$key" ] || { echo "private-apt: $key is missing; install debian-archive-keyring" >&2; return 1; }
	mkdir -p "$private_apt_dir"/{lists,cache}/partial "$private_apt_dir"/{parts,preferences}
	for suite in "$@"; do
		for kind in deb ${private_apt_sources:+deb-src}; do
			echo "$kind [${architectures:+arch=${architectures// /,} }signed-by=$key] $mirror $suite main ${private_apt_components:-}"
		done
	done >"$private_apt_dir/sources.list"
	rm -f "$private_apt_dir"/parts/*
	if [ -n "${private_apt_with_system:-}" ]; then
		cp /etc/apt/sources.list.d/*.{list,sources} "$private_apt_dir/parts/" 2>/dev/null || true
		[ ! -f /etc/apt/sources.list ] || cp /etc/apt/sources.list "$private_apt_dir/parts/system.list"
	fi
	# The sandbox user `_apt` could not read a cache below somebody's home; the signature check does
	# not depend on it. Dir::State::status stays the system's: an installed package is installed.
	private_apt_options=(
		-o Dir::Etc::SourceList="$private_apt_dir/sources.list"
		-o Dir::Etc::SourceParts="$private_apt_dir/parts"
		-o Dir::Etc::Preferences="$private_apt_dir/none"
		-o Dir::Etc::PreferencesParts="$private_apt_dir/preferences"
		-o Dir::State::Lists="$private_apt_dir/lists"
		-o Dir::Cache="$private_apt_dir/cache"
		-o APT::Sandbox::User=root
		-o Acquire::Retries=3
		-o Acquire::Languages=none
		-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
		-o Acquire::IndexTargets::deb::CNF::DefaultEnabled=false
	)
	[ -z "$architectures" ] || private_apt_options+=(-o APT::Architecture="${architectures%% *}")
	for architecture in $architectures; do
		private_apt_options+=(-o APT::Architectures::="$architecture")
	done
	private_apt apt-get -qq update
}

private_apt() {
	local tool=$1
	shift
	"$tool" "${private_apt_options[@]}" "$@"
}
