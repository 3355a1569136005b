/* thimbled: one ELF for everything that runs inside the machine. The first word chooses the part;
 * started as PID 1 without a word (the small kernel's init=) it is init. */
#include "base/buf.h"
#include "base/log.h"
#include "controlplane/controlplane.h"
#include "vm/guest/guest.h"
#include "vm/node/node.h"
#include <malloc.h>
#include <sys/prctl.h>

#define ARENAS_MAX 4

static int version_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    (void)printf("thimbled %s\n", TH_VERSION);
    return 0;
}

static const struct {
    const char *name;
    th_part_fn *run;
    const char *help;
} parts[] = {
    {"init", th_init_main, "PID 1 of the guest; --host: supervisor of the host driver"},
#ifdef TH_WITH_CONTROLPLANE
    {"controlplane", th_controlplane_main, "API server, controllers and scheduler"},
#endif
#ifdef TH_WITH_NODE
    {"node", th_node_main, "node agent"},
#endif
    {"version", version_main, "prints the version"},
};

static th_part_fn *find_part(const char *name)
{
    for (size_t i = 0; i < TH_ARRAY_LEN(parts); i++) {
        if (th_streq(name, parts[i].name)) {
            return parts[i].run;
        }
    }
    return NULL;
}

/* Some fifty threads mostly sleep. An allocator arena for each, and a huge page below each arena and
 * stack, would cost more memory than all objects of a small cluster. */
static void frugal(void)
{
    (void)mallopt(M_ARENA_MAX, ARENAS_MAX);
    (void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

int main(int argc, char **argv)
{
    th_log_configure(NULL);
    const char *word = argc > 1 ? argv[1] : "";
    if (getpid() == 1 && !th_streq(word, "version")) {
        word = "init";
    }
    th_supervise_parts(find_part, argc, argv);
    frugal();
    th_part_fn *run = find_part(word);
    if (run) {
        return run(argc > 1 ? argc - 1 : argc, argc > 1 ? argv + 1 : argv);
    }
    (void)fprintf(stderr, "usage: thimbled <part> [options]\n");
    for (size_t i = 0; i < TH_ARRAY_LEN(parts); i++) {
        (void)fprintf(stderr, "  %-14s %s\n", parts[i].name, parts[i].help);
    }
    return 2;
}
