/* thimbled: one ELF for everything that runs inside the machine. The first word chooses the part;
 * started as PID 1 without a word (the small kernel's init=) it is init. */
#include "base/buf.h"
#include "base/log.h"
#include "controlplane/controlplane.h"
#include "vm/guest/guest.h"
#include "vm/node/node.h"

static int version_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    (void)printf("thimbled %s\n", TH_VERSION);
    return 0;
}

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
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

int main(int argc, char **argv)
{
    th_log_configure(NULL);
    const char *word = argc > 1 ? argv[1] : "";
    if (getpid() == 1 && !th_streq(word, "version")) {
        word = "init";
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(parts); i++) {
        if (strcmp(word, parts[i].name) == 0) {
            return parts[i].run(argc > 1 ? argc - 1 : argc, argc > 1 ? argv + 1 : argv);
        }
    }
    (void)fprintf(stderr, "usage: thimbled <part> [options]\n");
    for (size_t i = 0; i < TH_ARRAY_LEN(parts); i++) {
        (void)fprintf(stderr, "  %-14s %s\n", parts[i].name, parts[i].help);
    }
    return 2;
}
