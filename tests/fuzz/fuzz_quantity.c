/* links: thimble_schema thimble_base */
/* The canonical text means the same amount and is its own canonical text. */
#include "controlplane/schema/quantity.h"
#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    th_autofree char *s = th_xstrndup((const char *)data, size);
    struct th_quantity a, b;
    if (th_quantity_parse(s, &a, NULL) < 0) {
        return 0;
    }
    char one[TH_QUANTITY_LEN], two[TH_QUANTITY_LEN], normal[TH_QUANTITY_LEN];
    (void)th_quantity_format(a, one);
    TH_ASSERT(th_quantity_parse(one, &b, NULL) == 0);
    TH_ASSERT(th_quantity_cmp(a, b) == 0);
    TH_ASSERT(strcmp(one, th_quantity_format(b, two)) == 0);
    TH_ASSERT(th_quantity_normalize(s, normal, NULL) == 0);
    TH_ASSERT(th_quantity_parse(normal, &b, NULL) == 0 && th_quantity_cmp(a, b) == 0);
    (void)th_quantity_milli(a);
    (void)th_quantity_value(th_quantity_sub(a, b));
    return 0;
}
