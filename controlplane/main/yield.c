/* Controllers that start give way to requests (--workers-yield).
 *
 * Some forty threads read everything there is when the control plane starts, a third of all its work then.
 * On one slow processor, whoever asks for the node's state meanwhile waits for a share of it. Nothing that
 * the controllers do is urgent for some moments after a start, so their threads are made with the lowest
 * priority, and get the common one a little later. They run at once where the processor is idle.
 *
 * Only a thread with the right to do so may raise its priority again; that is tried out first. It is the
 * machine's to ask for: on a host that is busy with other things, the lowest priority is none. */
#include "controlplane/main/yield.h"

#include "base/buf.h"
#include "base/io.h"

#include <sys/resource.h>

#define LOWEST 19

bool th_yield_begin(void)
{
    if (setpriority(PRIO_PROCESS, 0, 1) < 0 || setpriority(PRIO_PROCESS, 0, 0) < 0) {
        return false;
    }
    return setpriority(PRIO_PROCESS, 0, LOWEST) == 0;
}

void th_yield_end(void)
{
    th_autostrv struct th_strv tids = TH_STRV_INIT;
    if (th_io_list("/proc/self/task", &tids, NULL) < 0) {
        return;
    }
    for (size_t i = 0; i < tids.n; i++) {
        /* Of threads that have ended meanwhile there is nothing to say. */
        (void)setpriority(PRIO_PROCESS, (id_t)strtoul(tids.v[i], NULL, 10), 0);
    }
}
