/* links: thimble_schema thimble_base */
/* {"obj": ..., "patch": ...} as a Pod: no crash, inputs untouched. */
#include "controlplane/schema/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_json) struct th_json *in = NULL;
    if (th_json_parse((const char *)data, size, NULL, &in, NULL) < 0) {
        return 0;
    }
    th_autofree char *before = th_json_to_string(in);
    struct th_json *out = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_strategic_merge(th_kind_find("", "v1", "Pod")->type, th_json_get(in, "obj"),
                           th_json_get(in, "patch"), &out, &err) == 0) {
        th_json_unref(out);
    } else {
        TH_ASSERT(err.msg);
    }
    th_autofree char *after = th_json_to_string(in);
    TH_ASSERT(strcmp(before, after) == 0);
    return 0;
}
