/* The two messages of grpc.health.v1 that gRPC probes write and read. */
#include "vm/node/agent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

static void a_request_is_a_frame_with_the_services_name(void **state)
{
    (void)state;
    th_autobuf struct th_buf b = TH_BUF_INIT;
    grpc_health_request("", &b);
    assert_int_equal(b.n, 5);
    assert_memory_equal(b.p, "\0\0\0\0\0", 5);
    th_buf_clear(&b);
    grpc_health_request("abc", &b);
    assert_int_equal(b.n, 10);
    assert_memory_equal(b.p, "\0\0\0\0\5\x0a\3abc", 10);
    char name[201];
    memset(name, 'n', 200);
    name[200] = 0;
    th_buf_clear(&b);
    grpc_health_request(name, &b);
    assert_int_equal(b.n, 5 + 3 + 200);
    assert_memory_equal(b.p, "\0\0\0\0\xcb\x0a\xc8\x01n", 9);
}

static void an_answers_status_is_read(void **state)
{
    (void)state;
    assert_int_equal(grpc_health_status("\0\0\0\0\2\x08\1", 7), 1);
    assert_int_equal(grpc_health_status("\0\0\0\0\2\x08\2", 7), 2);
    assert_int_equal(grpc_health_status("\0\0\0\0\0", 5), 0);
}

static void what_is_not_an_answer_is_refused(void **state)
{
    (void)state;
    assert_int_equal(grpc_health_status("", 0), -1);
    assert_int_equal(grpc_health_status("\0\0\0\0\2\x08", 6), -1);
    assert_int_equal(grpc_health_status("\1\0\0\0\2\x08\1", 7), -1);
    assert_int_equal(grpc_health_status("\0\0\0\0\2\x10\1", 7), -1);
    assert_int_equal(grpc_health_status("\0\xff\xff\xff\xff\x08\1", 7), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_is_a_frame_with_the_services_name),
        cmocka_unit_test(an_answers_status_is_read),
        cmocka_unit_test(what_is_not_an_answer_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
