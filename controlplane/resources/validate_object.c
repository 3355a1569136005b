/* Validation of one object: rules of its types, hooks of its row, members that never change. */
#include "controlplane/resources/rows.h"
#include "controlplane/resources/rules.h"
#include "controlplane/schema/validate.h"

/* Adds a cause for every member of the list that differs between obj and old. */
static void check_frozen(const struct th_frozen *list, const struct th_json *obj,
                         const struct th_json *old, struct th_err *err)
{
    for (; list->path; list++) {
        const struct th_json *now = th_json_path(obj, list->path);
        if (th_json_equal(now, th_json_path(old, list->path))) {
            continue;
        }
        if (list->forbidden) {
            th_invalid_forbidden(err, list->path, list->words);
        } else {
            th_invalid_value(err, list->path, now, list->words);
        }
    }
}

void th_resource_validate(const struct th_resource *r, const struct th_req_ctx *c,
                          const struct th_json *obj, const struct th_json *old, struct th_err *err)
{
    const struct th_kind *k = th_resource_kind(r);
    if (k) {
        th_rules_check(k->type, obj, err);
    }
    if (r->s.validate) {
        r->s.validate(c, obj, err);
    }
    if (!old && r->s.validate_create) {
        r->s.validate_create(c, obj, err);
    }
    if (old && r->s.validate_update) {
        r->s.validate_update(c, obj, old, err);
    }
    if (old && r->s.frozen) {
        check_frozen(r->s.frozen, obj, old, err);
    }
}
