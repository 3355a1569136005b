/* Members that never change: the fourth column of rows.tsv. */
#include "controlplane/resources/rows.h"
#include "controlplane/schema/validate.h"

void th_frozen_check(const struct th_frozen *list, const struct th_json *obj,
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
