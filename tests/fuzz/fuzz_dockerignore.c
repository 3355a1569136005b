/* links: thimble_images thimble_base */
/* First line: a path; the rest: patterns. */
#include "images/dockerignore.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nl = size ? memchr(data, '\n', size) : NULL;
    if (!nl || nl - data > 4096) {
        return 0;
    }
    th_autofree char *path = th_xstrndup((const char *)data, (size_t)(nl - data));
    TH_AUTO(th_ignore) struct th_ignore *ig = NULL;
    const char *rules = (const char *)nl + 1;
    if (th_ignore_parse(rules, size - (size_t)(rules - (const char *)data), &ig, NULL) == 0) {
        (void)th_ignore_match(ig, path);
        (void)th_ignore_must_descend(ig, path);
    }
    return 0;
}
