#!/usr/bin/env bash
# Builds the programs for the systems that they are for, as releases are built: static
# and stripped. It fails when one does not compile, when a Linux one needs a loader or has
# symbols, or when the agent has grown past its limit. It prints the sizes.
#
# CROSS names some of the targets, for example CROSS="linux/arm/7 windows/amd64". With the
# argument quick it is the agent alone, for one of each family of systems.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
out=bin/cross
mkdir -p "$out"

# OS/ARCH[/VARIANT]. The agent runs on all of them, routers among them. The server keeps
# its log in SQLite and locks its files as Unix does.
agents="linux/amd64 linux/arm64 linux/arm/7 linux/386 linux/mips/softfloat darwin/arm64 windows/amd64 freebsd/amd64"
servers="linux/amd64 linux/arm64"

quick=${1:-}
if [[ $quick == quick ]]; then
	agents="linux/arm64 darwin/arm64 windows/amd64"
	servers=""
fi

# The agent had 17.5 MB until it linked no templates. What it has now is the runtime of Go,
# TLS, HTTP, QUIC and protobuf: 6.5 MB of code and 5 MB of tables about it. A machine word
# of MIPS takes more instructions, and Windows wants tables for unwinding.
limit() { case $1 in linux/mips* | windows/*) echo 17 ;; *) echo 16 ;; esac; }

fail=0
build() { # PROGRAM TARGET
	local program=$1 target=$2 os arch variant file size
	IFS=/ read -r os arch variant <<<"$target"
	file=$out/$program-${target//\//-}
	local -a env=(CGO_ENABLED=0 GOOS="$os" GOARCH="$arch")
	case $arch in arm) env+=(GOARM="$variant") ;; mips) env+=(GOMIPS="$variant") ;; esac
	if ! env "${env[@]}" "$go" build -ldflags '-s -w' -o "$file" "./cmd/$program"; then
		echo "cross: $program does not compile for $target" >&2
		fail=1
		return
	fi
	size=$(stat -c %s "$file")
	printf '%-8s %-22s %4d.%d MB\n' "$program" "$target" $((size / 1000000)) $((size % 1000000 / 100000))
	if [[ $program == tunnox && $size -gt $(($(limit "$target") * 1000000)) ]]; then
		echo "cross: the agent for $target has more than $(limit "$target") MB: go tool nm -size -sort size tells what is large" >&2
		fail=1
	fi
	if [[ $os == linux ]] && { readelf -lW "$file" | grep -q INTERP || readelf -SW "$file" | grep -q '\.symtab'; }; then
		echo "cross: $program for $target is not static and stripped" >&2
		fail=1
	fi
}

for target in ${CROSS:-$agents}; do build tunnox "$target"; done
for target in $servers; do
	if [[ -z ${CROSS:-} || " $CROSS " == *" $target "* ]]; then build tunnoxd "$target"; fi
done
# Vet knows what a compiler does not, for the code of these systems alone.
for os in darwin windows; do
	if [[ -z ${CROSS:-} ]]; then GOOS=$os "$go" vet ./cmd/tunnox ./daemon ./transport ./reach || fail=1; fi
done
exit $fail
