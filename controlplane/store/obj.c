/* Objects and events: immutable, counted, one allocation each.
 *
 * An object is struct, key and stamped bytes in one block, so that a cache of 100,000 of them
 * costs one allocation each and a reference is one atomic increment. An event adds the frames: the
 * text of the watch line, made by whoever needs it first and shared by all watchers after that.
 * Two threads may build the same frame at once; the one that comes second throws its copy away.
 *
 * A selector's transition out (an update after which the object no longer matches) is shown as
 * DELETED with the state before, stamped with the event's revision, as upstream's watch cache
 * does.
 */
#include "base/json/slice.h"
#include "controlplane/store/store_priv.h"

#include <inttypes.h>

struct frame {
    size_t n;
    char p[];
};

static struct th_obj *obj_alloc(const char *key, size_t key_n, size_t n, char **ret_bytes)
{
    struct th_obj *o = th_xmalloc(sizeof(*o) + key_n + 1 + n + 1);
    char *k = (char *)(o + 1);
    char *b = k + key_n + 1;
    memcpy(k, key, key_n);
    k[key_n] = '\0';
    b[n] = '\0';
    *o = (struct th_obj){.refs = 1, .n = (uint32_t)n, .key = k, .bytes = b};
    *ret_bytes = b;
    return o;
}

struct th_obj *th_obj_new(const char *key, const struct th_head *h, const char *p, size_t n,
                          int64_t rv, int64_t create_rv)
{
    char num[24];
    size_t num_n = (size_t)snprintf(num, sizeof(num), "%" PRId64, rv);
    size_t pre_n = strlen(h->pre);
    size_t post_n = strlen(h->post);
    size_t put = pre_n + num_n + post_n;
    size_t cut = h->cut_to - h->cut_from;
    char *b;
    struct th_obj *o = obj_alloc(key, strlen(key), n - cut + put, &b);
    char *at = b;
    memcpy(at, p, h->cut_from);
    at += h->cut_from;
    memcpy(at, h->pre, pre_n);
    at += pre_n;
    memcpy(at, num, num_n);
    at += num_n;
    memcpy(at, h->post, post_n);
    at += post_n;
    memcpy(at, p + h->cut_to, n - h->cut_to);
    o->rv = rv;
    o->create_rv = create_rv;
    if (h->labels_n > 0) {
        size_t l = h->labels_at >= h->cut_to ? h->labels_at + put - cut : h->labels_at;
        o->labels_json = b + l;
        o->labels_n = (uint32_t)h->labels_n;
    }
    return o;
}

int th_obj_make(const char *key, struct th_str json, int64_t rv, struct th_obj **ret,
                struct th_err *err)
{
    return th_obj_load(key, strlen(key), json.p, json.n, rv, rv, ret, err);
}

int th_obj_load(const char *key, size_t key_n, const char *p, size_t n, int64_t rv,
                int64_t create_rv, struct th_obj **ret, struct th_err *err)
{
    struct th_head h;
    TH_TRY(th_head_scan(p, n, &h, err));
    char *b;
    struct th_obj *o = obj_alloc(key, key_n, n, &b);
    memcpy(b, p, n);
    o->rv = rv;
    o->create_rv = create_rv;
    if (h.labels_n > 0) {
        o->labels_json = b + h.labels_at;
        o->labels_n = (uint32_t)h.labels_n;
    }
    *ret = o;
    return 0;
}

struct th_obj *th_obj_restamp(const struct th_obj *o, int64_t rv)
{
    struct th_head h;
    int r = th_head_scan(o->bytes, o->n, &h, NULL);
    TH_ASSERT(r == 0); /* it was scanned when it came in */
    return th_obj_new(o->key, &h, o->bytes, o->n, rv, o->create_rv);
}

struct th_obj *th_obj_ref(struct th_obj *o)
{
    if (o) {
        __atomic_add_fetch(&o->refs, 1, __ATOMIC_RELAXED);
    }
    return o;
}

void th_obj_unref(struct th_obj *o)
{
    if (o && __atomic_sub_fetch(&o->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        free(o);
    }
}

bool th_obj_label(const struct th_obj *o, const char *key, struct th_str *ret_value)
{
    if (!o->labels_json) {
        return false;
    }
    const struct th_str labels = {o->labels_json, o->labels_n};
    struct th_json_slice m = TH_JSON_SLICE(labels);
    struct th_str want = th_str_of(key);
    struct th_str name, value;
    while (th_json_slice_member(&m, &name, &value)) {
        if (th_str_eq(name, want) && value.n >= 2 && value.p[0] == '"') {
            *ret_value = (struct th_str){value.p + 1, value.n - 2};
            return true;
        }
    }
    return false;
}

struct th_event *th_event_new(enum th_event_type type, int64_t rv, struct th_obj *obj,
                              struct th_obj *prev)
{
    struct th_event *e = TH_NEW(struct th_event);
    e->refs = 1;
    e->type = type;
    e->rv = rv;
    e->obj = obj;
    e->prev = prev;
    return e;
}

struct th_event *th_event_ref(struct th_event *e)
{
    if (e) {
        __atomic_add_fetch(&e->refs, 1, __ATOMIC_RELAXED);
    }
    return e;
}

void th_event_unref(struct th_event *e)
{
    if (!e || __atomic_sub_fetch(&e->refs, 1, __ATOMIC_ACQ_REL) != 0) {
        return;
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(e->frames); i++) {
        free(e->frames[i]);
    }
    th_obj_unref(e->obj);
    th_obj_unref(e->prev);
    free(e);
}

static const char *const type_names[] = {"ADDED", "MODIFIED", "DELETED"};

/* Puts f into the slot unless another thread was faster; returns what is there. */
static struct th_str share(struct th_event *e, size_t slot, struct frame *f)
{
    void *none = NULL;
    if (!__atomic_compare_exchange_n(&e->frames[slot], &none, f, false, __ATOMIC_ACQ_REL,
                                     __ATOMIC_ACQUIRE)) {
        free(f);
        f = none;
    }
    return (struct th_str){f->p, f->n};
}

/* The object that an event shows; *ret_made gets a reference when it had to be made. */
static const struct th_obj *shown(struct th_event *e, enum th_event_type as,
                                  struct th_obj **ret_made)
{
    if (as == TH_EV_DELETED && e->type != TH_EV_DELETED && e->prev) {
        return *ret_made = th_obj_restamp(e->prev, e->rv);
    }
    return e->obj;
}

struct th_str th_event_frame(struct th_event *e, enum th_event_type as)
{
    struct frame *f = __atomic_load_n(&e->frames[as], __ATOMIC_ACQUIRE);
    if (f) {
        return (struct th_str){f->p, f->n};
    }
    TH_AUTO(th_obj) struct th_obj *made = NULL;
    const struct th_obj *o = shown(e, as, &made);
    char head[40];
    size_t head_n =
        (size_t)snprintf(head, sizeof(head), "{\"type\":\"%s\",\"object\":", type_names[as]);
    f = th_xmalloc(sizeof(*f) + head_n + o->n + 2);
    f->n = head_n + o->n + 2;
    memcpy(f->p, head, head_n);
    memcpy(f->p + head_n, o->bytes, o->n);
    memcpy(f->p + head_n + o->n, "}\n", 2);
    return share(e, as, f);
}

struct th_str th_event_encoded(struct th_event *e, enum th_event_type as, th_event_encode_fn *fn,
                               void *arg)
{
    size_t slot = 3 + (size_t)as;
    struct frame *f = __atomic_load_n(&e->frames[slot], __ATOMIC_ACQUIRE);
    if (f) {
        return (struct th_str){f->p, f->n};
    }
    TH_AUTO(th_obj) struct th_obj *made = NULL;
    const struct th_obj *o = shown(e, as, &made);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    if (fn(arg, type_names[as], (struct th_str){o->bytes, o->n}, &b) < 0) {
        return (struct th_str){NULL, 0};
    }
    f = th_xmalloc(sizeof(*f) + b.n);
    f->n = b.n;
    memcpy(f->p, b.p, b.n);
    return share(e, slot, f);
}
