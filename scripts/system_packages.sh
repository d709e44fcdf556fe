#!/usr/bin/env bash
# What the tests need of a Debian system beyond Python: a browser, and fonts for it. Installs what is missing.
set -euo pipefail
command -v chromium >/dev/null && exit 0
if [ "$(id -u)" -ne 0 ]; then
  echo "chromium is missing; as root: apt-get install --no-install-recommends chromium fonts-dejavu-core" >&2
  exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
