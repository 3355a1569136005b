/* links: thimble_schema thimble_base */
/* What parses prints to text that parses to the same text. */
#include "controlplane/schema/selector.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    th_autofree char *s = th_xstrndup((const char *)data, size);
    TH_AUTO(th_selector) struct th_selector *a = NULL, *b = NULL;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_selector_parse(s, &a, &err) == 0) {
        th_autofree char *one = th_selector_format(a);
        TH_ASSERT(th_selector_parse(one, &b, NULL) == 0);
        th_autofree char *two = th_selector_format(b);
        TH_ASSERT(strcmp(one, two) == 0);
        TH_ASSERT(!th_selector_is_nothing(a));
        (void)th_selector_matches(a, NULL);
    }
    struct th_fieldsel f, g;
    if (th_fieldsel_parse(s, &f, NULL) == 0) {
        th_autofree char *one = th_fieldsel_format(&f);
        TH_ASSERT(th_fieldsel_parse(one, &g, NULL) == 0);
        TH_ASSERT(f.n == g.n);
        th_fieldsel_done(&f);
        th_fieldsel_done(&g);
    }
    return 0;
}
