#include "vm/launcher/driver.h"
#include "vm/launcher/protocol.h"
static int host_check(struct th_err *err)
{
    return th_fail(err, TH_R_UNSUPPORTED, "the host driver");
}
const struct th_driver th_driver_host = {.name = "host", .check = host_check};
