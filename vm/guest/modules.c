/* Kernel modules, for kernels that have any. build.py has resolved their dependencies and written
 * the order down, so there is no depmod, no modprobe and no search at boot: each line of
 * usr/lib/modules/order is "stage name". A module that does not load is logged and left out; what
 * needs it will fail with its own message. */
#include "base/io.h"
#include "base/log.h"
#include "vm/guest/guest.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#define MODULE_DIR "/usr/lib/modules"

static void load(const char *name)
{
    th_autofree char *path = th_path_joinf(MODULE_DIR, "%s.ko", name);
    th_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)) {
        th_warn("init", "module not loaded", "name=%s errno=%d", name, errno);
    }
}

void th_guest_load_modules(const char *stage)
{
    th_autobuf struct th_buf order = TH_BUF_INIT;
    if (!th_io_is_dir("/sys/module") || !th_io_exists("/proc/modules") ||
        th_io_read_file(MODULE_DIR "/order", 65536, &order, NULL) < 0) {
        return;
    }
    th_autostrv struct th_strv lines = TH_STRV_INIT;
    th_strv_split(&lines, th_buf_cstr(&order), '\n');
    for (size_t i = 0; i < lines.n; i++) {
        char *space = strchr(lines.v[i], ' ');
        if (space) {
            *space = '\0';
            if (th_streq(lines.v[i], stage)) {
                load(space + 1);
            }
        }
    }
}
