/* links: thimble_schema */
/* Any JSON as a body of some kind (the first byte chooses it): decoding, defaults, canonical order
 * and validation must not break, and decoding what they made must change nothing. */
#include "controlplane/schema/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    size_t n = 0;
    while (th_kind_at(n)) {
        n++;
    }
    const struct th_kind *k = th_kind_at(data[0] * n / 256);
    TH_AUTO(th_json) struct th_json *o = NULL;
    th_autostrv struct th_strv unknown = TH_STRV_INIT;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_json_parse((const char *)data + 1, size - 1, NULL, &o, NULL) < 0) {
        return 0;
    }
    if (th_schema_decode(k->type, o, &unknown, &err) < 0) {
        TH_ASSERT(err.msg);
        return 0;
    }
    th_schema_default(k, o);
    th_schema_canonicalize(k->type, o);
    th_autofree char *first = th_json_to_string(o);
    TH_ASSERT(th_schema_decode(k->type, o, NULL, NULL) >= 0);
    th_schema_canonicalize(k->type, o);
    th_autofree char *second = th_json_to_string(o);
    TH_ASSERT(strcmp(first, second) == 0);
    return 0;
}
