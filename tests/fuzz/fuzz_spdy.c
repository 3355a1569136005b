/* links: thimble_node thimble_base */
/* Any bytes, cut anywhere, are read without a fault, and the same frames come out of them. */
#include "vm/node/spdy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t read_in(const uint8_t *data, size_t size, size_t step, int *ret_end)
{
    struct spdy s;
    struct spdy_frame f;
    uint64_t sum = 0;
    spdy_init(&s);
    int r = 0;
    for (size_t i = 0; i < size && r >= 0; i += step) {
        spdy_feed(&s, data + i, size - i < step ? size - i : step);
        while ((r = spdy_next(&s, &f, NULL)) > 0) {
            for (size_t k = 0; k < f.headers.n; k++) {
                sum = sum * 31 + strlen(f.headers.v[k]);
            }
            (void)spdy_header(&f, "streamtype");
            for (size_t k = 0; k < f.n; k++) {
                sum = sum * 31 + (unsigned char)f.p[k];
            }
            sum = f.kind == SPDY_DATA ? sum : sum * 31 + (uint64_t)f.kind + f.stream;
            spdy_frame_done(&f);
        }
    }
    *ret_end = r;
    spdy_done(&s);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int a = 0, b = 0;
    uint64_t whole = read_in(data, size, size ? size : 1, &a);
    uint64_t cut = read_in(data, size, 7, &b);
    TH_ASSERT((a < 0) == (b < 0));
    TH_ASSERT(whole == cut);
    return 0;
}
