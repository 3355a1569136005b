/*
 * JSON merge patch (RFC 7386), with the one liberty upstream's library takes: where a patch value
 * lands on nothing (or on something that is not an object), members that are null are dropped from
 * it everywhere, inside arrays too, since a null there could only have meant "remove".
 *
 * The patch of an object has to be an object. The depth is the JSON parser's, so recursion is
 * bounded by TH_LIMIT_JSON_DEPTH.
 */
#include "controlplane/schema/patch.h"

void th_prune_nulls(struct th_json *o)
{
    if (th_json_is(o, TH_JSON_OBJECT)) {
        struct th_json_iter it = TH_JSON_ITER(o);
        while (th_json_next(&it)) {
            if (th_json_is_null(it.value)) {
                (void)th_json_del(o, it.name);
            } else {
                th_prune_nulls(it.value);
            }
        }
    } else if (th_json_is(o, TH_JSON_ARRAY)) {
        for (size_t i = 0; i < th_json_len(o); i++) {
            th_prune_nulls(th_json_at(o, i));
        }
    }
}

static void merge(struct th_json *obj, const struct th_json *patch)
{
    struct th_json_iter it = TH_JSON_ITER(patch);
    while (th_json_next(&it)) {
        struct th_json *have = th_json_get(obj, it.name);
        if (th_json_is_null(it.value)) {
            (void)th_json_del(obj, it.name);
        } else if (th_json_is(have, TH_JSON_OBJECT) && th_json_is(it.value, TH_JSON_OBJECT)) {
            merge(have, it.value);
        } else {
            struct th_json *value = th_json_dup(it.value);
            if (!th_json_is(have, TH_JSON_OBJECT)) {
                th_prune_nulls(value);
            }
            th_json_set(obj, it.name, value);
        }
    }
}

int th_merge_patch(const struct th_json *obj, const struct th_json *patch, struct th_json **ret,
                   struct th_err *err)
{
    static const char *const names[] = {
        [TH_JSON_BOOL] = "bool",     [TH_JSON_INT] = "number",  [TH_JSON_DOUBLE] = "number",
        [TH_JSON_STRING] = "string", [TH_JSON_ARRAY] = "array",
    };
    if (th_json_is_null(patch)) {
        return th_fail(err, TH_R_BAD_REQUEST, "Invalid JSON Patch");
    }
    if (!th_json_is(patch, TH_JSON_OBJECT)) {
        return th_fail(err, TH_R_BAD_REQUEST,
                       "error decoding patch: json: cannot unmarshal %s into Go value of type "
                       "map[string]interface {}",
                       names[th_json_type(patch)]);
    }
    struct th_json *result = th_json_is(obj, TH_JSON_OBJECT) ? th_json_dup(obj) : th_json_object();
    merge(result, patch);
    *ret = result;
    return 0;
}
