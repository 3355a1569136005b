/* links: thimble_schema thimble_base */
/* {"live": ..., "config": ..., "update": ...} as a Pod: applying the same again and again
 * settles (the second time may still clear what a null or an empty list left behind), and managedFields from anywhere do no harm. */
#include "controlplane/schema/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The object as it would be stored: an empty list that nobody owns comes and goes between applies,
 * and the encoder drops it. NULL when it does not decode. */
static struct th_json *stored(const struct th_type *t, const struct th_json *o)
{
    TH_AUTO(th_json) struct th_json *c = th_json_dup(o);
    th_autostrv struct th_strv unknown = TH_STRV_INIT;
    (void)th_json_path_del(c, "metadata.managedFields");
    return th_schema_decode(t, c, &unknown, NULL) == 0 ? th_steal(&c) : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_json) struct th_json *in = NULL;
    if (th_json_parse((const char *)data, size, NULL, &in, NULL) < 0) {
        return 0;
    }
    const struct th_json *live = th_json_get(in, "live"), *update = th_json_get(in, "update");
    TH_AUTO(th_json) struct th_json *config = th_json_dup(th_json_get(in, "config"));
    struct th_apply_opts o = {.type = th_kind_find("", "v1", "Pod")->type, .api_version = "v1",
                              .manager = "kubectl", .subresource = "", .force = true, .now_ms = 1};
    live = th_json_is(live, TH_JSON_OBJECT) ? live : NULL;
    if (th_json_is(config, TH_JSON_OBJECT)) {
        th_json_set_str(config, "apiVersion", "v1");
    }
    for (int typed = 0; typed < 2; typed++) {
        struct th_json *one = NULL, *two = NULL, *three = NULL;
        o.type = typed ? th_kind_find("", "v1", "Pod")->type : NULL;
        if (th_apply(&o, live, config, &one, NULL) == 0) {
            if (th_apply(&o, one, config, &two, NULL) == 0) {
                TH_ASSERT(th_apply(&o, two, config, &three, NULL) == 0);
                TH_AUTO(th_json) struct th_json *a = typed ? stored(o.type, two) : NULL;
                TH_AUTO(th_json) struct th_json *b = typed ? stored(o.type, three) : NULL;
                TH_ASSERT(!a || !b || th_json_equal(a, b));
                th_json_unref(two);
                th_json_unref(three);
            }
            th_json_unref(one);
        }
        if (th_json_is(update, TH_JSON_OBJECT)) {
            TH_AUTO(th_json) struct th_json *obj = th_json_dup(update);
            TH_ASSERT(th_managed_fields_update(&o, live, obj, NULL) == 0);
        }
    }
    return 0;
}
