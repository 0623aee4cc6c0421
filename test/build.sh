#!/usr/bin/env bash
# Builds with go build and says how far it is: from a cold cache it compiles some
# six hundred packages, and is silent for minutes otherwise. All arguments are go build's.
set -euo pipefail
"${GO:-go}" build -v "$@" 2>&1 | awk '
	/^[A-Za-z0-9_.\/-]+$/ { if (++n % 25 == 0) { printf "   %d packages compiled\n", n; fflush() }; next }
	{ print; fflush() }
	END { if (n > 0) printf "   %d packages compiled\n", n }' >&2
