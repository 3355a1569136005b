/* links: thimble_base */
/* What parses prints to YAML that parses to the same tree. */
#include "base/json/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_json) struct th_json *docs = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)th_yaml_check_unique((const char *)data, size, NULL);
    if (th_yaml_parse((const char *)data, size, &docs, &err) < 0) {
        TH_ASSERT(err.msg && !docs);
        return 0;
    }
    for (size_t i = 0; i < th_json_len(docs); i++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        TH_AUTO(th_json) struct th_json *again = NULL;
        th_yaml_dump(th_json_at(docs, i), &b);
        TH_ASSERT(th_yaml_parse_one(th_buf_cstr(&b), b.n, NULL, &again, NULL) == 0);
        TH_ASSERT(th_json_equal(th_json_at(docs, i), again));
    }
    return 0;
}
