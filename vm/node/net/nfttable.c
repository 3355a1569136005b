/* A table of nftables as data, so that two states can be compared.
 *
 * The kernel takes a list of changes as one transaction: all of it or nothing, and no packet sees
 * half of it. Replacing the table with every change would be simple, but costs time in proportion to
 * the cluster, and would throw away what the kernel itself has put into sets (session affinity).
 * So the state that was loaded last is kept and only the difference is sent.
 *
 * The order inside a transaction follows what refers to what: sets and empty chains first, then
 * elements that go, rules of chains that change or go, new rules, new elements, and at last chains
 * and sets that nobody names any more. An element whose data changes goes and comes again, which
 * packets cannot see either. A set whose type changes must get another name: it is not replaced.
 *
 * Everything is kept in byte order: the same state always gives the same text. Names and values come
 * from objects that the API server has validated, and callers check addresses and numbers; nothing
 * here quotes. Upstream's proxy does the same through a library that talks to the nft program. */
#include "vm/node/net/nfttable.h"
#include "base/hmap.h"

#include <stdarg.h>

struct chain {
    const char *hook;
    struct th_buf rules; /* one per line */
};
struct set {
    bool map;
    char *spec;
    struct th_omap *elements; /* key -> char * data or NULL */
};
struct th_nft_table {
    char *family, *name;
    struct th_omap *chains, *sets;
};

static void chain_free(void *p)
{
    struct chain *c = p;
    th_buf_done(&c->rules);
    free(c);
}

static void set_free(void *p)
{
    struct set *s = p;
    th_omap_free(s->elements);
    free(s->spec);
    free(s);
}

struct th_nft_table *th_nft_table_new(const char *family, const char *name)
{
    struct th_nft_table *t = TH_NEW(struct th_nft_table);
    t->family = th_xstrdup(family);
    t->name = th_xstrdup(name);
    t->chains = th_omap_new(chain_free);
    t->sets = th_omap_new(set_free);
    return t;
}

void th_nft_table_free(struct th_nft_table *t)
{
    if (t) {
        th_omap_free(t->chains);
        th_omap_free(t->sets);
        free(t->family);
        free(t->name);
        free(t);
    }
}

void th_nft_chain(struct th_nft_table *t, const char *chain, const char *hook)
{
    if (!th_omap_get(t->chains, chain)) {
        struct chain *c = TH_NEW(struct chain);
        c->hook = hook;
        th_omap_set(t->chains, chain, c);
    }
}

bool th_nft_has_chain(const struct th_nft_table *t, const char *chain)
{
    return th_omap_get(t->chains, chain) != NULL;
}

void th_nft_rule(struct th_nft_table *t, const char *chain, const char *fmt, ...)
{
    struct chain *c = th_omap_get(t->chains, chain);
    TH_ASSERT(c);
    va_list ap;
    va_start(ap, fmt);
    th_buf_vprintf(&c->rules, fmt, ap);
    va_end(ap);
    th_buf_putc(&c->rules, '\n');
}

void th_nft_set(struct th_nft_table *t, const char *set, bool map, const char *spec)
{
    struct set *s = TH_NEW(struct set);
    *s = (struct set){.map = map, .spec = th_xstrdup(spec), .elements = th_omap_new(free)};
    th_omap_set(t->sets, set, s);
}

bool th_nft_has_set(const struct th_nft_table *t, const char *set)
{
    return th_omap_get(t->sets, set) != NULL;
}

bool th_nft_has_element(const struct th_nft_table *t, const char *set, const char *key)
{
    const struct set *s = th_omap_get(t->sets, set);
    struct th_omap_entry e;
    return s && th_omap_seek(s->elements, key, &e) && th_streq(e.key, key);
}

bool th_nft_element(struct th_nft_table *t, const char *set, const char *key, const char *data)
{
    struct set *s = th_omap_get(t->sets, set);
    TH_ASSERT(s && s->map == (data != NULL));
    if (th_nft_has_element(t, set, key)) {
        return false;
    }
    th_omap_set(s->elements, key, th_xstrdup(data));
    return true;
}

void th_nft_set_names(const struct th_nft_table *t, const char *prefix, struct th_strv *ret)
{
    struct th_omap_entry e;
    for (bool more = th_omap_seek(t->sets, prefix, &e); more && th_startswith(e.key, prefix);
         more = th_omap_after(t->sets, e.key, &e)) {
        th_strv_add(ret, e.key);
    }
}

#define EACH(map, e)                                                                               \
    for (bool more_##e = th_omap_seek((map), "", &(e)); more_##e;                                  \
         more_##e = th_omap_after((map), (e).key, &(e)))

/* ---- the whole table ---- */

static void print_set(const char *name, const struct set *s, struct th_buf *b)
{
    th_buf_printf(b, "\t%s %s {\n\t\t%s;\n", s->map ? "map" : "set", name, s->spec);
    if (th_omap_count(s->elements) > 0) {
        th_buf_puts(b, "\t\telements = {\n");
        struct th_omap_entry e;
        EACH(s->elements, e) {
            th_buf_printf(b, "\t\t\t%s%s%s,\n", e.key, e.value ? " : " : "",
                          e.value ? (const char *)e.value : "");
        }
        th_buf_puts(b, "\t\t}\n");
    }
    th_buf_puts(b, "\t}\n");
}

static void print_chain(const char *name, const struct chain *c, struct th_buf *b)
{
    th_buf_printf(b, "\tchain %s {\n", name);
    if (c->hook) {
        th_buf_printf(b, "\t\t%s;\n", c->hook);
    }
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    th_strv_split(&lines, th_buf_cstr(&c->rules), '\n');
    for (size_t i = 0; i + 1 < lines.n; i++) {
        th_buf_printf(b, "\t\t%s\n", lines.v[i]);
    }
    th_buf_puts(b, "\t}\n");
}

void th_nft_print(const struct th_nft_table *t, struct th_buf *b)
{
    struct th_omap_entry e;
    th_buf_printf(b, "table %s %s {\n", t->family, t->name);
    EACH(t->chains, e) { /* rules and verdicts name chains and sets that come later */
        if (!((const struct chain *)e.value)->hook) {
            th_buf_printf(b, "\tchain %s {\n\t}\n", e.key);
        }
    }
    EACH(t->sets, e) {
        print_set(e.key, e.value, b);
    }
    EACH(t->chains, e) {
        print_chain(e.key, e.value, b);
    }
    th_buf_puts(b, "}\n");
}

/* ---- the difference ---- */

struct diff {
    const struct th_nft_table *from, *to;
    struct th_buf *b;
};

static void command(const struct diff *d, const char *what, const char *name, const char *rest)
{
    th_buf_printf(d->b, "%s %s %s %s%s\n", what, d->to->family, d->to->name, name, rest);
}

static void make_new(const struct diff *d)
{
    struct th_omap_entry e;
    EACH(d->to->chains, e) {
        const struct chain *c = e.value;
        if (!th_omap_get(d->from->chains, e.key)) {
            th_autofree char *hook = c->hook ? th_xasprintf(" { %s; }", c->hook) : th_xstrdup("");
            command(d, "add chain", e.key, hook);
        }
    }
    EACH(d->to->sets, e) {
        const struct set *s = e.value, *old = th_omap_get(d->from->sets, e.key);
        TH_ASSERT(!old || (old->map == s->map && th_streq(old->spec, s->spec)));
        if (!old) {
            th_autofree char *spec = th_xasprintf(" { %s; }", s->spec);
            command(d, s->map ? "add map" : "add set", e.key, spec);
        }
    }
}

static void element(const struct diff *d, const char *verb, const char *set,
                    const struct th_omap_entry *e)
{
    const char *data = e->value;
    th_buf_printf(d->b, "%s element %s %s %s { %s%s%s }\n", verb, d->to->family, d->to->name, set,
                  e->key, data ? " : " : "", data ? data : "");
}

/* Elements of a that are not in b, or have other data there. */
static void elements(const struct diff *d, const char *verb, const char *set, const struct set *a,
                     const struct set *b)
{
    struct th_omap_entry e, same;
    EACH(a->elements, e) {
        bool there = b && th_omap_seek(b->elements, e.key, &same) && th_streq(same.key, e.key) &&
                     th_streq(same.value, e.value);
        if (!there) {
            element(d, verb, set, &e);
        }
    }
}

static bool same_rules(const struct chain *a, const struct chain *b)
{
    return a && b && th_str_eq(th_buf_str(&a->rules), th_buf_str(&b->rules));
}

static void take_away(const struct diff *d)
{
    struct th_omap_entry e;
    EACH(d->from->sets, e) {
        elements(d, "delete", e.key, e.value, th_omap_get(d->to->sets, e.key));
    }
    EACH(d->from->chains, e) {
        const struct chain *c = e.value;
        if (c->rules.n > 0 && !same_rules(c, th_omap_get(d->to->chains, e.key))) {
            command(d, "flush chain", e.key, "");
        }
    }
}

static void fill(const struct diff *d)
{
    struct th_omap_entry e;
    EACH(d->to->chains, e) {
        const struct chain *c = e.value;
        if (same_rules(c, th_omap_get(d->from->chains, e.key))) {
            continue;
        }
        th_autostrv struct th_strv lines = TH_STRV_INIT;
        th_strv_split(&lines, th_buf_cstr(&c->rules), '\n');
        for (size_t i = 0; i + 1 < lines.n; i++) {
            th_buf_printf(d->b, "add rule %s %s %s %s\n", d->to->family, d->to->name, e.key,
                          lines.v[i]);
        }
    }
    EACH(d->to->sets, e) {
        elements(d, "add", e.key, e.value, th_omap_get(d->from->sets, e.key));
    }
}

static void drop_old(const struct diff *d)
{
    struct th_omap_entry e;
    EACH(d->from->chains, e) {
        if (!th_omap_get(d->to->chains, e.key)) {
            command(d, "delete chain", e.key, "");
        }
    }
    EACH(d->from->sets, e) {
        if (!th_omap_get(d->to->sets, e.key)) {
            command(d, ((const struct set *)e.value)->map ? "delete map" : "delete set", e.key, "");
        }
    }
}

void th_nft_diff(const struct th_nft_table *from, const struct th_nft_table *to, struct th_buf *ret)
{
    if (!from) {
        th_buf_printf(ret, "add table %s %s\ndelete table %s %s\n", to->family, to->name, to->family,
                      to->name);
        th_nft_print(to, ret);
        return;
    }
    struct diff d = {.from = from, .to = to, .b = ret};
    make_new(&d);
    take_away(&d);
    fill(&d);
    drop_old(&d);
}
