/* links: thimble_schema thimble_base */
/* fieldsV1 of any shape: a set that is read, written and read again is the same; the algebra of sets. */
#include "controlplane/schema/fieldset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void count(void *arg, const char *path)
{
    TH_ASSERT(path && *path);
    ++*(size_t *)arg;
}

static size_t size_of(const struct th_fset *s)
{
    size_t n = 0;
    th_fset_each(s, count, &n);
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_json) struct th_json *in = NULL;
    if (th_json_parse((const char *)data, size, NULL, &in, NULL) < 0) {
        return 0;
    }
    TH_AUTO(th_fset) struct th_fset *a = NULL;
    TH_AUTO(th_fset) struct th_fset *b = NULL;
    if (th_fset_parse(th_json_get(in, "a"), &a, NULL) < 0) {
        return 0;
    }
    TH_AUTO(th_json) struct th_json *one = th_fset_to_json(a);
    TH_AUTO(th_fset) struct th_fset *again = NULL;
    TH_ASSERT(th_fset_parse(one, &again, NULL) == 0);
    TH_AUTO(th_json) struct th_json *two = th_fset_to_json(again);
    TH_ASSERT(th_json_equal(one, two) && size_of(a) == size_of(again));
    if (th_fset_parse(th_json_get(in, "b"), &b, NULL) < 0) {
        return 0;
    }
    TH_AUTO(th_fset) struct th_fset *both = th_fset_intersection(a, b);
    TH_AUTO(th_fset) struct th_fset *all = th_fset_union(a, b);
    TH_AUTO(th_fset) struct th_fset *only_a = th_fset_difference(a, b);
    TH_AUTO(th_fset) struct th_fset *none = th_fset_difference(a, a);
    TH_ASSERT(size_of(all) + size_of(both) == size_of(a) + size_of(b));
    TH_ASSERT(size_of(only_a) + size_of(both) == size_of(a));
    TH_ASSERT(th_fset_empty(none) || size_of(none) == 0);
    return 0;
}
