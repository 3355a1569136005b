/* What of a node is taken: host ports that clash, amounts of resources that are the same. */
#include "vm/node/agent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void host_ports_clash_by_protocol_and_address(void **state)
{
    (void)state;
    const char *local = "TCP 127.0.0.1 80\nUDP 127.0.0.1 53\n";
    assert_true(room_ports_clash(local, "TCP 127.0.0.1 80\n"));
    assert_true(room_ports_clash(local, "TCP 10.0.0.1 81\nUDP 0.0.0.0 53\n"));
    assert_true(room_ports_clash("TCP 0.0.0.0 80\n", local));
    assert_false(room_ports_clash(local, "UDP 127.0.0.1 80\n"));
    assert_false(room_ports_clash(local, "TCP 10.0.0.1 80\n"));
    assert_false(room_ports_clash(local, "TCP 127.0.0.1 8\n"));
    assert_false(room_ports_clash(local, ""));
    assert_false(room_ports_clash(NULL, NULL));
}

static bool same(const char *a, const char *b)
{
    TH_AUTO(th_json) struct th_json *x = th_json_build(a);
    TH_AUTO(th_json) struct th_json *y = th_json_build(b);
    return resources_same(x, y);
}

static void amounts_are_the_same_however_written(void **state)
{
    (void)state;
    assert_true(same("{'requests':{'cpu':'1','memory':'1Gi'}}", "{'requests':{'cpu':'1000m','memory':'1024Mi'}}"));
    assert_true(same("{}", "{'limits':{'cpu':'0'}}"));
    assert_true(same("{'limits':{'ephemeral-storage':'1Gi'}}", "{}")); /* only these two can be resized */
    assert_false(same("{'requests':{'cpu':'1'}}", "{'requests':{'cpu':'1001m'}}"));
    assert_false(same("{'requests':{'cpu':'1'}}", "{'limits':{'cpu':'1'}}"));
    assert_false(same("{'limits':{'memory':'64Mi'}}", "{}"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(host_ports_clash_by_protocol_and_address),
        cmocka_unit_test(amounts_are_the_same_however_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
