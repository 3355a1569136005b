/* `thimbled init --host`, the supervisor of the host driver: not there yet. It says so. */
#include "vm/guest/guest.h"

int th_hostmode_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    (void)fprintf(stderr, "thimbled init --host: the host driver is not supported by this build\n");
    return 1;
}
