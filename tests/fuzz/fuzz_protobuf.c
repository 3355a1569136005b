/* links: thimble_schema */
/* Any bytes as a protobuf body: what is read must be written and read again as the same object. */
#include "controlplane/schema/schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_json) struct th_json *o = NULL, *again = NULL;
    const struct th_kind *k = th_kind_find("", "v1", "Pod");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_pb_decode(data, size, k, &k, &o, &err) < 0) {
        TH_ASSERT(err.msg);
        return 0;
    }
    /* quantities arrive as text of any kind; decoding canonicalizes or refuses them */
    if (th_schema_decode(k->type, o, NULL, NULL) < 0) {
        return 0;
    }
    th_autobuf struct th_buf b = TH_BUF_INIT;
    TH_ASSERT(th_pb_encode(k, o, &b, NULL) >= 0);
    TH_ASSERT(th_pb_decode(b.p, b.n, NULL, NULL, &again, NULL) >= 0);
    return 0;
}
