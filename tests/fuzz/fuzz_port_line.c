/* links: thimble_launcher thimble_base */
/* What the cluster asks the host for: a line that is taken names a loopback address and ports in
 * range, and means the same when it is written and read again. */
#include "base/json/json.h"
#include "vm/launcher/ports.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    TH_AUTO(th_json) struct th_json *req = NULL, *again = NULL;
    struct th_machine_port a, b;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    if (th_json_parse((const char *)data, size, NULL, &req, &err) < 0 || th_port_from_json(req, &a, &err) < 0 ||
        th_port_check(&a, &err) < 0) {
        return 0;
    }
    TH_ASSERT(th_port_is_loopback(a.host_ip));
    TH_ASSERT(a.guest_port > 0 && a.guest_port < 65536 && a.host_port >= 0 && a.host_port < 65536);
    again = th_port_to_json(&a);
    TH_ASSERT(th_port_from_json(again, &b, NULL) == 0);
    TH_ASSERT(th_streq(a.host_ip, b.host_ip) && th_streq(a.guest_ip, b.guest_ip) && th_streq(a.proto, b.proto));
    TH_ASSERT(a.host_port == b.host_port && a.guest_port == b.guest_port);
    return 0;
}
