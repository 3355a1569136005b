/* links: thimble_images thimble_base */
/* Parsing, and expanding every word of what was parsed. */
#include "images/dockerfile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *lookup(void *arg, const char *name, size_t n)
{
    (void)arg;
    return n == 1 && name[0] == 'x' ? "some.value/x" : NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_dockerfile) struct th_dockerfile *d = NULL;
    if (th_dockerfile_parse("Dockerfile", (const char *)data, size, &d, NULL) < 0) {
        return 0;
    }
    for (size_t i = 0; i < d->n_stages; i++) {
        for (size_t k = 0; k < d->stages[i]->n_insts; k++) {
            const struct th_df_inst *in = d->stages[i]->insts[k];
            for (size_t a = 0; a < in->args.n; a++) {
                th_autobuf struct th_buf b = TH_BUF_INIT;
                th_autostrv struct th_strv w = TH_STRV_INIT;
                (void)!th_df_expand(in->args.v[a], d->escape, lookup, NULL, &b, NULL);
                (void)!th_df_expand_words(in->args.v[a], d->escape, lookup, NULL, &w, NULL);
            }
        }
    }
    return 0;
}
