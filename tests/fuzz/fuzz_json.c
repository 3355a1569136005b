/* links: thimble_base */
/* What parses prints to text that parses to the same tree, and after that the text stays (-0e3 prints as
 * the -0 that Go prints, which is read as the integer 0); paths of repeated members do no harm. */
#include "base/json/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_json) struct th_json *a = NULL;
    TH_AUTO(th_json) struct th_json *b = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    th_autostrv struct th_strv dups = TH_STRV_INIT;
    if (th_json_parse((const char *)data, size, &dups, &a, &err) < 0) {
        TH_ASSERT(err.msg && !a);
        return 0;
    }
    th_autofree char *one = th_json_to_string(a);
    TH_ASSERT(th_json_parse(one, strlen(one), NULL, &b, NULL) == 0);
    TH_ASSERT(th_json_equal(a, b));
    th_autofree char *two = th_json_to_string(b);
    TH_AUTO(th_json) struct th_json *c = NULL;
    TH_ASSERT(th_json_parse(two, strlen(two), NULL, &c, NULL) == 0);
    th_autofree char *three = th_json_to_string(c);
    TH_ASSERT(strcmp(two, three) == 0);
    return 0;
}
