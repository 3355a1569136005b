/* How fast an autoscaler goes: stabilization windows, rate policies, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "controlplane/controllers/hpa_priv.h"

#define MINUTE 60000

static struct th_json *rules(const char *text)
{
    struct th_json *o = NULL;
    assert_int_equal(th_json_parse_cstr(text, &o, NULL), 0);
    return o;
}

static void without_rules_pods_double_and_go_after_five_minutes(void **state)
{
    (void)state;
    struct th_hpa_memory *m = TH_NEW(struct th_hpa_memory);
    th_hpa_first(m, 3, 0);
    struct th_hpa_verdict v = th_hpa_hold_back(m, NULL, 3, 9, 1, 10, 0);
    assert_int_equal(v.replicas, 6);
    assert_true(v.limited);
    assert_string_equal(v.limit_reason, "ScaleUpLimit");
    v = th_hpa_hold_back(m, NULL, 6, 20, 1, 10, MINUTE);
    assert_int_equal(v.replicas, 10);
    assert_string_equal(v.limit_reason, "TooManyReplicas");
    v = th_hpa_hold_back(m, NULL, 10, 2, 1, 10, 2 * MINUTE);
    assert_int_equal(v.replicas, 10);
    assert_string_equal(v.able_reason, "ScaleDownStabilized");
    v = th_hpa_hold_back(m, NULL, 10, 2, 1, 10, 6 * MINUTE + 1);
    assert_int_equal(v.replicas, 2);
    assert_string_equal(v.able_reason, "ReadyForNewScale");
    assert_string_equal(v.limit_reason, "DesiredWithinRange");
    th_hpa_memory_free(m);
}

static void policies_count_what_was_scaled_in_their_period(void **state)
{
    (void)state;
    struct th_json *b TH_AUTO(th_json) =
        rules("{\"scaleUp\":{\"stabilizationWindowSeconds\":0,\"selectPolicy\":\"Max\",\"policies\":["
              "{\"type\":\"Pods\",\"value\":2,\"periodSeconds\":60},"
              "{\"type\":\"Percent\",\"value\":10,\"periodSeconds\":60}]},"
              "\"scaleDown\":{\"stabilizationWindowSeconds\":0,\"selectPolicy\":\"Min\",\"policies\":["
              "{\"type\":\"Pods\",\"value\":4,\"periodSeconds\":60},"
              "{\"type\":\"Percent\",\"value\":10,\"periodSeconds\":60}]}}");
    struct th_hpa_memory *m = TH_NEW(struct th_hpa_memory);
    th_hpa_first(m, 10, 0);
    struct th_hpa_verdict v = th_hpa_hold_back(m, b, 10, 50, 1, 100, 0);
    assert_int_equal(v.replicas, 12);
    th_hpa_scaled(m, b, 10, 12, 0);
    v = th_hpa_hold_back(m, b, 12, 50, 1, 100, MINUTE / 2); /* both are used up */
    assert_int_equal(v.replicas, 12);
    assert_string_equal(v.limit_reason, "ScaleUpLimit");
    v = th_hpa_hold_back(m, b, 12, 50, 1, 100, MINUTE);
    assert_int_equal(v.replicas, 14);
    v = th_hpa_hold_back(m, b, 20, 1, 1, 100, 10 * MINUTE); /* the policy that takes least */
    assert_int_equal(v.replicas, 18);
    assert_string_equal(v.limit_reason, "ScaleDownLimit");
    th_hpa_memory_free(m);
}

static void a_disabled_direction_stays(void **state)
{
    (void)state;
    struct th_json *b TH_AUTO(th_json) =
        rules("{\"scaleUp\":{\"stabilizationWindowSeconds\":60,\"policies\":["
              "{\"type\":\"Percent\",\"value\":1000,\"periodSeconds\":60}]},"
              "\"scaleDown\":{\"stabilizationWindowSeconds\":0,\"selectPolicy\":\"Disabled\"}}");
    struct th_hpa_memory *m = TH_NEW(struct th_hpa_memory);
    th_hpa_first(m, 5, 0);
    assert_int_equal(th_hpa_hold_back(m, b, 5, 1, 1, 9, 1).replicas, 5);
    struct th_hpa_verdict v = th_hpa_hold_back(m, b, 5, 8, 1, 9, 2); /* five was said just now */
    assert_int_equal(v.replicas, 5);
    assert_string_equal(v.able_reason, "ScaleUpStabilized");
    assert_int_equal(th_hpa_hold_back(m, b, 5, 8, 1, 9, MINUTE + 3).replicas, 8);
    th_hpa_memory_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_rules_pods_double_and_go_after_five_minutes),
        cmocka_unit_test(policies_count_what_was_scaled_in_their_period),
        cmocka_unit_test(a_disabled_direction_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
