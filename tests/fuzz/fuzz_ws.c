/* links: thimble_node thimble_base */
/* WebSocket frames: any bytes, cut anywhere, are read without a fault, and the same messages come out. */
#include "vm/node/ws.h"

#include <fcntl.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t read_in(const uint8_t *data, size_t size, size_t step, int *ret_end)
{
    static int null_fd = -1; /* answers to pings go nowhere */
    if (null_fd < 0) {
        null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    }
    struct ws w;
    uint64_t sum = 0;
    int r = 0;
    ws_init(&w, null_fd, NULL, 0);
    for (size_t i = 0; i < size && r >= 0; i += step) {
        th_buf_add(&w.in, data + i, size - i < step ? size - i : step);
        do {
            th_autobuf struct th_buf msg = TH_BUF_INIT;
            int op = 0;
            r = ws_next(&w, &op, &msg);
            for (size_t k = 0; r > 0 && k < msg.n; k++) {
                sum = sum * 31 + (unsigned char)msg.p[k];
            }
            sum = r > 0 ? sum * 31 + (uint64_t)op : sum;
        } while (r > 0);
    }
    *ret_end = r;
    ws_done(&w);
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int a = 0, b = 0;
    uint64_t whole = read_in(data, size, size ? size : 1, &a);
    uint64_t cut = read_in(data, size, 5, &b);
    TH_ASSERT((a < 0) == (b < 0));
    TH_ASSERT(whole == cut);
    return 0;
}
