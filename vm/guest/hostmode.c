#include "base/log.h"
#include "vm/guest/guest.h"
int th_hostmode_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    return 2;
}
