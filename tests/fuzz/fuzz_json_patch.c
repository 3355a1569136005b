/* links: thimble_schema thimble_base */
/* {"obj": ..., "patch": ...}: JSON patch and merge patch neither crash nor touch their inputs. */
#include "controlplane/schema/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_json) struct th_json *in = NULL;
    if (th_json_parse((const char *)data, size, NULL, &in, NULL) < 0) {
        return 0;
    }
    th_autofree char *before = th_json_to_string(in);
    const struct th_json *obj = th_json_get(in, "obj"), *patch = th_json_get(in, "patch");
    struct th_json *out = NULL;
    if (th_json_patch(obj, patch, &out, NULL) == 0) {
        th_json_unref(out);
    }
    if (th_merge_patch(obj, patch, &out, NULL) == 0) {
        th_json_unref(out);
    }
    th_autofree char *after = th_json_to_string(in);
    TH_ASSERT(strcmp(before, after) == 0);
    return 0;
}
