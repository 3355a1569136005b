/* The launcher's pure parts: names, ports, domain XML (golden), profiles on disk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/io.h"
#include "vm/launcher/accel.h"
#include "vm/launcher/domain.h"
#include "vm/launcher/ports.h"

static void profile_names_are_checked(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "default", "a-1", "0"};
    static const char *const bad[] = {"", "-a", "a-", "A", "a/b", "..", "a_b",
                                      "123456789012345678901234567890123"};
    for (size_t i = 0; i < TH_ARRAY_LEN(good); i++) {
        assert_int_equal(th_profile_check_name(good[i], NULL), 0);
    }
    for (size_t i = 0; i < TH_ARRAY_LEN(bad); i++) {
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        assert_int_equal(th_profile_check_name(bad[i], &err), -TH_R_USAGE);
        assert_non_null(err.hint);
    }
}

static void only_loopback_addresses_are_accepted(void **state)
{
    (void)state;
    assert_true(th_port_is_loopback("127.96.0.7"));
    assert_false(th_port_is_loopback("0.0.0.0"));
    assert_false(th_port_is_loopback("10.0.0.1"));
    assert_false(th_port_is_loopback("127.1"));
    struct th_machine_port p = {.guest_port = 80};
    assert_int_equal(th_port_check(&p, NULL), 0);
    assert_string_equal(p.host_ip, "127.0.0.1");
    assert_string_equal(p.proto, "tcp");
    p.guest_port = 0;
    assert_int_equal(th_port_check(&p, NULL), -TH_R_BAD_REQUEST);
}

static void the_port_agent_refuses_nonsense(void **state)
{
    (void)state;
    static const char *const lines[] = {"", "x", "{}", "[]", "{\"op\":\"fly\"}",
                                        "{\"op\":\"forward\",\"host_port\":70000}",
                                        "{\"op\":\"forward\",\"host_ip\":\"10.0.0.1\",\"guest_port\":1}"};
    struct th_profile p = {.name = (char *)"x", .lock_fd = -1};
    for (size_t i = 0; i < TH_ARRAY_LEN(lines); i++) {
        TH_AUTO(th_json) struct th_json *a = th_port_agent_answer(&p, lines[i], strlen(lines[i]));
        assert_true(th_json_has(a, "ok"));
        assert_false(th_json_path_bool(a, "ok", true));
        assert_non_null(th_json_path_str(a, "reason"));
    }
}

static void domain_xml_matches_the_golden_files(void **state)
{
    (void)state;
    struct th_profile p = {.name = (char *)"gold", .data = (char *)"/d, d/thimble/gold",
                           .state = (char *)"/s/thimble/gold", .cache = (char *)"/c/thimble",
                           .uuid = (char *)"01234567-89ab-4cde-8f01-23456789abcd",
                           .memory_mb = 1024, .lock_fd = -1};
    const struct th_machine_port ports[] = {
        {.host_ip = "127.0.0.1", .host_port = 6443, .guest_port = 6443, .proto = "tcp"},
        {.host_ip = "127.0.0.2", .host_port = 53, .guest_port = 53, .proto = "udp"}};
    struct th_machine_spec s = {.profile = &p, .accel = "tcg", .cpus = 1, .kernel = "/k&k",
                                .initramfs = "/i", .rootfs = "/r", .disk = "/d/disk.qcow2",
                                .control = "/s/control.sock", .qmp = "/s/q,mp.sock",
                                .console = "/s/console.log", .program = "/usr/bin/thi mble",
                                .ports = ports, .n_ports = 2, .tsc_khz = 2300000};
    static const char *const names[] = {"tcg-debian", "kvm-small", "tcg-incoming"};
    for (size_t i = 0; i < TH_ARRAY_LEN(names); i++) {
        if (i == 1) {
            s.accel = "kvm";
            s.tsc_khz = 0;
            s.initramfs = NULL;
            s.cpus = 4;
        }
        if (i == 2) {
            s.accel = "tcg";
            s.tsc_khz = 2300000;
            s.incoming = true;
        }
        th_autobuf struct th_buf got = TH_BUF_INIT, want = TH_BUF_INIT;
        th_domain_xml(&s, "/usr/bin/qemu-system-x86_64", &got);
        th_autofree char *path = th_xasprintf("%s/tests/golden/domain/%s.xml",
                                              getenv("TH_SOURCE_DIR"), names[i]);
        if (getenv("TH_REGENERATE")) {
            assert_int_equal(th_io_write_file(path, got.p, got.n, 0644, NULL), 0);
        }
        assert_int_equal(th_io_read_file(path, 1 << 20, &want, NULL), 0);
        assert_string_equal(th_buf_cstr(&got), th_buf_cstr(&want));
    }
}

static void a_profile_round_trips_and_damage_is_noticed(void **state)
{
    (void)state;
    char dir[] = "/tmp/th-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    (void)setenv("XDG_DATA_HOME", dir, 1);
    (void)setenv("XDG_STATE_HOME", dir, 1);
    (void)setenv("XDG_CACHE_HOME", dir, 1);
    TH_AUTO_PROFILE struct th_profile p = {.lock_fd = -1}, q = {.lock_fd = -1};
    assert_int_equal(th_profile_paths("one", &p, NULL), 0);
    assert_int_equal(th_profile_load(&p, NULL), -TH_R_NOT_FOUND);
    assert_int_equal(th_profile_lock(&p, NULL), 0);
    p.driver = th_xstrdup("libvirt");
    assert_int_equal(th_profile_create(&p, NULL), 0);
    assert_int_equal(th_profile_paths("one", &q, NULL), 0);
    TH_AUTO_ERR struct th_err locked = TH_ERR_INIT;
    assert_int_equal(th_profile_lock(&q, &locked), -TH_R_LOCKED);
    assert_int_equal(th_profile_load(&q, NULL), 0);
    assert_string_equal(q.uuid, p.uuid);
    assert_int_equal(th_profile_alive(&q), 0);
    th_autofree char *file = th_path_join(p.data, "profile.json");
    assert_int_equal(th_io_write_file(file, "{\"driver\":", 10, 0600, NULL), 0);
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_profile_load(&q, &err), -TH_R_STATE_CORRUPT);
    assert_non_null(strstr(err.hint, "thimble delete -p one"));
    (void)th_io_rm_rf(dir, NULL);
}

static void a_finding_about_acceleration_is_remembered(void **state)
{
    (void)state;
    char dir[] = "/tmp/th-test-XXXXXX";
    assert_non_null(mkdtemp(dir));
    th_accel_remember(dir, "tcg", "KVM was tried");
    TH_AUTO_ACCEL struct th_accel a = {0}, b = {0}, c = {0};
    assert_int_equal(th_accel_choose(NULL, dir, &a, NULL), 0);
    assert_string_equal(a.accel, "tcg");
    assert_true(a.proven);
    assert_int_equal(th_accel_choose("kvm", dir, &b, NULL), 0);
    assert_string_equal(b.accel, "kvm");
    TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
    assert_int_equal(th_accel_choose("xen", dir, &c, &err), -TH_R_USAGE);
    (void)th_io_rm_rf(dir, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(profile_names_are_checked),
        cmocka_unit_test(only_loopback_addresses_are_accepted),
        cmocka_unit_test(the_port_agent_refuses_nonsense),
        cmocka_unit_test(domain_xml_matches_the_golden_files),
        cmocka_unit_test(a_profile_round_trips_and_damage_is_noticed),
        cmocka_unit_test(a_finding_about_acceleration_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
