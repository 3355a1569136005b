/* links: thimble_images thimble_base */
/* What parses prints as something that parses to the same. */
#include "images/reference.h"
#include "base/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    th_autofree char *s = th_xstrndup((const char *)data, size);
    TH_AUTO_REF struct th_ref r = {0};
    if (th_ref_parse(s, &r, NULL) == 0) {
        th_autofree char *full = th_ref_string(&r), *familiar = th_ref_familiar(&r);
        th_autofree char *again = NULL, *from_familiar = NULL;
        TH_ASSERT(th_ref_normalize(full, &again, NULL) == 0 && th_streq(full, again));
        TH_ASSERT(th_ref_normalize(familiar, &from_familiar, NULL) == 0);
        TH_ASSERT(th_streq(full, from_familiar));
    }
    return 0;
}
