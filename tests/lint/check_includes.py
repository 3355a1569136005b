#!/usr/bin/env python3
"""Who may include whom: proves that dependencies between rooms point one way only.

A room is a folder with its own library; everything below it belongs to it unless a deeper folder is
a room itself. Each #include "..." names its header from the root of the tree, so the room it comes
from can be read off the line. Three rules are checked for every .c, .h and .def:

  1. a room includes itself and what its row of MAY_USE lists: whole rooms, or single headers;
  2. a header called *_priv.h is for its own room (and for tests);
  3. a system header of FENCED appears only in the rooms that wrap that library.

Tests may include anything of ours. Exceptions to the rules are rows of EXCEPTIONS, each with its
reason; one that is not needed any more is an error, so the list cannot rot.
docs/architecture.md states the same table in words.

Usage: check_includes.py [ROOT]      exit status 1 and one line per fault
       check_includes.py --self-test proves on a made-up tree that each rule catches its fault
"""

import re
import sys
import tempfile
from pathlib import Path

MAY_USE = {
    "base": [],
    # the control plane, in the order of its layers
    "controlplane/schema": ["base"],
    "controlplane/store": ["base"],
    "controlplane/client": ["base"],
    "controlplane/resources": ["base", "controlplane/schema", "controlplane/store",
                               "controlplane/client"],
    "controlplane/api": ["base", "controlplane/schema", "controlplane/store",
                         "controlplane/client", "controlplane/resources"],
    # of the resources room, only how tokens are signed
    "controlplane/controllers": ["base", "controlplane/schema", "controlplane/client",
                                 "controlplane/resources/token.h"],
    "controlplane/scheduler": ["base", "controlplane/schema", "controlplane/client"],
    # puts the parts together into one process; nobody includes it
    "controlplane/main": ["base", "controlplane/controlplane.h", "controlplane/api",
                          "controlplane/controllers", "controlplane/scheduler",
                          "controlplane/store", "controlplane/client",
                          "controlplane/resources/ipalloc.h"],
    # the control plane's only header for the outside
    "controlplane": ["base"],
    "images": ["base"],
    "vm/launcher": ["base"],
    # PID 1 starts the other two programs of `thimbled` and speaks to the launcher
    "vm/guest": ["base", "controlplane/controlplane.h", "vm/node/node.h",
                 "vm/launcher/protocol.h"],
    # of the schema room, only what computes on plain values
    "vm/node": ["base", "images", "controlplane/client", "controlplane/schema/names.h",
                "controlplane/schema/podresources.h", "controlplane/schema/quantity.h",
                "controlplane/schema/selector.h", "controlplane/schema/storage.h"],
    "vm/standalone": ["base", "vm/launcher"],
    "cli": ["base", "images", "vm/launcher", "controlplane/client"],
}

FENCED = {
    r"json-c/": ["base/json"],
    r"yaml\.h": ["base/json"],
    r"microhttpd\.h": ["controlplane/api", "vm/node"],
    r"libvirt/": ["vm/launcher"],
    r"sqlite3\.h": ["controlplane/store"],
    r"nftables/": ["vm/node"],
}

# (file, what it includes): reason
EXCEPTIONS = {
    ("controlplane/api/local.c", "controlplane/client/client_priv.h"):
        "the in-process transport is the client's second implementation and lives where the "
        "pipeline is",
}

SUFFIXES = {".c", ".h", ".def"}
TREES = ["base", "controlplane", "images", "vm", "cli", "tests"]
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def room_of(path):
    """The deepest room that holds path; None outside all rooms."""
    parts = path.split("/")[:-1]
    while parts:
        if "/".join(parts) in MAY_USE:
            return "/".join(parts)
        parts.pop()
    return None


def within(path, folder):
    return path.startswith(folder + "/")


def includes(text):
    """(line, quoted, name) for each include that is not inside a comment."""
    blank = COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
    for m in INCLUDE.finditer(blank):
        line = blank.count("\n", 0, m.start()) + 1
        yield line, m.group(1) is not None, m.group(1) or m.group(2)


def judge_quoted(root, path, name):
    """What is wrong with `#include "name"` in path, or None."""
    is_test = within(path, "tests")
    if is_test and (root / path).parent.joinpath(name).is_file():
        return None
    if not (root / name).is_file():
        return "no such header below the root of the tree"
    if is_test:
        return None
    mine, theirs = room_of(path), room_of(name)
    if mine is None:
        return "this file belongs to no room of MAY_USE"
    if theirs is None:
        return "that header belongs to no room of MAY_USE"
    if mine == theirs:
        return None
    if name.endswith("_priv.h"):
        return f"a private header of {theirs}"
    allowed = MAY_USE[mine]
    if name in allowed or theirs in allowed:
        return None
    return f"{mine} may not use {theirs}"


def judge_system(path, name):
    if within(path, "tests"):
        return None
    for pattern, homes in FENCED.items():
        if re.match(pattern, name) and not any(within(path, home) for home in homes):
            return "only " + " and ".join(homes) + " may include this library"
    return None


def check(root, exceptions):
    faults = []
    used = set()
    for tree in TREES:
        for file in sorted((root / tree).rglob("*")):
            if file.suffix not in SUFFIXES or not file.is_file():
                continue
            path = file.relative_to(root).as_posix()
            for line, quoted, name in includes(file.read_text(encoding="utf-8")):
                why = judge_quoted(root, path, name) if quoted else judge_system(path, name)
                if why and (path, name) in exceptions:
                    used.add((path, name))
                elif why:
                    faults.append(f"{path}:{line}: {name}: {why}")
    for path, name in sorted(set(exceptions) - used):
        faults.append(f"{path}: the exception for {name} is not needed any more")
    return faults


def self_test():
    """Each case is one file of a tree that has the headers below; the fault must contain a text."""
    headers = ["base/buf.h", "base/json/json_priv.h", "controlplane/schema/quantity.h",
               "controlplane/schema/schema.h", "controlplane/store/store.h",
               "controlplane/client/client.h", "controlplane/client/client_priv.h",
               "vm/node/node.h", "vm/node/agent.h", "vm/launcher/launcher.h", "cli/cmd.h"]
    cases = [
        ("cli/a.c", '#include "base/buf.h"\n#include "vm/launcher/launcher.h"\n', None),
        ("base/a.c", '#include "cli/cmd.h"', "base may not use cli"),
        ("controlplane/store/a.c", '#include "controlplane/schema/schema.h"', "may not use"),
        ("controlplane/scheduler/plugins/a.c", '#include "controlplane/store/store.h"',
         "controlplane/scheduler may not use controlplane/store"),
        ("vm/node/net/a.c", '#include "controlplane/schema/quantity.h"', None),
        ("vm/node/net/a.c", '#include "controlplane/schema/schema.h"', "may not use"),
        ("vm/guest/a.c", '#include "vm/node/node.h"', None),
        ("vm/guest/a.c", '  #  include "vm/node/agent.h"', "vm/guest may not use vm/node"),
        ("vm/guest/a.c", '/* x\n#include "vm/node/agent.h"\n*/', None),
        ("base/a.c", '#include "base/json/json_priv.h"', None),
        ("cli/a.c", '#include "controlplane/client/client_priv.h"', "private header"),
        ("tests/unit/a.c", '#include "controlplane/client/client_priv.h"', None),
        ("cli/a.c", '#include "base/none.h"', "no such header"),
        ("cli/a.c", '#include "cmd.h"', "no such header"),
        ("vm/elsewhere/a.c", '#include "base/buf.h"', "belongs to no room"),
        ("cli/a.c", "\n\n#include <json-c/json.h>", "cli/a.c:3: json-c/json.h: only base/json"),
        ("base/json/a.c", "#include <json-c/json.h>", None),
        ("base/a.c", "#include <json-c/json.h>", "only base/json"),
        ("cli/a.c", "#include <libvirt/libvirt.h>", "only vm/launcher"),
        ("images/a.c", "#include <microhttpd.h>", "only controlplane/api and vm/node"),
        ("cli/a.c", "#include <stdio.h>", None),
    ]
    failed = 0
    for path, text, expected in cases:
        with tempfile.TemporaryDirectory() as tmp:
            root = Path(tmp)
            for name in headers + [path]:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text if name == path else "", encoding="utf-8")
            faults = check(root, {})
            ok = not faults if expected is None else len(faults) == 1 and expected in faults[0]
            if not ok:
                failed += 1
                print(f"self-test: {path}: {text!r}: expected {expected!r}, got {faults}")
    with tempfile.TemporaryDirectory() as tmp:
        if len(check(Path(tmp), {("cli/a.c", "base/buf.h"): "stale"})) != 1:
            failed += 1
            print("self-test: a stale exception was not reported")
    return failed


def main():
    if sys.argv[1:] == ["--self-test"]:
        return 1 if self_test() else 0
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2]
    faults = check(root, EXCEPTIONS)
    for fault in faults:
        print(fault)
    if faults:
        print(f"{len(faults)} faults; the table is at the top of {Path(__file__).name}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
