#!/usr/bin/env python3
"""The rows of all resources, as C: resource_rows.c.

Usage: gen_rows.py OUTPUT.c SCHEMA_DATA_FOLDER ROWS.tsv COLUMN_DOCS.tsv

What a resource is called and may do comes from schema/data (resources.tsv, printer_columns.tsv,
field_selectors.tsv). rows.tsv adds what only this program knows: the cells of its Table, its hooks,
what never changes, the hooks of its subresources. A resource is served when it has a line there.

Cells, in the order of the columns, by ;
  name  age            the shared ones
  s:PATH|DEFAULT       string                i:PATH           number (0 when missing)
  b:PATH|DEFAULT       boolean               bs:PATH          "True", "False" or "<unset>"
  v:PATH|DEFAULT       the value as it is    q:PATH|DEFAULT   int or string, as text
  n:PATH+PATH          how many in all       t:PATH|DEFAULT   time since
  j:PATH               strings, joined       labels:PATH      a=b,c=d
  sel:PATH             a LabelSelector       containers:PATH  two cells: names and images
  f:NAME               th_row_NAME(): one cell or more
"""
import json
import sys

VERBS = {"get": "TH_VERB_GET", "list": "TH_VERB_LIST", "watch": "TH_VERB_WATCH",
         "create": "TH_VERB_CREATE", "update": "TH_VERB_UPDATE", "patch": "TH_VERB_PATCH",
         "delete": "TH_VERB_DELETE", "deletecollection": "TH_VERB_DELETECOLLECTION"}
CELLS = {"s": "STR", "i": "INT", "b": "BOOL", "bs": "BOOL_TEXT", "v": "VALUE", "q": "INTORSTR",
         "n": "COUNT", "t": "SINCE", "j": "JOIN", "labels": "LABELS", "sel": "SELECTOR",
         "containers": "CONTAINERS"}
SCALE = (".get = th_scale_get, .update = th_scale_update, .columns = th_scale_columns, "
         ".row = th_row_scale")


def rows(path):
    with open(path, encoding="utf-8") as f:
        for line in f:
            line = line.rstrip("\n")
            if line and not line.startswith("#"):
                yield line.split("\t")


def c(text):
    return json.dumps(text, ensure_ascii=True)


def verbs(names, sep):
    return " | ".join(VERBS[v] for v in names.split(sep))


def row_id(group, version, plural):
    first = group.split(".")[0] if group else "core"
    extra = "v1_" if (group, version) == ("autoscaling", "v1") else ""
    return f"{first}_{extra}{plural}"


def sub_row(text, own_gv, hooks):
    name, rest = text.rstrip(")").split("(")
    kind, sub_verbs = rest.split(";")
    gv = own_gv
    if ":" in kind:
        gv_text, kind = kind.split(":")
        gv = tuple(gv_text.split("/")) if "/" in gv_text else ("", gv_text)
    hook = hooks.pop(name, SCALE if name == "scale" else "")
    end = f", {hook}" if hook else ""
    return f'    {{{c(name)}, {c(gv[0])}, {c(gv[1])}, {c(kind)}, {verbs(sub_verbs, "+")}{end}}},'


def cell(text):
    if ":" not in text:
        return f"{{TH_CELL_{text.upper()}, NULL, NULL, NULL}}"
    what, rest = text.split(":", 1)
    if what == "f":
        return f"{{TH_CELL_FN, NULL, NULL, th_row_{rest}}}"
    path, _, dflt = rest.partition("|")
    return f"{{TH_CELL_{CELLS[what]}, {c(path)}, {c(dflt)}, NULL}}"


def column(text, kind, docs):
    parts = text.split(":")
    name, kind_of_value = parts[0], parts[1]
    fmt = "name" if "name" in parts[2:] else ""
    prio = next((p for p in parts[2:] if p.isdigit()), "0")
    doc = docs.get((kind, name), docs.get(("", name), ""))
    assert doc, f"column_docs.tsv: nothing about {kind}: {name}"
    return f'    {{{c(name)}, {c(kind_of_value)}, {c(fmt)}, {c(doc)}, {prio}}},'


def frozen(text):
    what, rest = text.split(":", 1)
    path, words = rest.split("=", 1)
    return f'    {{{c(path)}, {c(words)}, {"true" if what == "forb" else "false"}}},'


def emit(out, r, spec, columns, fields, docs):
    group, version, plural, singular, kind, namespaced, short, cats, verb_list, subs, hash_ = r
    i = row_id(group, version, plural)
    cells, more, rules, sub_hooks = (spec[1:] + [""] * 4)[:4]
    hooks = dict(h.split(":", 1) for h in sub_hooks.split(";") if h)
    members = [f".group = {c(group)}", f".version = {c(version)}", f".kind = {c(kind)}",
               f".plural = {c(plural)}", f".singular = {c(singular)}",
               f".namespaced = {'true' if namespaced == '1' else 'false'}",
               f".verbs = {verbs(verb_list, ',')}"]
    if hash_:
        members.append(f".storage_hash = {c(hash_)}")
    for name, text in (("short_names", short), ("categories", cats), ("selectable", fields)):
        if text:
            items = ", ".join(c(t) for t in text.split(","))
            out.append(f"static const char *const {name}_{i}[] = {{{items}, NULL}};")
            members.append(f".{name} = {name}_{i}")
    if subs:
        out.append(f"static const struct th_subresource subs_{i}[] = {{")
        out += [sub_row(s, (group, version), hooks) for s in subs.split(" ")]
        out.append("    {0},\n};")
        members.append(f".subs = subs_{i}")
    assert not hooks, f"{i} has no subresource {hooks}"
    if cells:
        assert columns, f"{kind} has cells but no columns"
        out.append(f"static const struct th_column columns_{i}[] = {{")
        out += [column(t, kind, docs) for t in columns] + ["    {0},\n};"]
        out.append(f"static const struct th_cell cells_{i}[] = {{")
        out += [f"    {cell(t)}," for t in cells.split(";")]
        out.append("    {TH_CELL_END, NULL, NULL, NULL},\n};")
        out.append(f"static void row_{i}(const struct th_req_ctx *x, const struct th_json *obj,\n"
                   f"                    struct th_json *cells)\n{{\n"
                   f"    th_cells(x, obj, cells_{i}, cells);\n}}")
        members += [f".columns = columns_{i}", f".row = row_{i}"]
    if rules:
        out.append(f"static const struct th_frozen frozen_{i}[] = {{")
        out += [frozen(t) for t in rules.split(";")] + ["    {0},\n};"]
        members.append(f".s.frozen = frozen_{i}")
    if more:
        members.append(more)
    out.append(f"static const struct th_resource res_{i} = {{")
    out += [f"    {m}," for m in members] + ["};\n"]
    return i


def main():
    out_path, data, spec_path, docs_path = sys.argv[1:5]
    specs = {s[0]: s for s in rows(spec_path)}
    docs = {(d[0], d[1]): d[2] for d in rows(docs_path)}
    columns = {}
    for r in rows(f"{data}/printer_columns.tsv"):
        columns.setdefault(r[0].split(".")[-1], r[1:])
    fields = {r[0]: r[1] for r in rows(f"{data}/field_selectors.tsv")}
    out = ["/* Generated by controlplane/resources/gen_rows.py; do not edit. */",
           '#include "controlplane/resources/rows.h"\n']
    ids = []
    for r in rows(f"{data}/resources.tsv"):
        r = (r + [""] * 11)[:11]
        spec = specs.pop(row_id(r[0], r[1], r[2]), None)
        if spec:
            gv_kind = (f"{r[0]}/" if r[0] else "") + f"{r[1]}/{r[4]}"
            ids.append(emit(out, r, spec, columns.get(r[4]), fields.get(gv_kind, ""), docs))
    assert not specs, f"rows.tsv names what resources.tsv has not: {list(specs)}"
    out.append("const struct th_resource *const th_resource_rows[] = {")
    out += [f"    &res_{i}," for i in ids]
    out.append("};")
    out.append(f"const size_t th_resource_rows_n = {len(ids)};")
    with open(out_path, "w", encoding="utf-8") as f:
        f.write("\n".join(out) + "\n")


main()
