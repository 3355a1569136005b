#!/usr/bin/env python3
"""docs/api-coverage.md from the tables that the API is made of.

Usage: gen_coverage.py > docs/api-coverage.md

tests/api/test_resources.py checks that the page is what this prints, and that the server's discovery
says the same.
"""
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
SCHEMA = os.path.join(HERE, "..", "schema")
ALL = "create,delete,deletecollection,get,list,patch,update,watch"

HEAD = """# API coverage

The resources of Kubernetes 1.36 that are GA, and what of each there is. Made by
`controlplane/resources/gen_coverage.py` from the tables that the server is made of; a test keeps the
two together.

- **Verbs**: `all` is create, delete, deletecollection, get, list, patch, update and watch.
- **Subresources** are all that upstream has.
- **Selectors**: fields besides metadata.name and metadata.namespace that field selectors know.
- **Rules**: how many lines of the validation tables hold for the kind and the types in it (`+` with
  functions of its own beside them), besides types, defaults, metadata and what never changes.

| Group | Resource | Verbs | Subresources | Selectors | Rules |
|---|---|---|---|---|---|
"""


def table(path):
    with open(path, encoding="utf-8") as f:
        return [line.rstrip("\n").split("\t") for line in f if line.strip() and not line.startswith("#")]


def closure(types, name, seen):
    if name in types and name not in seen:
        seen.add(name)
        for field in types[name]["fields"]:
            closure(types, field[1].lstrip("[]{}"), seen)
    return seen


def main():
    sys.path.insert(0, SCHEMA)
    import gen_tables
    data = os.path.join(SCHEMA, "data")
    kinds, types = gen_tables.read_rows([os.path.join(data, n) for n in ("schema_ga.tsv", "schema_meta.tsv")])
    type_of = {(gv, kind): t for gv, kind, t in kinds}
    rules = {}
    for names, *_ in table(os.path.join(HERE, "rules.tsv")):
        for name in names.split(","):
            rules[name] = rules.get(name, 0) + 1
    rows = {r[0]: (r + [""] * 5)[:5] for r in table(os.path.join(HERE, "rows.tsv"))}
    selectors = {r[0]: r[1] for r in table(os.path.join(data, "field_selectors.tsv"))}
    print(HEAD, end="")
    for r in table(os.path.join(data, "resources.tsv")):
        group, version, plural, _, kind, _, _, _, verbs, subs = (r + [""] * 10)[:10]
        short = group.split(".")[0] or "core"
        row = rows.get(f"{short}_{plural}") or rows.get(f"{short}_{version}_{plural}")
        name = f"{plural} ({version})" if version != "v1" else plural
        if not row:
            print(f"| {group or 'core'} | {name} | not there | | | |")
            continue
        gv = f"{group}/{version}" if group else version
        seen = closure(types, type_of.get((gv, kind), ""), set())
        n = sum(rules.get(t, 0) for t in seen)
        own = "+" if ".s.validate" in row[2] else ""
        fields = [f for f in selectors.get(f"{gv}/{kind}", "").split(",") if f]
        shown = ", ".join(s.split("(")[0] for s in subs.split(" ") if s)
        print(f"| {group or 'core'} | {name} | {'all' if verbs == ALL else verbs.replace(',', ', ')} | {shown} | "
              f"{', '.join(fields)} | {n or ''}{own} |")


main()
