"""Says of changed measuring code (`code.MEASURING`) whether it measures as before: rewrites measures_alike.yml.

python scripts/measuring_code.py --alike "why"     it does: runs begun with the former code can be resumed
python scripts/measuring_code.py --unlike "why"    it does not: no run begun with other code can be resumed
python scripts/measuring_code.py --replace         it does, and the former code was in no commit that others have
"""

from __future__ import annotations

import argparse
import subprocess

import yaml

from distilbench import paths
from distilbench.machine import code, conditions

HEAD = """\
# Which versions of the measuring code (`MEASURING` in code.py) measure alike. A run begun with one of `alike` is
# resumed by the code whose hash is `measuring_sha256`, and its env.json records that. Declare alike only what you
# compared definition by definition: what is timed, how often, and what surrounds it. Written by
# scripts/measuring_code.py.
"""


def commit_of(sha256: str) -> str:
    """The commit that made this hash the file's key; none: it is not committed yet."""
    name = str(conditions.ALIKE.relative_to(paths.repo_root()))
    command = ["git", "log", "-1", "--format=%h", "-S", sha256, "--", name]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, cwd=paths.repo_root())
    return done.stdout.strip() or "none"


def decided(known: dict, present: str, alike: str | None, unlike: str | None) -> dict:
    """What the file must say now."""
    former = {"measuring_sha256": known["measuring_sha256"], "commit": commit_of(known["measuring_sha256"])}
    new = {"measuring_sha256": present, "alike": known["alike"], "not_alike": known["not_alike"]}
    if alike:
        new["alike"] = [former | {"why": alike}, *known["alike"]]
    if unlike:  # what measured as the former code did does not measure as this one either
        ended = [one | {"why": unlike} for one in (former, *known["alike"])]
        new |= {"alike": [], "not_alike": [*ended, *known["not_alike"]]}
    return new


def main() -> None:
    """Decides, or says what there is to decide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument("--alike", metavar="WHY")
    given.add_argument("--unlike", metavar="WHY")
    given.add_argument("--replace", action="store_true")
    chosen = parser.parse_args()
    known, present = yaml.safe_load(conditions.ALIKE.read_text(encoding="utf-8")), code.measuring_sha256()
    if known["measuring_sha256"] == present:
        parser.exit(0, "the measuring code has not changed since the file was written\n")
    new = decided(known, present, chosen.alike, chosen.unlike)
    text = yaml.safe_dump(new, sort_keys=False, allow_unicode=True, width=116)
    paths.write_atomic(conditions.ALIKE, HEAD + text)
    print(f"{conditions.ALIKE.name} is about {present[:8]} now, and {len(new['alike'])} others measure alike")


if __name__ == "__main__":
    main()
