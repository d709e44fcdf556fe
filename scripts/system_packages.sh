#!/usr/bin/env bash
# What the tests need of a Debian system beyond Python: a browser with fonts, LibreOffice to open the slides, and a SLURM
# cluster. Installs what is missing; as another user than root it says what that is. `scripts/system_packages.sh slurm`:
# the cluster's only.
set -euo pipefail
packages=()
want() { local program=$1; shift; PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || packages+=("$@"); }
if [ "${1:-all}" != slurm ]; then
  command -v google-chrome >/dev/null || want chromium chromium fonts-dejavu-core
  want soffice libreoffice-impress
  want pdftoppm poppler-utils
fi
want slurmctld munge slurm-client slurmctld slurmd
want slurmdbd slurmdbd
want mariadbd mariadb-server-core mariadb-client-core
want ip iproute2
want rsync rsync
[ ${#packages[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  echo "missing; on Debian, as root: apt-get install --no-install-recommends ${packages[*]}" >&2
  exit 1
fi
# Their daemons are started by the tests, with a configuration of their own, and not by the packages.
if [ ! -e /usr/sbin/policy-rc.d ]; then
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod +x /usr/sbin/policy-rc.d
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq -o DPkg::Lock::Timeout=600
apt-get install -y -qq -o DPkg::Lock::Timeout=600 --no-install-recommends "${packages[@]}" >/dev/null
