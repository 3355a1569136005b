/* The frequency of the host's time stamp counter.
 *
 * Under TCG a guest reads the host's counter. The kernel finds its frequency by counting against
 * another clock of the machine; when the host takes the processor away in between, the result is wrong
 * by any factor, and so is the guest's clock from then on. The host has a clock that knows such pauses:
 * it counts both and tells the guest (domain.c).
 *
 * A sample is a reading of the clock between two of the counter; of several the narrowest is taken.
 * Two of them SPAN_NS apart are right within some ten parts in a million. */
#include "base/buf.h"
#include "base/io.h"
#include "vm/launcher/accel.h"
#include <time.h>

#if defined(__x86_64__)
#include <x86intrin.h>
#define SPAN_NS 20000000
#define TRIES 16

struct sample {
    uint64_t ticks, width;
    int64_t ns;
};

static struct sample sample(void)
{
    struct sample best = {.width = UINT64_MAX};
    for (int i = 0; i < TRIES; i++) {
        struct timespec ts;
        uint64_t before = __rdtsc();
        (void)clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
        uint64_t after = __rdtsc();
        if (after - before < best.width) {
            best = (struct sample){.ticks = before + (after - before) / 2,
                                   .width = after - before,
                                   .ns = ts.tv_sec * 1000000000ll + ts.tv_nsec};
        }
    }
    return best;
}

bool th_tsc_is_even(void)
{
    th_autobuf struct th_buf cpu = TH_BUF_INIT;
    return th_io_read_file("/proc/cpuinfo", 16u << 20, &cpu, NULL) == 0 &&
           strstr(th_buf_cstr(&cpu), " constant_tsc ") && strstr(th_buf_cstr(&cpu), " nonstop_tsc ");
}

int64_t th_tsc_khz(void)
{
    if (!th_tsc_is_even()) {
        return 0;
    }
    struct sample a = sample();
    const struct timespec span = {.tv_nsec = SPAN_NS};
    (void)nanosleep(&span, NULL);
    struct sample b = sample();
    return b.ns > a.ns && b.ticks > a.ticks
               ? (int64_t)((double)(b.ticks - a.ticks) * 1e6 / (double)(b.ns - a.ns) + 0.5)
               : 0;
}
#else
bool th_tsc_is_even(void)
{
    return false;
}

int64_t th_tsc_khz(void)
{
    return 0;
}
#endif
