#!/usr/bin/env python3
"""Turns schema/data/*.tsv into schema_tables.c: every built-in type and kind as constant tables.

Usage: gen_tables.py OUTPUT.c SCHEMA.tsv... [--gotypes GOTYPES.tsv] [--doc DESCRIPTIONS.tsv]...
                     [--defaults TYPE_DEFAULTS.tsv]

The input has three kinds of rows (see the first line of schema_ga.tsv): `k` a kind, `t` a type, `f`
a field of the type above it. A kind whose group/version is "*" is served in every group and version
that any other row names (meta's options: DeleteOptions is sent as "apps/v1", "v1", ...).

Descriptions (what kubectl explain says) have rows of the same kinds: `t` a type and its text (which
may be missing), `f` a field of it and its text. A type may be a pattern with `*`, for what means
the same in many types; an exact row wins over a pattern, and of two patterns the longer.

The output is plain designated initializers: nothing is computed at start-up, the tables are
read-only after relocation and safe to use from any thread. Errors in the data stop the build.
"""
import fnmatch
import sys

SCALARS = {
    "s": "TH_F_STRING", "b": "TH_F_BOOL", "i32": "TH_F_INT32", "i64": "TH_F_INT64",
    "f64": "TH_F_DOUBLE", "bytes": "TH_F_BYTES", "quantity": "TH_F_QUANTITY",
    "intorstr": "TH_F_INTORSTR", "time": "TH_F_TIME", "microtime": "TH_F_MICROTIME",
    "duration": "TH_F_DURATION", "raw": "TH_F_RAW", "fieldsv1": "TH_F_RAW", "anyjson": "TH_F_RAW",
    "iface": "TH_F_RAW",
}
SCHEMA_TYPES = {
    "schema|[]schema": ("TH_F_SCHEMA_OR_LIST", "TH_SHAPE_ONE"),
    "schema|bool": ("TH_F_SCHEMA_OR_BOOL", "TH_SHAPE_ONE"),
    "{}schema|[]s": ("TH_F_SCHEMA_OR_STRINGS", "TH_SHAPE_MAP"),
}
WRAPPED_LISTS = {"v1.Verbs"}  # in protobuf a message {1: items}
SCHEMA_SUB = "apiextensions.v1.JSONSchemaProps"


def die(message):
    sys.exit("gen_tables.py: " + message)


def quote(text):
    if text is None:
        return "NULL"
    out = []
    for ch in text:
        if ch in '"\\':
            out.append("\\" + ch)
        elif ch == "\n":
            out.append("\\n")
        elif ord(ch) < 32 or ord(ch) > 126:
            die(f"unexpected character in {text!r}")
        else:
            out.append(ch)
    return '"' + "".join(out) + '"'


class Pool:
    """NULL-terminated string arrays, each distinct one written once."""

    def __init__(self, prefix):
        self.prefix, self.ids, self.lines = prefix, {}, []

    def get(self, strings):
        key = tuple(strings)
        if key not in self.ids:
            self.ids[key] = f"{self.prefix}{len(self.ids)}"
            body = ", ".join([quote(s) for s in key] + ["NULL"])
            self.lines.append(f"static const char *const {self.ids[key]}[] = {{{body}}};")
        return self.ids[key]


def read_rows(paths):
    kinds, types = [], {}
    current = None
    for path in paths:
        with open(path, encoding="ascii") as f:
            for number, line in enumerate(f, 1):
                line = line.rstrip("\n")
                if not line or line.startswith("#"):
                    continue
                cols = line.split("\t")
                if cols[0] == "k":
                    kinds.append((cols[1], cols[2], cols[3]))
                elif cols[0] == "t":
                    if cols[1] in types:
                        die(f"{path}:{number}: type {cols[1]} appears twice")
                    current = {"atomic": "atomic" in cols[2:], "fields": []}
                    types[cols[1]] = current
                elif cols[0] == "f":
                    current["fields"].append((cols[1:] + [""] * 9)[:8])
                else:
                    die(f"{path}:{number}: unknown row {cols[0]!r}")
    return kinds, types


def read_extra(path):
    """Rows `type field text...`, `field` empty for the type itself."""
    out = {}
    if path:
        with open(path, encoding="utf-8") as f:
            for line in f:
                if line.strip() and not line.startswith("#"):
                    cols = line.rstrip("\n").split("\t")
                    out[(cols[0], cols[1])] = cols[2:]
    return out


def read_docs(paths):
    """(type or pattern, field or "") -> (text, where it stands)."""
    out = {}
    for path in paths:
        name = None
        with open(path, encoding="ascii") as f:
            for number, line in enumerate(f, 1):
                line, where = line.rstrip("\n"), f"{path}:{number}"
                if not line or line.startswith("#"):
                    continue
                cols = line.split("\t")
                if cols[0] == "t" and len(cols) in (2, 3):
                    name, key = cols[1], (cols[1], "")
                elif cols[0] == "f" and len(cols) == 3 and name:
                    key = (name, cols[1])
                else:
                    die(f"{where}: not a row of descriptions: {line!r}")
                if len(cols) == 2:
                    continue
                if cols[2] != cols[2].strip() or not cols[2]:
                    die(f"{where}: an empty text, or blanks around it")
                if key in out:
                    die(f"{where}: {'.'.join(key)} is described at {out[key][1]} already")
                out[key] = (cols[2], where)
    return out


def resolve_docs(rows, types):
    """(type, field or "") -> text, with patterns applied. Every row must describe something."""
    out, rank = {}, {}
    have = {name: {""} | {f[0] for f in t["fields"]} for name, t in types.items()}
    for key, (text, where) in rows.items():
        pattern, field = key
        is_pattern = "*" in pattern
        found = fnmatch.filter(types, pattern) if is_pattern else [pattern]
        for name in found:
            if name not in types or field not in have[name]:
                if not is_pattern:
                    die(f"{where}: {name}.{field} does not exist")
                continue
            mine = len(pattern) if is_pattern else 1 << 20
            if mine > rank.get((name, field), (-1, None))[0]:
                out[name, field], rank[name, field] = text, (mine, key)
    used = {key for _, key in rank.values()}
    for key, (_, where) in rows.items():
        if key not in used:
            die(f"{where}: {'.'.join(key)} describes nothing that other rows do not")
    return out


def is_list(name, t):
    """A list's description is made from the type of its items."""
    return name.endswith("List") and any(
        f[0] == "items" and f[1].startswith("[]") and f[1][2:] not in SCALARS for f in t["fields"])


def parse_type(text, types):
    """Returns (ftype, shape, sub type name or None)."""
    if text in SCHEMA_TYPES:
        ftype, shape = SCHEMA_TYPES[text]
        return ftype, shape, SCHEMA_SUB
    shape = "TH_SHAPE_ONE"
    if text.startswith("{}[]"):
        shape, text = "TH_SHAPE_MAP_LIST", text[4:]
    elif text.startswith("{}"):
        shape, text = "TH_SHAPE_MAP", text[2:]
    elif text.startswith("[]"):
        shape, text = "TH_SHAPE_LIST", text[2:]
    if text in SCALARS:
        return SCALARS[text], shape, None
    if text not in types:
        die(f"unknown type {text!r}")
    return "TH_F_STRUCT", shape, text


def read_defaults(path, types):
    """Rows `type path value condition` in order; returns type -> list of (path, value, condition)."""
    out = {}
    if path:
        with open(path, encoding="ascii") as f:
            for line in f:
                if line.startswith("#"):
                    continue
                cols = (line.rstrip("\n").split("\t") + ["", ""])[:4]
                if cols[0] not in types:
                    die(f"{path}: no type {cols[0]}")
                out.setdefault(cols[0], []).append(tuple(cols[1:]))
    return out


def find_field(types, type_name, path):
    """The row of the field at a dotted path below a type."""
    for part in path.split("."):
        row = next((f for f in types[type_name]["fields"] if f[0] == part), None)
        if row is None:
            die(f"no field {part} of {path} in {type_name}")
        type_name = row[1]
    return row


def with_defaults(types, defaults):
    """Names of types that have defaults themselves or in a type below."""
    found = set(defaults)
    changed = True
    while changed:
        changed = False
        for name, t in types.items():
            if name in found:
                continue
            for f in t["fields"]:
                if f[1].lstrip("[]{}") in found or f[1] == "{}quantity":
                    found.add(name)
                    changed = True
                    break
    return found


def emit_defaults(types, defaults, names):
    """The arrays of default rows, and one that leads from a type's index to its rows."""
    lines, refs = [], []
    for n, name in enumerate(names):
        rows = defaults.get(name)
        if not rows:
            refs.append("    {NULL, 0},")
            continue
        lines.append(f"static const struct th_default d{n}[] = {{ /* {name} */")
        for path, value, condition in rows:
            if path.startswith("@"):
                lines.append(f"    {{.hook = th_default_{path[1:]}}},")
                continue
            field = find_field(types, name, path)
            init = [f".path = {quote(path)}", f".value = {quote(value)}"]
            if "p" in field[2]:
                init.append(".pointer = true")
            if condition:
                key, _, wanted = condition.partition("=")
                find_field(types, name, key.lstrip("!"))
                init.append(f".cond = {quote(key.lstrip('!'))}")
                if key.startswith("!"):
                    init.append(".cond_unset = true")
                if wanted:
                    init.append(f".cond_value = {quote(wanted)}")
            lines.append("    {" + ", ".join(init) + "},")
        lines.append("};")
        refs.append(f"    {{d{n}, {len(rows)}}},")
    lines.append("static const struct th_default_list default_lists[] = {")
    lines += refs
    lines.append("};")
    lines.append("const struct th_default_list *const th_builtin_defaults = default_lists;")
    return lines


def has_type_meta(fields):
    """TypeMeta is inlined in Go and absent from protobuf; the data lists its own numbers. It shows
    in that another field has number 1 too."""
    if not (len(fields) >= 2 and fields[0][0] == "kind" and fields[1][0] == "apiVersion"
            and fields[0][3] == "1" and fields[1][3] == "2" and fields[0][2] == "o"):
        return False
    others = {f[3] for f in fields[2:] if f[3]}
    return not others or "1" in others


def main(argv):
    gotypes = defaults_path = None
    paths, doc_paths, out_path = [], [], None
    i = 0
    while i < len(argv):
        if argv[i] == "--gotypes":
            gotypes, i = argv[i + 1], i + 2
        elif argv[i] == "--doc":
            doc_paths.append(argv[i + 1])
            i += 2
        elif argv[i] == "--defaults":
            defaults_path, i = argv[i + 1], i + 2
        elif out_path is None:
            out_path, i = argv[i], i + 1
        else:
            paths.append(argv[i])
            i += 1
    kinds, types = read_rows(paths)
    gotypes = read_extra(gotypes)
    for name, _ in gotypes:
        if name not in types:
            die(f"no type {name} for extra data")
    docs = resolve_docs(read_docs(doc_paths), types)
    for name, t in types.items():
        for fname in [""] + [f[0] for f in t["fields"]]:
            if (name, fname) not in docs and (fname or not is_list(name, t)):
                die(f"{name}.{fname} has no description: add a row to data/descriptions")

    defaults = read_defaults(defaults_path, types)
    defaulted = with_defaults(types, defaults)
    names = sorted(types)
    index = {name: n for n, name in enumerate(names)}
    keys_pool, enum_pool = Pool("keys_"), Pool("enum_")
    body, table = [], []
    for name in names:
        fields = types[name]["fields"]
        typemeta = has_type_meta(fields)
        rows, seen = [], set()
        for pos, (fname, ftype, flags, pb, topo, patch, enum, dflt) in enumerate(fields):
            if fname in seen:
                die(f"{name}.{fname} appears twice")
            seen.add(fname)
            th_type, shape, sub = parse_type(ftype, types)
            init = [f".name = {quote(fname)}", f".type = {th_type}"]
            if shape != "TH_SHAPE_ONE":
                init.append(f".shape = {shape}")
            if sub:
                init.append(f".sub = &types[{index[sub]}]")
            if pb and not (typemeta and pos < 2):
                init.append(f".pb = {int(pb)}")
            c_flags = []
            for letter in flags:
                if letter not in "poRz":
                    die(f"{name}.{fname}: unknown flag {letter}")
                c_flags.append({"p": "TH_FF_POINTER", "o": "TH_FF_OMITEMPTY",
                                "R": "TH_FF_REQUIRED", "z": "TH_FF_OMITZERO"}[letter])
            if typemeta and pos < 2:
                c_flags.append("TH_FF_INLINE")
            if enum:
                if enum[0] == "~":
                    c_flags.append("TH_FF_OPEN_ENUM")
                    enum = enum[1:]
                init.append(f".enums = {enum_pool.get(enum.split('|'))}")
            if topo == "" and shape == "TH_SHAPE_LIST":
                topo = "atomic"
            if topo == "" and shape == "TH_SHAPE_ONE" and sub and types[sub]["atomic"]:
                topo = "atomic"
            if topo == "atomic":
                init.append(".topology = TH_TOPO_ATOMIC")
            elif topo == "set":
                init.append(".topology = TH_TOPO_SET")
            elif topo.startswith("map("):
                init.append(".topology = TH_TOPO_MAP")
                init.append(f".keys = {keys_pool.get(topo[4:-1].split('+'))}")
            elif topo not in ("", "granular"):
                die(f"{name}.{fname}: unknown topology {topo}")
            if patch:
                words, _, merge_key = patch.partition(":")
                bits = [{"merge": "TH_PATCH_MERGE", "replace": "TH_PATCH_REPLACE",
                         "retainKeys": "TH_PATCH_RETAIN_KEYS"}[w] for w in words.split(",")]
                init.append(".patch = " + " | ".join(bits))
                if merge_key:
                    init.append(f".merge_key = {quote(merge_key)}")
            if dflt:
                init.append(f".dflt = {quote(dflt)}")
            if (name, fname) in gotypes:
                go_type, embedded, via = (gotypes[(name, fname)] + ["", ""])[:3]
                if go_type in WRAPPED_LISTS:
                    c_flags.append("TH_FF_WRAPPED")
                if go_type:
                    init.append(f".go = {quote(go_type)}")
                if embedded:
                    init.append(f".go_embedded = {quote(embedded)}")
                if via:
                    init.append(".pb_via = {" + ", ".join(via.split(".")) + "}")
            if (name, fname) in docs:
                init.append(f".doc = {quote(docs[(name, fname)])}")
            if c_flags:
                init.append(".flags = " + " | ".join(c_flags))
            rows.append("    {" + ", ".join(init) + "},")
        n = index[name]
        flag_words = (["TH_TF_ATOMIC"] if types[name]["atomic"] else []) + \
            (["TH_TF_DEFAULTS"] if name in defaulted else [])
        tflags = f" .flags = {' | '.join(flag_words)}," if flag_words else ""
        doc = f" .doc = {quote(docs[(name, '')])}," if (name, "") in docs else ""
        if fields:
            body.append(f"static const struct th_field f{n}[] = {{ /* {name} */")
            body += rows + ["};"]
            order = sorted(range(len(fields)), key=lambda k: fields[k][0])
            refs = ", ".join(f"&f{n}[{k}]" for k in order)
            body.append(f"static const struct th_field *const n{n}[] = {{{refs}}};")
            table.append(f"    {{.name = {quote(name)}, .fields = f{n}, .n_fields = {len(fields)},"
                         f"{tflags}{doc} .by_name = n{n}}},")
        else:
            table.append(f"    {{.name = {quote(name)},{tflags}{doc} .n_fields = 0}},")

    gvs = sorted({gv for gv, _, _ in kinds if gv != "*"})
    rows = set()
    for gv, kind, type_name in kinds:
        if type_name not in types:
            die(f"kind {kind}: no type {type_name}")
        for one in gvs if gv == "*" else [gv]:
            group, _, version = one.rpartition("/")
            fields = {f[0]: f[1] for f in types[type_name]["fields"]}
            lists = (kind.endswith("List") and fields.get("metadata") == "meta.ListMeta"
                     and "items" in fields)
            rows.add((group, version, kind, type_name, lists))
    if len({r[:3] for r in rows}) != len(rows):
        die("a kind appears twice")
    kind_lines = [
        f"    {{{quote(g)}, {quote(v)}, {quote(k)}, &types[{index[t]}], {'true' if lst else 'false'}}},"
        for g, v, k, t, lst in sorted(rows)]

    with open(out_path, "w", encoding="ascii") as f:
        f.write("/* Generated by controlplane/schema/gen_tables.py from schema/data; do not edit. */\n"
                '#include "controlplane/schema/schema_priv.h"\n\n'
                f"static const struct th_type types[{len(names)}];\n")
        f.write("\n".join(keys_pool.lines + enum_pool.lines + body) + "\n")
        f.write(f"static const struct th_type types[{len(names)}] = {{\n" + "\n".join(table) + "\n};\n")
        f.write(f"static const struct th_kind kinds[] = {{\n" + "\n".join(kind_lines) + "\n};\n")
        f.write("\n".join(emit_defaults(types, defaults, names)) + "\n")
        f.write("const struct th_type *const th_builtin_types = types;\n"
                f"const size_t th_builtin_types_n = {len(names)};\n"
                "const struct th_kind *const th_builtin_kinds = kinds;\n"
                f"const size_t th_builtin_kinds_n = {len(kind_lines)};\n")


if __name__ == "__main__":
    main(sys.argv[1:])
