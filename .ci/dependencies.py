#!/usr/bin/env python3
"""Checks what Cargo.lock brings in: licences, duplicate versions, known advisories.

Reads `cargo metadata --locked` for all platforms and features, the policy in `dependencies.toml` and the dated
excerpt in `advisories.toml`, both beside this file. Fails on a licence that is not allowed, on a
duplicate version or a crate that the policy or the excerpt does not know, and on an advisory that
concerns a version in use and is not accepted with a reason. `--self-test` plants one of each.
Standard library only.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Table = dict[str, Any]


# Licences.

def licence_allowed(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met by allowed licences alone."""
    tokens: list[str] = re.findall(r"\(|\)|/|[^\s()/]+", expression)
    position = 0

    def peek() -> str | None:
        return tokens[position] if position < len(tokens) else None

    def take() -> str:
        nonlocal position
        if position == len(tokens):
            raise ValueError(f"the licence {expression!r} ends too early")
        position += 1
        return tokens[position - 1]

    def alternatives() -> bool:
        met = conjunction()
        # Some write it small, as SPDX 3 lets them.
        while peek() in ("OR", "or", "/"):
            take()
            met = conjunction() or met
        return met

    def conjunction() -> bool:
        met = single()
        while peek() == "AND":
            take()
            met = single() and met
        return met

    def single() -> bool:
        name = take()
        if name == "(":
            met = alternatives()
            if take() != ")":
                raise ValueError(f"the licence {expression!r} lacks a closing parenthesis")
            return met
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in allowed

    met = alternatives()
    if peek() is not None:
        raise ValueError(f"the licence {expression!r} has a stray {peek()!r}")
    return met


def licence_problems(packages: list[Table], policy: Table) -> list[str]:
    """One line for each package whose licence is missing, garbled or not allowed."""
    allowed = set(policy["licences"])
    problems = []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        expression = package.get("license")
        if not expression:
            problems.append(f"licence: {name} states none")
            continue
        try:
            if not licence_allowed(expression, allowed):
                problems.append(f"licence: {name} is under {expression!r}, which is not allowed")
        except ValueError as error:
            problems.append(f"licence: {name}: {error}")
    return problems


# Duplicates.

def matches_line(version: str, line: str) -> bool:
    """Whether a version such as 0.17.1 belongs to a release line such as 0.17."""
    return version == line or version.startswith(line + ".")


def duplicate_problems(packages: list[Table], policy: Table) -> list[str]:
    """One line for each crate with versions beside each other that the policy does not list."""
    versions: dict[str, list[str]] = {}
    for package in packages:
        versions.setdefault(package["name"], []).append(package["version"])
    known = {entry["crate"]: entry for entry in policy["duplicate"]}
    problems = []
    for name, found in sorted(versions.items()):
        if len(found) == 1:
            continue
        lines = list(known[name]["versions"]) if name in known else []
        for version in sorted(found):
            line = next((line for line in lines if matches_line(version, line)), None)
            if line is None:
                problems.append(f"duplicate: {name} {version} stands beside {sorted(found)}")
            else:
                lines.remove(line)
    return problems


# Advisories.

def parse_version(
    text: str,
) -> tuple[tuple[int, int, int], tuple[tuple[int, int, str], ...] | None]:
    """A version as numbers and pre-release parts; None where it is a release."""
    text = text.split("+", 1)[0]
    core, _, pre = text.partition("-")
    numbers = [int(part) for part in core.split(".")] + [0, 0]
    if not pre:
        return (numbers[0], numbers[1], numbers[2]), None
    parts = tuple(
        (0, int(part), "") if part.isdigit() else (1, 0, part) for part in pre.split(".")
    )
    return (numbers[0], numbers[1], numbers[2]), parts


def version_key(text: str) -> tuple[Any, ...]:
    """A key in the order of semantic versions: a pre-release comes before its release."""
    numbers, pre = parse_version(text)
    return (numbers, 1, ()) if pre is None else (numbers, 0, pre)


def caret_end(text: str) -> str:
    """The first version that `^text` leaves out."""
    (major, minor, patch), _ = parse_version(text)
    if major:
        return f"{major + 1}.0.0-0"
    return f"0.{minor + 1}.0-0" if minor else f"0.0.{patch + 1}-0"


def satisfies(version: str, requirement: str) -> bool:
    """Whether a version meets all comparators of a requirement such as `>= 1.8.4, < 1.9.0`."""
    key = version_key(version)
    for comparator in requirement.split(","):
        match = re.fullmatch(r"\s*(>=|<=|>|<|=|\^|)\s*([0-9][^\s]*)\s*", comparator)
        if match is None:
            raise ValueError(f"cannot read the version requirement {requirement!r}")
        operator, bound = match[1] or "^", version_key(match[2])
        met = {
            ">=": key >= bound,
            "<=": key <= bound,
            ">": key > bound,
            "<": key < bound,
            "=": key == bound,
            "^": bound <= key < version_key(caret_end(match[2])),
        }[operator]
        if not met:
            return False
    return True


def advisory_problems(packages: list[Table], excerpt: Table) -> list[str]:
    """One line for each crate never looked up, and each advisory that holds and is not accepted."""
    examined = set(excerpt["examined"])
    problems = [
        f"advisory: {name} was never looked up; add it to `examined` with its advisories"
        for name in sorted({package["name"] for package in packages} - examined)
    ]
    for advisory in excerpt["advisory"]:
        safe = advisory["patched"] + advisory["unaffected"]
        for package in packages:
            if package["name"] != advisory["crate"]:
                continue
            if any(satisfies(package["version"], requirement) for requirement in safe):
                continue
            if not advisory.get("accepted"):
                problems.append(
                    f"advisory: {advisory['id']} ({advisory['kind']}) concerns "
                    f"{package['name']} {package['version']}"
                )
    return problems


# The whole.

def metadata_packages() -> list[Table]:
    """All that Cargo.lock brings in, on any platform with any feature, this package left out."""
    command = ["cargo", "metadata", "--locked", "--all-features", "--format-version", "1"]
    output = subprocess.run(command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE).stdout
    return [package for package in json.loads(output)["packages"] if package["source"]]


def check(packages: list[Table], policy: Table, excerpt: Table) -> list[str]:
    """All problems, one a line."""
    return [
        *licence_problems(packages, policy),
        *duplicate_problems(packages, policy),
        *advisory_problems(packages, excerpt),
    ]


def self_test(packages: list[Table], policy: Table, excerpt: Table) -> list[str]:
    """Plants one fault of each kind; returns what was not caught."""
    faults: dict[str, tuple[list[Table], Table]] = {}

    def planted(**changes: str) -> list[Table]:
        return [*packages, {"source": "registry", "license": "MIT", **changes}]

    name, version = packages[0]["name"], packages[0]["version"]
    faults["licence: "] = planted(name=name, version=version, license="MIT AND AGPL-3.0"), excerpt
    faults["duplicate: "] = planted(name=name, version="99.0.0"), excerpt
    faults["was never looked up"] = planted(name="never-seen", version="1.0.0"), excerpt
    bare = copy.deepcopy(excerpt)
    accepted = next(advisory for advisory in bare["advisory"] if advisory.get("accepted"))
    del accepted["accepted"]
    faults[f"advisory: {accepted['id']}"] = packages, bare
    affected = copy.deepcopy(excerpt)
    affected["advisory"].append({
        "id": "PLANTED", "crate": name, "kind": "vulnerability",
        "patched": [f"> {version}"], "unaffected": [f"< {version}"],
    })
    faults["advisory: PLANTED"] = packages, affected
    return [
        f"self-test: a planted fault was not caught: {sign}"
        for sign, (changed, advisories) in faults.items()
        if not any(sign in problem for problem in check(changed, policy, advisories))
    ]


def main() -> int:
    """Prints the problems and answers with the exit code."""
    policy = tomllib.loads((HERE / "dependencies.toml").read_text())
    excerpt = tomllib.loads((HERE / "advisories.toml").read_text())
    packages = metadata_packages()
    problems = check(packages, policy, excerpt)
    if "--self-test" in sys.argv[1:]:
        problems += self_test(packages, policy, excerpt)
    for problem in problems:
        print(problem)
    accepted = sum(bool(advisory.get("accepted")) for advisory in excerpt["advisory"])
    print(
        f"{len(packages)} crates; advisories of {excerpt['dated']}: "
        f"{len(excerpt['advisory'])} concern their names, {accepted} accepted; "
        f"{len(problems)} problems"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
