/* links: thimble_schema thimble_base */
/* A path on the first line, an object behind it: what is found is borrowed from them, and nothing else. */
#include "controlplane/schema/jsonpath.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nl = memchr(data, '\n', size);
    size_t n = nl ? (size_t)(nl - data) : size;
    th_autofree char *path = th_xstrndup((const char *)data, n);
    TH_AUTO(th_jsonpath) struct th_jsonpath *p = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_jsonpath_parse(path, &p, &err) < 0) {
        TH_ASSERT(err.msg);
        return 0;
    }
    static const char sample[] = "{\"a\":[{\"b\":1,\"c\":\"x\"},{\"b\":2.5},null],\"d\":{\"e.f\":true}}";
    TH_AUTO(th_json) struct th_json *o = NULL;
    if (!nl || th_json_parse((const char *)nl + 1, size - n - 1, NULL, &o, NULL) < 0) {
        TH_ASSERT(th_json_parse(sample, strlen(sample), NULL, &o, NULL) == 0);
    }
    struct th_jsonpath_found f = {.n = 0};
    TH_AUTO_ERR struct th_err find_err = TH_ERR_INIT;
    if (th_jsonpath_find(p, o, &f, &find_err) == 0) {
        for (size_t i = 0; i < f.n; i++) {
            th_autofree char *text = th_json_to_string(f.v[i]);
            TH_ASSERT(text);
        }
    }
    th_jsonpath_found_done(&f);
    return 0;
}
