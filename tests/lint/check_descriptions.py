#!/usr/bin/env python3
"""What kubectl explain says: check_descriptions.py REPOSITORY.

Every type and every field has a text (a list is described by what it lists), a text is one or a few
whole sentences, and the generator refuses rows that name nothing, say nothing or come twice."""
import glob
import os
import sys
import tempfile

LONGEST = 320
TYPES = {"a.Pod": {"fields": [["name"], ["spec"]]}, "a.Node": {"fields": [["name"]]}}
REFUSED = {
    "a type that is not there": "t\ta.Pot\tA pot.",
    "a field that is not there": "t\ta.Pod\tA pod.\nf\tnames\tIts names.",
    "a pattern that no type has": "t\tb.*\nf\tname\tIts name.",
    "a pattern whose types all have a text": "t\ta.*\nf\tname\tA name.\nt\ta.Pod\nf\tname\tIts name.\n"
                                             "t\ta.Node\nf\tname\tIts name.",
    "two texts for a field": "t\ta.Pod\nf\tname\tIts name.\nf\tname\tThe name.",
    "two texts for a type": "t\ta.Pod\tA pod.\nt\ta.Pod\tThe pod.",
    "an empty text": "t\ta.Pod\nf\tname\t",
    "a blank text": "t\ta.Pod\nf\tname\t ",
    "a field of no type": "f\tname\tIts name.",
    "a row of another kind": "x\ta.Pod\tA pod.",
}


def refused(gen, text):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        f.write(text + "\n")
        f.flush()
        try:
            gen.resolve_docs(gen.read_docs([f.name]), TYPES)
        except SystemExit:
            return True
    return False


def main():
    room = os.path.join(sys.argv[1], "controlplane", "schema")
    sys.path.insert(0, room)
    sys.dont_write_bytecode = True
    import gen_tables as gen

    bad = ["the generator accepts " + what for what, text in REFUSED.items() if not refused(gen, text)]
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as f:
        f.write("t\ta.*\tA thing.\nf\tname\tA name.\nt\ta.P*\nf\tname\tA name with P.\nt\ta.Pod\tA pod.\n")
        f.flush()
        docs = gen.resolve_docs(gen.read_docs([f.name]), TYPES)
    if docs != {("a.Pod", ""): "A pod.", ("a.Node", ""): "A thing.",
                ("a.Pod", "name"): "A name with P.", ("a.Node", "name"): "A name."}:
        bad.append(f"patterns give {docs}")

    data = os.path.join(room, "data")
    _, types = gen.read_rows([os.path.join(data, n) for n in ("schema_ga.tsv", "schema_meta.tsv")])
    rows = gen.read_docs(sorted(glob.glob(os.path.join(data, "descriptions", "*.tsv"))))
    docs = gen.resolve_docs(rows, types)
    for name, t in sorted(types.items()):
        if (name, "") not in docs and not gen.is_list(name, t):
            bad.append(f"{name} has no description")
        bad += [f"{name}.{f[0]} has no description" for f in t["fields"] if (name, f[0]) not in docs]
    for text, where in rows.values():
        if text[-1] not in ".?!)" or "  " in text or len(text) > LONGEST:
            bad.append(f"{where}: not whole sentences of at most {LONGEST} characters: {text}")
    for line in bad:
        print(line)
    print(f"{len(docs)} descriptions from {len(rows)} rows")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
