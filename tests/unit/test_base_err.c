/* base/err: reasons, messages, wrapping and causes. */
#include "base/err.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void fail_sets_reason_and_message_and_returns_the_code(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_fail(&err, TH_R_NOT_FOUND, "pods \"%s\" not found", "web"),
                     -TH_R_NOT_FOUND);
    assert_int_equal(err.reason, TH_R_NOT_FOUND);
    assert_string_equal(err.msg, "pods \"web\" not found");
    assert_int_equal(err.sys_errno, 0);
}

static void fail_without_err_still_returns_the_code(void **state)
{
    (void)state;
    assert_int_equal(th_fail(NULL, TH_R_CONFLICT, "x"), -TH_R_CONFLICT);
    assert_int_equal(th_fail_errno(NULL, ENOSPC, TH_R_IO, "x"), -TH_R_NO_SPACE);
    th_err_add_cause(NULL, "r", "f", "m");
    th_err_done(NULL);
    assert_true(th_wrap(NULL, "x") < 0);
}

static void fail_may_quote_the_message_it_replaces(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)th_fail(&err, TH_R_IO, "inner");
    (void)th_fail(&err, TH_R_BOOT_FAILED, "outer (%s)", err.msg);
    assert_string_equal(err.msg, "outer (inner)");
    assert_int_equal(err.reason, TH_R_BOOT_FAILED);
}

static void errno_decides_space_and_permission(void **state)
{
    (void)state;
    static const struct {
        int e;
        enum th_reason given, expected;
    } cases[] = {
        {ENOSPC, TH_R_IO, TH_R_NO_SPACE},
        {EDQUOT, TH_R_IO, TH_R_NO_SPACE},
        {EACCES, TH_R_IO, TH_R_NO_PERMISSION},
        {EPERM, TH_R_IO, TH_R_NO_PERMISSION},
        {EIO, TH_R_IO, TH_R_IO},
        {ENOSPC, TH_R_STATE_CORRUPT, TH_R_STATE_CORRUPT},
        {EACCES, TH_R_NO_QEMU, TH_R_NO_QEMU},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        int r = th_fail_errno(&err, cases[i].e, cases[i].given, "opening %d", 7);
        assert_int_equal(r, -(int)cases[i].expected);
        assert_int_equal(err.sys_errno, cases[i].e);
        assert_non_null(strstr(err.msg, "opening 7: "));
        assert_non_null(strstr(err.msg, strerror(cases[i].e)));
    }
}

static void wrap_puts_context_in_front_and_keeps_the_rest(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)th_fail_errno(&err, ENOENT, TH_R_NOT_FOUND, "file");
    assert_int_equal(th_hint(&err, "create it"), -TH_R_NOT_FOUND);
    assert_int_equal(th_wrap(&err, "while reading %s", "x"), -TH_R_NOT_FOUND);
    assert_string_equal(err.msg, "while reading x: file: No such file or directory");
    assert_string_equal(err.hint, "create it");
    assert_int_equal(th_reason_from_code("no-image", TH_R_INTERNAL), TH_R_NO_IMAGE);
    assert_int_equal(th_reason_from_code("nonsense", TH_R_IO), TH_R_IO);
    assert_int_equal(th_reason_from_code(NULL, TH_R_IO), TH_R_IO);
    (void)th_fail(NULL, TH_R_NOT_FOUND, "nobody hears this"); /* the code goes on all the same */
    assert_int_equal(th_wrap(NULL, "in front"), -TH_R_NOT_FOUND);
    assert_int_equal(th_hint(NULL, "create it"), -TH_R_NOT_FOUND);
    assert_int_equal(err.sys_errno, ENOENT);
}

static void causes_gathered_before_the_failure_are_kept(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    for (int i = 0; i < 9; i++) {
        char field[64];
        (void)snprintf(field, sizeof(field), "spec.containers[%d].image", i);
        th_err_add_cause(&err, "FieldValueRequired", field, "Required value (%d)", i);
    }
    assert_int_equal(err.reason, TH_R_OK);
    (void)th_fail(&err, TH_R_INVALID, "invalid");
    assert_int_equal(err.n_causes, 9);
    assert_string_equal(err.causes[8].field, "spec.containers[8].image");
    assert_string_equal(err.causes[8].msg, "Required value (8)");
    assert_string_equal(err.causes[0].reason, "FieldValueRequired");
}

static void a_second_failure_drops_what_belonged_to_the_first(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    (void)th_fail(&err, TH_R_INVALID, "first");
    th_err_add_cause(&err, "FieldValueInvalid", "a", "b");
    (void)th_hint(&err, "hint");
    err.kind = strdup("Pod");
    (void)th_fail(&err, TH_R_TIMEOUT, "second");
    assert_int_equal(err.n_causes, 0);
    assert_null(err.causes);
    assert_null(err.hint);
    assert_null(err.kind);
}

static void move_leaves_the_source_clean(void **state)
{
    (void)state;
    TH_AUTO_ERR struct th_err a = TH_ERR_INIT;
    TH_AUTO_ERR struct th_err b = TH_ERR_INIT;
    (void)th_fail(&a, TH_R_GONE, "old");
    (void)th_fail(&b, TH_R_EXPIRED, "new");
    th_err_move(&a, &b);
    assert_int_equal(a.reason, TH_R_EXPIRED);
    assert_string_equal(a.msg, "new");
    assert_int_equal(b.reason, TH_R_OK);
    assert_null(b.msg);
}

static void every_reason_has_a_full_row(void **state)
{
    (void)state;
    for (int i = 1; i < TH_R_COUNT_; i++) {
        enum th_reason r = (enum th_reason)i;
        assert_true(strlen(th_reason_code(r)) > 0);
        assert_true(th_reason_http(r) >= 400 && th_reason_http(r) < 600);
        assert_true(th_reason_exit(r) >= 1 && th_reason_exit(r) <= 7);
        for (int j = 1; j < i; j++) {
            assert_string_not_equal(th_reason_code(r), th_reason_code((enum th_reason)j));
        }
    }
}

static void status_reasons_map_back(void **state)
{
    (void)state;
    static const struct {
        const char *status;
        int http;
        enum th_reason expected;
    } cases[] = {
        {"NotFound", 404, TH_R_NOT_FOUND},
        {"Conflict", 409, TH_R_CONFLICT},
        {"AlreadyExists", 409, TH_R_ALREADY_EXISTS},
        {"Expired", 410, TH_R_EXPIRED},
        {"Gone", 410, TH_R_GONE},
        {"InternalError", 500, TH_R_INTERNAL},
        {"Invalid", 422, TH_R_INVALID},
        {NULL, 403, TH_R_FORBIDDEN},
        {"", 429, TH_R_TOO_MANY_REQUESTS},
        {"SomethingNew", 503, TH_R_UNAVAILABLE},
        {"SomethingNew", 418, TH_R_INTERNAL},
    };
    for (size_t i = 0; i < TH_ARRAY_LEN(cases); i++) {
        assert_int_equal(th_reason_from_status(cases[i].status, cases[i].http), cases[i].expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_sets_reason_and_message_and_returns_the_code),
        cmocka_unit_test(fail_without_err_still_returns_the_code),
        cmocka_unit_test(fail_may_quote_the_message_it_replaces),
        cmocka_unit_test(errno_decides_space_and_permission),
        cmocka_unit_test(wrap_puts_context_in_front_and_keeps_the_rest),
        cmocka_unit_test(causes_gathered_before_the_failure_are_kept),
        cmocka_unit_test(a_second_failure_drops_what_belonged_to_the_first),
        cmocka_unit_test(move_leaves_the_source_clean),
        cmocka_unit_test(every_reason_has_a_full_row),
        cmocka_unit_test(status_reasons_map_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
