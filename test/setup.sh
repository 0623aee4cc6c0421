#!/usr/bin/env bash
# Makes sure that the tests find a Postgres and a Redis to start privately and the proxies
# that agents stand behind (nginx, haproxy, tinyproxy), an sshd, ip (for a container's network) and tmux, and
# with the argument check what make check needs besides: a C compiler, protoc and a browser. It
# installs Debian's packages when it may, and otherwise says what is missing.
# It starts nothing: the tests start and end their own servers.
set -euo pipefail

postgres_present() {
	command -v postgres >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null
}

# protoc and the messages that every protoc knows, which Debian has in a package of their own.
protoc_present() {
	command -v protoc >/dev/null || return 1
	local dir
	dir=$(mktemp -d)
	printf 'syntax = "proto3";\nimport "google/protobuf/timestamp.proto";\nmessage M { google.protobuf.Timestamp t = 1; }\n' >"$dir/m.proto"
	protoc -I"$dir" --descriptor_set_out=/dev/null m.proto 2>/dev/null
	local status=$?
	rm -r "$dir"
	return $status
}

missing=()
if [[ -z ${TUNNOX_TEST_POSTGRES:-} ]] && ! postgres_present; then missing+=(postgresql); fi
if [[ -z ${TUNNOX_TEST_REDIS:-} ]] && ! command -v redis-server >/dev/null; then missing+=(redis-server); fi
for proxy in nginx haproxy tinyproxy; do
	if ! PATH=$PATH:/usr/sbin:/usr/local/sbin command -v $proxy >/dev/null; then missing+=("${proxy/#nginx/nginx-light}"); fi
done
if ! PATH=$PATH:/usr/sbin command -v sshd >/dev/null; then missing+=(openssh-server openssh-client); fi # docs/guide has SSH
if ! command -v tmux >/dev/null; then missing+=(tmux); fi # the terminal of tests
if ! PATH=$PATH:/usr/sbin:/sbin command -v ip >/dev/null; then missing+=(iproute2); fi
if [[ ${1:-} == check ]]; then
	if ! command -v "$("${GO:-go}" env CC)" >/dev/null; then missing+=(gcc libc6-dev); fi
	if ! protoc_present; then missing+=(protobuf-compiler libprotobuf-dev); fi
	if ! command -v npx >/dev/null; then missing+=(npm); fi
	if ! command -v chromium >/dev/null; then missing+=(chromium); fi # the inspector's page
fi
if [[ ${#missing[@]} -eq 0 ]]; then exit 0; fi

become=()
if [[ $(id -u) -ne 0 ]]; then
	if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then become=(sudo -n); else become=(false); fi
fi

if command -v apt-get >/dev/null && [[ ${become[0]:-} != false ]]; then
	echo "setup: installing ${missing[*]}" >&2
	# Debian's packages start a server and make a cluster at installation; the
	# tests use neither, so both are kept from happening.
	"${become[@]}" sh -c '
		export DEBIAN_FRONTEND=noninteractive
		policy=/usr/sbin/policy-rc.d
		if [ ! -e $policy ]; then
			printf "#!/bin/sh\nexit 101\n" >$policy && chmod +x $policy
			trap "rm -f $policy" EXIT
		fi
		apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
	' sh "${missing[@]}" && exit 0
	echo "setup: apt-get could not install ${missing[*]}" >&2
fi

cat >&2 <<TEXT
setup: missing for the tests: ${missing[*]}
  Debian, Ubuntu:  sudo apt-get install ${missing[*]}
  elsewhere:       put postgres (15 or later), redis-server (7 or later), nginx, haproxy, tinyproxy, sshd and tmux on PATH,
                   and for make check a C compiler, protoc, npx and chromium
  or use your own: TUNNOX_TEST_POSTGRES=postgres://... TUNNOX_TEST_REDIS=redis://... make test
TEXT
exit 1
